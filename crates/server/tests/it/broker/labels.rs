//! Label rules (API reference 5.3.2 `tag`, `tag_type`).

use std::time::Duration;

use dms_protocol::queue::{NewQueue, QueueMode, TagMode};
use dms_server::broker::{Broker, BrokerError, Stream};

use super::stage::{Stage, all_done, message, on_each_store, take, take_by, texts};

async fn send_labelled(s: &Stage) {
    let labelled = |text, tags: &[&str]| message(text, tags, Duration::ZERO);
    s.send_all(vec![
        labelled("none", &[]),
        labelled("x", &["x"]),
        labelled("y", &["y"]),
        labelled("xy", &["x", "y"]),
        labelled("z", &["z"]),
    ])
    .await;
}

/// 5.3.2 `tag_type`: "or" takes what carries any of the labels, "and" what carries all.
#[tokio::test(start_paused = true)]
async fn an_or_filter_takes_any_label_and_an_and_filter_all() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        send_labelled(&s).await;
        let any = s.lease(0, Stream::Messages, take_by(&["x", "y"], TagMode::Or)).await.unwrap();
        assert_eq!(texts(&any), ["x", "y", "xy"]);
        assert_eq!(any[2].tags.as_ref(), ["x", "y"]);
        let all = s.lease(1, Stream::Messages, take_by(&["x", "y"], TagMode::And)).await.unwrap();
        assert_eq!(texts(&all), ["xy"]);
    })
    .await;
}

/// 5.3.2: "every group supports one label rule; a second consume with another rule fails."
#[tokio::test(start_paused = true)]
async fn the_first_consume_fixes_the_rule() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let consume = |tags: &'static [&str], mode| s.lease(0, Stream::Messages, take_by(tags, mode));
        consume(&["x", "y"], TagMode::And).await.unwrap();
        consume(&["y", "x", "y"], TagMode::And).await.unwrap();
        for (tags, mode) in [(&["x", "y"][..], TagMode::Or), (&["x"], TagMode::And), (&[], TagMode::Or)] {
            assert!(matches!(consume(tags, mode).await, Err(BrokerError::FilterChanged(_))), "{tags:?} {mode:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_labels_is_a_rule_too() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.lease(0, Stream::Messages, take(1)).await.unwrap();
        let refused = s.lease(0, Stream::Messages, take_by(&["x"], TagMode::Or)).await;
        assert!(matches!(refused, Err(BrokerError::FilterChanged(rule)) if rule == "no labels"));
        s.lease(1, Stream::Messages, take_by(&["x"], TagMode::And)).await.unwrap();
        s.lease(1, Stream::Messages, take_by(&["x"], TagMode::Or)).await.unwrap();
    })
    .await;
}

/// Two first consumes at the same time: one rule wins, and the other is refused.
#[tokio::test(start_paused = true)]
async fn of_two_first_consumes_one_fixes_the_rule() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let (one, two) = tokio::join!(
            s.lease(0, Stream::Messages, take_by(&["x"], TagMode::Or)),
            s.lease(0, Stream::Messages, take_by(&["y"], TagMode::Or))
        );
        assert_eq!((one.is_ok(), two.is_ok()), (true, false));
    })
    .await;
}

/// Messages that the rule skips are not counted as consumed.
#[tokio::test(start_paused = true)]
async fn skipped_messages_are_not_counted_as_consumed() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        for _ in 0..500 {
            s.send(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]).await;
        }
        s.send_all(vec![message("hit", &["x"], Duration::ZERO)]).await;
        let batch = s.lease(0, Stream::Messages, take_by(&["x"], TagMode::Or)).await.unwrap();
        assert_eq!(texts(&batch), ["hit"]);
        s.settle(all_done(&batch)).await.unwrap();
        let group = s.counters(0).await;
        assert_eq!((group.consumed_messages, group.available_messages), (1, 0));
    })
    .await;
}

/// Kafka queues have neither labels nor delays.
#[tokio::test(start_paused = true)]
async fn kafka_queues_have_no_labels_and_no_delays() {
    on_each_store(NewQueue::new("q").mode(QueueMode::KafkaHa), async |s: Stage| {
        let append = |message| s.broker.append(&s.project, &s.queue, vec![message]);
        let labelled = append(message("1", &["x"], Duration::ZERO)).await;
        assert!(matches!(labelled, Err(BrokerError::KafkaLabels)));
        let delayed = append(message("1", &[], Duration::from_millis(1))).await;
        assert!(matches!(delayed, Err(BrokerError::KafkaDelay)));
        let consumed = s.lease(0, Stream::Messages, take_by(&["x"], TagMode::Or)).await;
        assert!(matches!(consumed, Err(BrokerError::KafkaLabels)));
        s.send(&["1"]).await;
        assert_eq!(s.take(1).await.len(), 1);
    })
    .await;
}
