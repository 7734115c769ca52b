//! Purging a queue, or one group's backlog.

use std::time::Duration;

use dms_protocol::queue::{NewQueue, QueueMode};
use dms_server::broker::{AckCounts, AckStatus, Broker, BrokerError, GroupPath, Purged, Stream};

use super::stage::{Stage, acks, all_done, message, on_each_durable_store, on_each_store, say, take, texts};

const NOTHING: [&str; 0] = [];

impl Stage {
    async fn purge(&self, group: Option<usize>) -> Purged {
        let group = group.map(|group| &self.groups[group]);
        self.broker.purge(&self.project, &self.queue, group).await.unwrap()
    }
}

/// A purge of a queue deletes waiting, failed, leased and delayed messages, for every group and for groups created later.
#[tokio::test(start_paused = true)]
async fn a_purged_queue_is_empty_for_every_group() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["failed", "leased", "waiting"]).await;
        s.send_all(vec![message("delayed", &[], Duration::from_secs(60))]).await;
        s.fail_first(1).await;
        let leased = s.take(1).await;
        assert_eq!(s.purge(None).await, Purged { messages: 3, delayed: 1 });

        assert_eq!(s.counters(0).await.produced_messages, 0);
        s.settle(all_done(&leased)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        for group in [0, 1] {
            assert_eq!(texts(&s.lease(group, Stream::Messages, take(10)).await.unwrap()), NOTHING);
            assert!(s.broker.peek(&s.group(group), Stream::Messages, 0, 10).await.unwrap().is_empty());
        }
        s.send(&["new"]).await;
        let late = s.broker.create_groups(&s.project, &s.queue, &["late".to_owned()]).await.unwrap().remove(0);
        let path = GroupPath { group: late, ..s.group(0) };
        assert_eq!(texts(&s.broker.lease(&path, Stream::Messages, take(10)).await.unwrap()), ["new"]);
        assert_eq!(texts(&s.take(10).await), ["new"]);
        assert_eq!(s.purge(None).await, Purged { messages: 1, delayed: 0 });
        assert_eq!(s.purge(None).await, Purged::default(), "there is nothing any more");
    })
    .await;
}

/// A purge of one group leaves other groups their messages, and delayed messages come to all groups.
#[tokio::test(start_paused = true)]
async fn a_purged_group_has_no_backlog_and_the_others_keep_theirs() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3"]).await;
        s.send_all(vec![message("delayed", &[], Duration::from_secs(60))]).await;
        s.fail_first(1).await;
        assert_eq!(s.purge(Some(0)).await, Purged { messages: 3, delayed: 0 });
        assert_eq!(texts(&s.take(10).await), NOTHING);
        assert_eq!(texts(&s.lease(1, Stream::Messages, take(10)).await.unwrap()), ["1", "2", "3"]);
        let counters = s.counters(0).await;
        assert_eq!((counters.available_messages, counters.consumed_messages), (0, 0), "nobody consumed them");
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(texts(&s.take(10).await), ["delayed"]);
    })
    .await;
}

/// A FIFO group does not wait for a batch of messages that were purged; one that has a later message blocks it as always.
#[tokio::test(start_paused = true)]
async fn a_purged_batch_does_not_block_a_fifo_group() {
    for group in [None, Some(0)] {
        on_each_store(NewQueue::new("q").mode(QueueMode::Fifo), async |s: Stage| {
            s.send(&["1", "2"]).await;
            let purged = s.take(10).await;
            s.purge(group).await;
            s.send(&["3", "4"]).await;
            let next = s.take(1).await;
            assert_eq!((texts(&purged), texts(&next)), (vec!["1".to_owned(), "2".to_owned()], vec!["3".to_owned()]));
            assert_eq!(texts(&s.take(10).await), NOTHING, "4 waits for 3");
            s.settle(all_done(&purged)).await.unwrap();
            assert_eq!(texts(&s.take(10).await), NOTHING, "4 still waits for 3");
            s.settle(all_done(&next)).await.unwrap();
            assert_eq!(texts(&s.take(10).await), ["4"]);
        })
        .await;
    }
}

/// A consumer that holds a message when it is purged is answered as always, and the message is gone whatever it says.
#[tokio::test(start_paused = true)]
async fn leased_messages_are_purged_and_their_acknowledgements_are_answered() {
    for group in [None, Some(0)] {
        on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
            s.send(&["done", "fails", "rejected", "lapses"]).await;
            let batches = [s.take(1).await, s.take(1).await, s.take(1).await, s.take(1).await];
            s.purge(group).await;
            assert_eq!(s.settle(all_done(&batches[0])).await.unwrap(), AckCounts { success: 1, fail: 0 });
            assert_eq!(s.settle(acks(&batches[1], &[false])).await.unwrap(), AckCounts { success: 0, fail: 1 });
            let rejected = say(&batches[2], [AckStatus::Reject(None)]);
            assert_eq!(s.settle(rejected).await.unwrap(), AckCounts { success: 1, fail: 0 });
            tokio::time::sleep(Duration::from_secs(31)).await;
            let lapsed = s.settle(all_done(&batches[3])).await;
            assert!(matches!(lapsed, Err(BrokerError::UnknownReceipt(_))), "{lapsed:?}");
            let counters = s.counters(0).await;
            assert_eq!((counters.available_messages, counters.available_dead_letters), (0, Some(0)));
            assert_eq!(counters.consumed_messages, 1, "the message that was acknowledged");
            assert_eq!(texts(&s.take(10).await), NOTHING);
        })
        .await;
    }
}

/// Dead letters stay: `dlq discard` is for those.
#[tokio::test(start_paused = true)]
async fn dead_letters_survive_a_purge() {
    for group in [None, Some(0)] {
        on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
            s.send(&["dead", "waiting"]).await;
            s.fail_first(1).await;
            s.purge(group).await;
            assert_eq!(texts(&s.take(10).await), NOTHING);
            assert_eq!(texts(&s.take_dead(10).await), ["dead"]);
        })
        .await;
    }
}

/// A purge that was answered survives a crash, also of leased messages; messages sent after it are there.
#[tokio::test(start_paused = true)]
async fn a_purge_survives_a_crash() {
    for group in [None, Some(0)] {
        on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen| {
            for _ in 0..500 {
                s.send(&["1", "2", "3", "4", "5"]).await;
            }
            s.send_all(vec![message("delayed", &[], Duration::from_secs(3600))]).await;
            let leased = s.take(10).await;
            s.fail_first(3).await;
            assert_eq!(s.purge(group).await.messages, 2_500);
            s.settle(acks(&leased, &[true, false])).await.unwrap();
            s.send(&["new"]).await;
            let s = reopen.crash(s).await;
            let left = s.counters(1).await.available_messages;
            assert_eq!(left, if group.is_some() { 2_501 } else { 1 });
            let s = reopen.restart(s).await;
            assert_eq!(texts(&s.take(10).await), ["new"]);
            assert_eq!(s.broker.overview()[0].delayed, u64::from(group.is_some()));
        })
        .await;
    }
}

/// An unknown queue or group is refused, and nothing changes.
#[tokio::test(start_paused = true)]
async fn purging_an_unknown_queue_or_group_is_refused() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1"]).await;
        let nobody = "nobody".into();
        let group = s.broker.purge(&s.project, &s.queue, Some(&nobody)).await;
        assert!(matches!(group, Err(BrokerError::GroupNotFound)));
        let foreign = s.broker.purge(&"other".into(), &s.queue, None).await;
        assert!(matches!(foreign, Err(BrokerError::QueueNotFound)));
        assert_eq!(texts(&s.take(10).await), ["1"]);
    })
    .await;
}
