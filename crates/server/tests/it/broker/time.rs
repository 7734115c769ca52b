//! Delays, retention, creation delays, waiting (API reference 5.3.1 `delay_time`, 5.1.2 `reservation`).

use std::time::Duration;

use dms_protocol::queue::{NewQueue, QueueMode};
use dms_server::broker::{Broker, BrokerError, PeekState, Stream, embedded::EmbeddedConfig};
use tokio::time::{Instant, advance};

use super::stage::{
    Reopen, Stage, acks, all_done, message, on_each_durable_store, on_each_store, on_each_store_with, take, texts, wait,
};

const NOTHING: [&str; 0] = [];
const HOUR: Duration = Duration::from_secs(3600);

/// 5.3.1: invisible until due; then in the order of the due times, and a waiting call is woken.
#[tokio::test(start_paused = true)]
async fn a_delayed_message_comes_when_it_is_due() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let delayed = |text, seconds| message(text, &[], Duration::from_secs(seconds));
        s.send_all(vec![delayed("late", 20), delayed("soon", 10)]).await;
        s.send(&["now"]).await;
        let began = Instant::now();
        for (text, seconds) in [("now", 0), ("soon", 10), ("late", 20)] {
            let batch = s.lease(0, Stream::Messages, wait(10, 60)).await.unwrap();
            assert_eq!((texts(&batch), began.elapsed().as_secs()), (vec![text.to_owned()], seconds));
        }
    })
    .await;
}

/// 5.3.1 `delay_time`: a delay of seven days outlives the retention of three: that counts from the due time.
#[tokio::test(start_paused = true)]
async fn retention_of_a_delayed_message_counts_from_its_due_time() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send_all(vec![message("1", &[], 7 * 24 * HOUR)]).await;
        advance(7 * 24 * HOUR + Duration::from_secs(1)).await;
        assert_eq!(s.lease(0, Stream::Messages, wait(1, 1)).await.unwrap().len(), 1);
        let group = s.counters(1).await;
        assert_eq!((group.produced_messages, group.available_messages), (1, 1));
        advance(72 * HOUR).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(s.lease(1, Stream::Messages, wait(1, 5)).await.unwrap().is_empty());
        assert_eq!(s.counters(1).await.produced_messages, 0);
    })
    .await;
}

/// The extension `long-delay`: nothing expires before it is due.
#[tokio::test(start_paused = true)]
async fn a_delay_of_a_year_ends_when_it_is_due() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        s.send_all(vec![message("in a year", &[], 366 * 24 * HOUR)]).await;
        advance(200 * 24 * HOUR).await;
        let s = reopen.crash(s).await;
        assert_eq!(texts(&s.take(1).await), NOTHING);
        advance(166 * 24 * HOUR - Duration::from_secs(30)).await;
        let s = reopen.restart(s).await;
        assert_eq!(texts(&s.take(1).await), NOTHING);
        let batch = s.lease(0, Stream::Messages, wait(1, 60)).await.unwrap();
        assert_eq!(texts(&batch), ["in a year"]);
    })
    .await;
}

/// 5.1.2 `reservation`: messages are kept for 72 hours, consumed or not.
#[tokio::test(start_paused = true)]
async fn messages_are_gone_after_their_retention() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3"]).await;
        s.fail_first(2).await;
        advance(71 * HOUR).await;
        s.send(&["4"]).await;
        assert_eq!(s.counters(0).await.available_messages, 4);
        advance(HOUR + Duration::from_secs(2)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(texts(&s.take(10).await), ["4"]);
        let group = s.counters(1).await;
        assert_eq!((group.produced_messages, group.available_messages), (1, 1));
    })
    .await;
}

/// More than one step of retention is due at once.
#[tokio::test(start_paused = true)]
async fn retention_deletes_a_long_backlog_in_steps() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        for _ in 0..350 {
            s.send(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]).await;
        }
        advance(72 * HOUR).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(s.counters(0).await.produced_messages, 0);
        s.send(&["new"]).await;
        assert_eq!(texts(&s.take(10).await), ["new"]);
    })
    .await;
}

/// 5.1.1 `retention_hours`: Kafka queues say how long.
#[tokio::test(start_paused = true)]
async fn kafka_queues_have_their_own_retention() {
    on_each_store(NewQueue::new("q").mode(QueueMode::KafkaHt).retention_hours(2), async |s: Stage| {
        s.send(&["1"]).await;
        advance(2 * HOUR).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(texts(&s.take(10).await), NOTHING);
        assert_eq!(s.broker.queue(&s.project, &s.queue).await.unwrap().reservation_minutes, 120);
    })
    .await;
}

/// 5.3.5: dead letters are kept for 72 hours from becoming one, whatever becomes of their message.
#[tokio::test(start_paused = true)]
async fn dead_letters_have_a_separate_retention() {
    on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
        s.send(&["bad"]).await;
        advance(48 * HOUR).await;
        s.fail_first(1).await;
        advance(48 * HOUR).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(s.counters(0).await.produced_messages, 0);
        assert_eq!(s.counters(0).await.available_dead_letters, Some(1));
        advance(24 * HOUR).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(texts(&s.take_dead(1).await), NOTHING);
        assert_eq!(s.counters(0).await.produced_dead_letters, Some(1));
    })
    .await;
}

/// DMS.10240032: a new queue or group is being created for a while; lists show it at once.
#[tokio::test(start_paused = true)]
async fn a_new_queue_is_not_ready_during_create_delay() {
    let config = EmbeddedConfig::default().create_delay(Duration::from_secs(2));
    let clock = dms_server::clock::Clock::following_tokio(super::stage::epoch());
    let broker = dms_server::broker::embedded::EmbeddedBroker::in_memory(config, clock).await;
    let project = "p".into();
    let queue = broker.create_queue(&project, NewQueue::new("q")).await.unwrap().id;
    assert_eq!(broker.queues(&project).await.unwrap().len(), 1);
    assert!(matches!(broker.queue(&project, &queue).await, Err(BrokerError::BeingCreated)));
    advance(Duration::from_secs(2)).await;
    let group = broker.create_groups(&project, &queue, &["g".into()]).await.unwrap().remove(0);
    assert_eq!(broker.groups(&project, &queue).await.unwrap().groups.len(), 1);
    let path = dms_server::broker::GroupPath { project, queue, group };
    assert!(matches!(broker.lease(&path, Stream::Messages, take(1)).await, Err(BrokerError::BeingCreated)));
    advance(Duration::from_secs(2)).await;
    assert!(broker.lease(&path, Stream::Messages, take(1)).await.unwrap().is_empty());
}

/// The number of waiting calls of a group is limited.
#[tokio::test(start_paused = true)]
async fn too_many_waiting_calls_are_refused() {
    let config = EmbeddedConfig::default().max_polls_per_group(2);
    on_each_store_with(config, NewQueue::new("q"), async |s: Stage| {
        s.take(1).await;
        let poll = || s.lease(0, Stream::Messages, wait(1, 5));
        let (one, two, three) = tokio::join!(poll(), poll(), poll());
        assert!(one.unwrap().is_empty() && two.unwrap().is_empty());
        assert!(matches!(three, Err(BrokerError::TooManyPolls(2))));
        assert!(poll().await.unwrap().is_empty(), "they gave their places free");
    })
    .await;
}

/// The memory of leased messages is limited; settled messages free it.
#[tokio::test(start_paused = true)]
async fn a_consume_beyond_the_memory_of_leased_messages_is_refused() {
    let config = EmbeddedConfig::default().max_leased_bytes(1);
    on_each_store_with(config, NewQueue::new("q"), async |s: Stage| {
        assert!(s.take(1).await.is_empty());
        s.send(&["1", "2"]).await;
        let first = s.take(1).await;
        for group in [0, 1] {
            let refused = s.lease(group, Stream::Messages, take(1)).await;
            assert!(matches!(refused, Err(BrokerError::TooMuchLeased(1))), "{refused:?}");
        }
        s.settle(all_done(&first)).await.unwrap();
        assert_eq!(texts(&s.take(1).await), ["2"]);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(texts(&s.take(1).await), ["2"], "a lapse makes room too");
        s.broker.delete_group(&s.group(0)).await.unwrap();
        assert_eq!(s.lease(1, Stream::Messages, take(1)).await.unwrap().len(), 1, "so does a deletion");
    })
    .await;
}

/// A group that takes all it can get and acknowledges nothing leaves something for others.
#[tokio::test(start_paused = true)]
async fn a_group_that_holds_all_it_can_get_does_not_stop_others() {
    let config = EmbeddedConfig::default().max_leased_bytes(30_000);
    on_each_store_with(config, NewQueue::new("q"), async |s: Stage| {
        for number in 0..100 {
            s.send(&[&format!("{number:02}{}", "x".repeat(998))]).await;
        }
        let mut held = 0;
        while let Ok(batch) = s.lease(0, Stream::Messages, take(1)).await {
            assert!(!batch.is_empty());
            held += batch.len();
        }
        assert!((15..20).contains(&held), "two thirds of the room: {held}");
        let other = s.lease(1, Stream::Messages, take(1)).await.unwrap();
        assert_eq!(other.len(), 1);
        s.broker.ack(&s.group(1), Stream::Messages, all_done(&other)).await.unwrap();
        assert!(s.lease(0, Stream::Messages, take(1)).await.is_err(), "who has the most waits");
    })
    .await;
}

/// Deleting what a call waits for ends the wait with the error.
#[tokio::test(start_paused = true)]
async fn deleting_a_queue_ends_waiting_calls() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let began = Instant::now();
        let path = s.group(1);
        let (group, deleted) = tokio::join!(s.lease(1, Stream::Messages, wait(1, 20)), s.broker.delete_group(&path));
        deleted.unwrap();
        assert!(matches!(group, Err(BrokerError::GroupNotFound)));
        let (queue, deleted) =
            tokio::join!(s.lease(0, Stream::Messages, wait(1, 20)), s.broker.delete_queue(&s.project, &s.queue));
        deleted.unwrap();
        assert!(matches!(queue, Err(BrokerError::QueueNotFound)));
        assert_eq!(began.elapsed(), Duration::ZERO);
    })
    .await;
}

/// Closing answers waiting calls at once with no messages, and refuses later ones.
#[tokio::test(start_paused = true)]
async fn closing_ends_waiting_calls_and_refuses_new_ones() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let began = Instant::now();
        s.take(1).await;
        let (batch, ()) = tokio::join!(s.lease(0, Stream::Messages, wait(1, 20)), s.broker.close());
        assert!(batch.unwrap().is_empty());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(matches!(s.lease(0, Stream::Messages, take(1)).await, Err(BrokerError::Closed)));
        let refused = s.broker.append(&s.project, &s.queue, vec![message("1", &[], Duration::ZERO)]).await;
        assert!(matches!(refused, Err(BrokerError::Closed)));
    })
    .await;
}

/// A look inside leases nothing and shows where each message stands.
#[tokio::test(start_paused = true)]
async fn peeking_leases_nothing() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["done", "failed", "leased", "new"]).await;
        s.send_all(vec![message("later", &[], Duration::from_secs(9))]).await;
        let batch = s.take(2).await;
        s.settle(acks(&batch, &[true, false])).await.unwrap();
        let failed = s.take(1).await;
        let leased = s.take(1).await;
        s.settle(acks(&failed, &[false])).await.unwrap();
        advance(Duration::from_secs(4)).await;
        let seen = s.broker.peek(&s.group(0), Stream::Messages, 0, 10).await.unwrap();
        let states: Vec<_> =
            seen.iter().map(|peeked| (peeked.sequence.min(99), peeked.state, peeked.failures)).collect();
        let seconds = Duration::from_secs;
        assert_eq!(
            states,
            [
                (2, PeekState::Available, 2),
                (3, PeekState::Leased(seconds(26)), 0),
                (4, PeekState::Available, 0),
                (99, PeekState::Delayed(seconds(5)), 0),
            ]
        );
        let page = s.broker.peek(&s.group(0), Stream::Messages, 3, 2).await.unwrap();
        assert_eq!(page.iter().map(|peeked| peeked.sequence).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(texts(&leased), ["leased"]);
        assert_eq!(texts(&s.take(10).await), ["failed", "new"]);
    })
    .await;
}
