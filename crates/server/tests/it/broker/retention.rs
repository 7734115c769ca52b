//! Retention of single queues, and messages that are deleted once every group has settled them.

use std::{path::Path, time::Duration};

use dms_protocol::queue::{NewQueue, QueueMode, TagMode};
use dms_server::broker::{
    Broker, BrokerError, GroupPath, QueueChange, RetentionChange, RetentionPolicy, Stream,
    embedded::{EmbeddedConfig, StartPosition},
};
use tokio::time::{advance, sleep};

use super::stage::{Stage, acks, all_done, message, on_disk, on_each_store, on_each_store_with, take, take_by, texts};

const NOTHING: [&str; 0] = [];
const HOUR: Duration = Duration::from_secs(3600);
const WHEN_SETTLED: RetentionPolicy = RetentionPolicy { retention: None, delete_when_settled: Some(true) };

impl Stage {
    async fn keep(&self, policy: RetentionPolicy) {
        self.broker.change_queue(&self.project, &self.queue, RetentionChange::from(policy).into()).await.unwrap();
    }

    async fn keep_for(&self, retention: Duration) {
        self.keep(RetentionPolicy { retention: Some(retention), delete_when_settled: None }).await;
    }

    /// Consumes and acknowledges all there is for a group; gives the texts.
    async fn work_off(&self, group: usize) -> Vec<String> {
        let mut done = Vec::new();
        loop {
            let batch = self.lease(group, Stream::Messages, take(10)).await.unwrap();
            if batch.is_empty() {
                return done;
            }
            self.broker.ack(&self.group(group), Stream::Messages, all_done(&batch)).await.unwrap();
            done.extend(texts(&batch));
        }
    }

    /// How many messages the queue has a moment later.
    async fn kept(&self) -> u64 {
        sleep(Duration::from_secs(2)).await;
        self.counters(0).await.produced_messages
    }

    async fn late_group(&self) -> Vec<String> {
        let id = self.broker.create_groups(&self.project, &self.queue, &["late".to_owned()]).await.unwrap().remove(0);
        let path = GroupPath { group: id, ..self.group(0) };
        texts(&self.broker.lease(&path, Stream::Messages, take(10)).await.unwrap())
    }
}

/// The bytes of all files of the log.
fn log_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("log")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Set while the broker runs, longer or shorter than the default, it also applies to stored messages.
#[tokio::test(start_paused = true)]
async fn a_queue_can_have_a_separate_retention() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1"]).await;
        advance(2 * HOUR).await;
        s.send(&["2"]).await;
        s.keep_for(HOUR).await;
        assert_eq!(s.kept().await, 1);
        assert_eq!(texts(&s.take(10).await), ["2"]);
        let shown = s.broker.queue(&s.project, &s.queue).await.unwrap();
        assert_eq!(shown.reservation_minutes, 60);
        let shown = &s.broker.overview()[0];
        assert_eq!((shown.retention, shown.groups[0].expired_unread), (HOUR, 1));
        s.keep(RetentionPolicy::default()).await;
        advance(71 * HOUR).await;
        assert_eq!(s.kept().await, 1, "the retention of the server applies again");
        advance(HOUR).await;
        assert_eq!(s.kept().await, 0);
    })
    .await;
}

/// Kafka queues have a retention from their creation; a later setting overrides it.
#[tokio::test(start_paused = true)]
async fn a_set_retention_overrides_the_retention_hours_of_a_kafka_queue() {
    on_each_store(NewQueue::new("q").mode(QueueMode::KafkaHt).retention_hours(2), async |s: Stage| {
        s.keep_for(5 * HOUR).await;
        s.send(&["1"]).await;
        advance(4 * HOUR).await;
        assert_eq!(s.kept().await, 1);
        advance(HOUR).await;
        assert_eq!(s.kept().await, 0);
    })
    .await;
}

/// Settings of a queue in the configuration take precedence, and cannot be changed elsewhere.
#[tokio::test(start_paused = true)]
async fn the_configuration_overrides_a_set_retention() {
    let mut config = EmbeddedConfig::default().retention(9 * HOUR);
    let configured = RetentionPolicy { retention: Some(HOUR), delete_when_settled: None };
    config.queue_retention.insert(("p".into(), "q".to_owned()), configured);
    on_each_store_with(config, NewQueue::new("q"), async |s: Stage| {
        let other = RetentionPolicy { retention: Some(2 * HOUR), delete_when_settled: None };
        let change = QueueChange {
            description: Some("changed".to_owned()),
            max_consume_count: Some(Some(3)),
            retention: other.into(),
        };
        let refused = s.broker.change_queue(&s.project, &s.queue, change).await;
        assert!(matches!(&refused, Err(BrokerError::Configured(what)) if what == "retention"), "{refused:?}");
        let queue = s.broker.queue(&s.project, &s.queue).await.unwrap();
        assert_eq!((queue.description.as_str(), queue.max_consume_count), ("", None), "a part of the change was made");
        s.keep(WHEN_SETTLED).await;
        assert_eq!(s.broker.queue(&s.project, &s.queue).await.unwrap().reservation_minutes, 60);
        assert!(s.broker.overview()[0].delete_when_settled);
        let second = s.broker.create_queue(&s.project, NewQueue::new("second")).await.unwrap().id;
        assert_eq!(s.broker.queue(&s.project, &second).await.unwrap().reservation_minutes, 540);
    })
    .await;
}

/// A message goes once every group that exists has settled it, however it did: groups of later do not get it.
#[tokio::test(start_paused = true)]
async fn settled_messages_are_deleted_with_delete_when_settled() {
    on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
        s.keep(WHEN_SETTLED).await;
        s.send(&["1", "2", "3"]).await;
        s.work_off(0).await;
        assert_eq!(s.kept().await, 3, "the second group has not read them");
        let batch = s.lease(1, Stream::Messages, take(2)).await.unwrap();
        assert_eq!(s.kept().await, 3, "they are with a consumer");
        s.broker.ack(&s.group(1), Stream::Messages, acks(&batch, &[true, false])).await.unwrap();
        assert_eq!(s.kept().await, 1, "done, and dead");
        assert_eq!(texts(&s.lease(1, Stream::DeadLetters, take(9)).await.unwrap()), ["2"], "dead letters stay");
        assert_eq!(s.late_group().await, ["3"]);
        assert_eq!(s.work_off(1).await, ["3"]);
        assert_eq!(s.kept().await, 1, "a group of later counts too");
        assert_eq!(s.broker.overview()[0].groups.iter().map(|group| group.expired_unread).sum::<u64>(), 0);
    })
    .await;
}

/// A failed message and all later ones stay until it is settled.
#[tokio::test(start_paused = true)]
async fn an_unsettled_message_keeps_all_later_ones() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.broker.delete_group(&s.group(1)).await.unwrap();
        s.keep(WHEN_SETTLED).await;
        s.send(&["1", "2", "3"]).await;
        let batch = s.take(2).await;
        s.settle(acks(&batch, &[true, false])).await.unwrap();
        let (two, three) = (s.take(1).await, s.take(1).await);
        s.settle(all_done(&three)).await.unwrap();
        assert_eq!(s.kept().await, 2);
        s.settle(all_done(&two)).await.unwrap();
        assert_eq!(s.kept().await, 0);
    })
    .await;
}

/// Without a group nothing is settled: the messages wait for the first one.
#[tokio::test(start_paused = true)]
async fn a_queue_without_groups_keeps_its_messages() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.keep(WHEN_SETTLED).await;
        for group in [0, 1] {
            s.broker.delete_group(&s.group(group)).await.unwrap();
        }
        s.send(&["1"]).await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(s.late_group().await, ["1"]);
    })
    .await;
}

/// The group that all waited for is deleted, or purged.
#[tokio::test(start_paused = true)]
async fn a_deleted_group_keeps_no_messages() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.keep(WHEN_SETTLED).await;
        s.send(&["1", "2"]).await;
        s.work_off(0).await;
        s.broker.purge(&s.project, &s.queue, Some(&s.groups[1])).await.unwrap();
        assert_eq!(s.kept().await, 0);
        s.send(&["3"]).await;
        s.work_off(0).await;
        assert_eq!(s.kept().await, 1);
        s.broker.delete_group(&s.group(1)).await.unwrap();
        assert_eq!(s.kept().await, 0);
    })
    .await;
}

/// Messages that a label rule skips are settled too, although nobody acknowledges them.
#[tokio::test(start_paused = true)]
async fn messages_skipped_by_a_label_rule_are_settled() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.broker.delete_group(&s.group(1)).await.unwrap();
        s.keep(WHEN_SETTLED).await;
        let only = async || texts(&s.lease(0, Stream::Messages, take_by(&["x"], TagMode::Or)).await.unwrap());
        assert_eq!(only().await, NOTHING);
        s.send_all(vec![message("1", &[], Duration::ZERO), message("2", &["y"], Duration::ZERO)]).await;
        assert_eq!(only().await, NOTHING);
        assert_eq!(s.kept().await, 0);
    })
    .await;
}

/// A new group that starts at the end keeps no earlier messages.
#[tokio::test(start_paused = true)]
async fn a_group_that_starts_at_the_end_keeps_no_earlier_messages() {
    let config = EmbeddedConfig::default().new_group_starts(StartPosition::End);
    on_each_store_with(config, NewQueue::new("q"), async |s: Stage| {
        s.keep(WHEN_SETTLED).await;
        s.send(&["1"]).await;
        assert_eq!(s.late_group().await, NOTHING);
        s.work_off(0).await;
        s.work_off(1).await;
        assert_eq!(s.kept().await, 0);
    })
    .await;
}

/// More messages are settled than one step deletes, and the log files are deleted. After a crash nothing reappears, and the setting remains.
#[tokio::test(start_paused = true)]
async fn the_space_of_settled_messages_is_freed() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir| {
        let large = "x".repeat(400_000);
        let policy = RetentionPolicy { retention: Some(5 * HOUR), ..WHEN_SETTLED };
        for _ in 0..25 {
            s.send(&[large.as_str(); 10]).await;
        }
        let full = log_bytes(dir.dir.path());
        assert!(full > 96_000_000, "{full}");
        s.broker.delete_group(&s.group(1)).await.unwrap();
        s.keep(policy).await;
        while let [one, ..] = s.take(10).await.as_slice() {
            s.settle(acks(std::slice::from_ref(one), &[true])).await.unwrap();
        }
        assert_eq!(s.kept().await, 0);
        let empty = async || {
            while log_bytes(dir.dir.path()) > 64 * 1024 * 1024 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), empty())
            .await
            .expect("two files are left: the last, and the next");
        s.send(&["new"]).await;
        let s = dir.crash(s).await;
        let shown = s.broker.overview().remove(0);
        assert_eq!((shown.queue.produced_messages, shown.retention_set), (1, policy));
        assert_eq!(s.work_off(0).await, ["new"]);
        assert_eq!(s.kept().await, 0);
    })
    .await;
}

/// Twenty-five thousand messages in three pieces, each in its own commit.
#[tokio::test(start_paused = true)]
async fn settled_messages_are_deleted_in_bounded_steps() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.broker.delete_group(&s.group(1)).await.unwrap();
        for _ in 0..25 {
            s.send(&["x"; 1_000]).await;
        }
        s.broker.purge(&s.project, &s.queue, Some(&s.groups[0])).await.unwrap();
        s.keep(WHEN_SETTLED).await;
        assert_eq!(s.kept().await, 0);
    })
    .await;
}
