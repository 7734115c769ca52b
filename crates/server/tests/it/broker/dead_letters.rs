//! Failures and dead letters (API reference 5.1.1 `max_consume_count`, 5.3.4, 5.3.5).

use std::time::Duration;

use dms_protocol::queue::{NewQueue, QueueMode};
use dms_server::broker::{
    AckCounts, Broker, BrokerError, Stream,
    embedded::{EmbeddedConfig, FailureCounting},
};

use super::stage::{Stage, acks, all_done, message, on_each_store, on_each_store_with, take, texts, wait};

const NOTHING: [&str; 0] = [];

/// 5.1.1: a message is handed out `max_consume_count` times, then it is a dead letter of that group alone.
#[tokio::test(start_paused = true)]
async fn a_message_is_dead_lettered_at_its_last_allowed_failure() {
    on_each_store(NewQueue::new("q").dead_letters_after(3), async |s: Stage| {
        s.send(&["bad", "good"]).await;
        for _ in 0..3 {
            assert_eq!(s.fail_first(1).await, ["bad"]);
        }
        assert_eq!(texts(&s.take(10).await), ["good"]);
        assert_eq!(texts(&s.take_dead(10).await), ["bad"]);
        let group = s.counters(0).await;
        assert_eq!((group.produced_dead_letters, group.available_dead_letters), (Some(1), Some(0)));
        assert_eq!(s.lease(1, Stream::Messages, take(10)).await.unwrap().len(), 2, "the other group still has it");
    })
    .await;
}

/// 5.3.2 `ack_wait`: "by default a failed consumption". A lapsed lease is one of every message in it.
#[tokio::test(start_paused = true)]
async fn an_ended_lease_is_a_failure_of_the_whole_batch() {
    on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
        s.send(&["1", "2", "3"]).await;
        assert_eq!(s.take(2).await.len(), 2);
        let dead = s.lease(0, Stream::DeadLetters, wait(10, 60)).await.unwrap();
        assert_eq!(texts(&dead), ["1", "2"]);
        assert_eq!(texts(&s.take(10).await), ["3"]);
    })
    .await;
}

/// 5.1.1 `max_consume_count` speaks of failed confirmations. Neighbours behind a failure fail by rule, not by themselves: they are not counted.
#[tokio::test(start_paused = true)]
async fn neighbours_of_a_poison_message_are_not_dead_lettered() {
    on_each_store(NewQueue::new("q").dead_letters_after(2), async |s: Stage| {
        s.send(&["poison", "1", "2"]).await;
        assert_eq!(s.fail_first(3).await, ["poison", "1", "2"]);
        assert_eq!(s.fail_first(3).await, ["poison", "1", "2"]);
        assert_eq!(texts(&s.take(3).await), ["1", "2"]);
        assert_eq!(texts(&s.take_dead(3).await), ["poison"]);
    })
    .await;
}

/// The strict reading of 5.1.1 and 5.3.3: everything behind the failure is counted too.
#[tokio::test(start_paused = true)]
async fn with_batch_counting_neighbours_are_dead_lettered_too() {
    let config = EmbeddedConfig::default().failure_counting(FailureCounting::Batch);
    on_each_store_with(config, NewQueue::new("q").dead_letters_after(2), async |s: Stage| {
        s.send(&["poison", "1", "2"]).await;
        s.fail_first(3).await;
        s.fail_first(3).await;
        assert_eq!(texts(&s.take(3).await), NOTHING);
        assert_eq!(texts(&s.take_dead(3).await), ["poison", "1", "2"], "in order");
    })
    .await;
}

/// 5.3.5: dead letters are acknowledged like messages; one that fails can be consumed again, there is no third level.
#[tokio::test(start_paused = true)]
async fn failing_dead_letters_are_redelivered_without_limit() {
    on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
        s.send(&["bad"]).await;
        s.fail_first(1).await;
        for _ in 0..5 {
            let dead = s.take_dead(1).await;
            let settled = s.broker.ack(&s.group(0), Stream::DeadLetters, acks(&dead, &[false])).await.unwrap();
            assert_eq!(settled, AckCounts { success: 0, fail: 1 });
        }
        let dead = s.take_dead(1).await;
        s.broker.ack(&s.group(0), Stream::DeadLetters, all_done(&dead)).await.unwrap();
        assert_eq!(texts(&s.take_dead(1).await), NOTHING);
        assert_eq!(s.counters(0).await.produced_dead_letters, Some(1));
    })
    .await;
}

/// 5.3.4: dead letters carry no labels.
#[tokio::test(start_paused = true)]
async fn dead_letters_carry_no_labels() {
    on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
        s.send_all(vec![message("bad", &["x", "y"], Duration::ZERO)]).await;
        s.fail_first(1).await;
        let dead = s.take_dead(1).await;
        assert_eq!(dead[0].json, r#"{"body":"bad","attributes":{}}"#);
        assert!(dead[0].tags.is_empty());
    })
    .await;
}

/// 5.3.4: dead letters are for queues that have them. A queue without them refuses; so do Kafka queues.
#[tokio::test(start_paused = true)]
async fn without_dead_letters_a_message_is_redelivered_without_limit() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["bad"]).await;
        for _ in 0..50 {
            assert_eq!(s.fail_first(1).await, ["bad"]);
        }
        let refused = s.lease(0, Stream::DeadLetters, take(1)).await;
        assert!(matches!(refused, Err(BrokerError::NoDeadLetters)));
    })
    .await;
}

/// 5.1.1: the dead letters of a FIFO queue keep its order, and are blocked like it.
#[tokio::test(start_paused = true)]
async fn fifo_dead_letters_keep_their_order() {
    on_each_store(NewQueue::new("q").mode(QueueMode::Fifo).dead_letters_after(1), async |s: Stage| {
        s.send(&["1", "2", "3"]).await;
        for text in ["1", "2", "3"] {
            assert_eq!(s.fail_first(1).await, [text]);
        }
        assert_eq!(texts(&s.take_dead(2).await), ["1", "2"]);
        assert_eq!(texts(&s.take_dead(2).await), NOTHING);
    })
    .await;
}
