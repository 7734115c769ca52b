//! Leases and acknowledgements (API reference 5.3.2, 5.3.3).

use std::time::Duration;

use dms_protocol::queue::{NewQueue, QueueMode};
use dms_server::broker::{Ack, AckCounts, AckStatus, Broker, BrokerError, LeaseRequest, Stream};

use super::stage::{Stage, acks, all_done, message, on_each_store, take, texts, wait};

const NOTHING: [&str; 0] = [];

/// 5.3.3: "a consumed message is not given to the same group again for ack_wait"; success settles it for that group alone.
#[tokio::test(start_paused = true)]
async fn each_group_gets_every_message_once() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3"]).await;
        let first = s.take(2).await;
        assert_eq!(texts(&first), ["1", "2"]);
        assert_eq!(texts(&s.take(10).await), ["3"]);
        assert_eq!(texts(&s.take(10).await), NOTHING);
        assert_eq!(s.settle(all_done(&first)).await.unwrap(), AckCounts { success: 2, fail: 0 });
        let other = s.lease(1, Stream::Messages, take(10)).await.unwrap();
        assert_eq!(texts(&other), ["1", "2", "3"]);
    })
    .await;
}

/// 5.3.3: the service stops at the first failure, and all later messages of the batch have failed.
#[tokio::test(start_paused = true)]
async fn a_failure_fails_the_rest_of_its_batch() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3", "4"]).await;
        let batch = s.take(4).await;
        let settled = s.settle(acks(&batch, &[true, false, true, true])).await.unwrap();
        assert_eq!(settled, AckCounts { success: 1, fail: 3 });
        assert_eq!(texts(&s.take(10).await), ["2", "3", "4"], "available again at once, in order");
    })
    .await;
}

/// 5.3.3's example answers `{"success":1,"fail":2}` to one line: an acknowledgement of a prefix ends the batch; one that leaves out the first message settles nothing.
#[tokio::test(start_paused = true)]
async fn messages_missing_in_an_acknowledgement_have_failed() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3"]).await;
        let batch = s.take(3).await;
        assert_eq!(s.settle(acks(&batch, &[true])).await.unwrap(), AckCounts { success: 1, fail: 2 });
        let batch = s.take(3).await;
        assert_eq!(texts(&batch), ["2", "3"]);
        assert_eq!(s.settle(all_done(&batch[1..])).await.unwrap(), AckCounts { success: 0, fail: 2 });
        assert_eq!(texts(&s.take(3).await), ["2", "3"]);
    })
    .await;
}

/// The vendor's own test acknowledges in the order of a hash map: the batch's order counts, not the list's.
#[tokio::test(start_paused = true)]
async fn the_order_of_the_list_does_not_matter() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3"]).await;
        let mut list = all_done(&s.take(3).await);
        list.reverse();
        assert_eq!(s.settle(list).await.unwrap(), AckCounts { success: 3, fail: 0 });
        assert_eq!(texts(&s.take(3).await), NOTHING);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn several_batches_in_one_list_are_judged_separately() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3", "4"]).await;
        let (one, two) = (s.take(2).await, s.take(2).await);
        let mut list = acks(&one, &[false, true]);
        list.extend(acks(&two, &[true, true]));
        assert_eq!(s.settle(list).await.unwrap(), AckCounts { success: 2, fail: 2 });
        assert_eq!(texts(&s.take(4).await), ["1", "2"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_listed_twice_fails_if_either_line_fails() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1"]).await;
        let batch = s.take(1).await;
        let list = [acks(&batch, &[false]), acks(&batch, &[true])].concat();
        assert_eq!(s.settle(list).await.unwrap(), AckCounts { success: 0, fail: 1 });
    })
    .await;
}

/// DMS.10542209: it cannot be parsed, the lease is over, or it is acknowledged repeatedly. Nothing of the list is settled.
#[tokio::test(start_paused = true)]
async fn a_bad_receipt_settles_nothing() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2"]).await;
        let batch = s.take(1).await;
        for bad in ["", "nonsense", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let mut list = all_done(&batch);
            list.push(Ack { receipt: bad.into(), status: AckStatus::Success });
            assert!(matches!(s.settle(list).await, Err(BrokerError::UnknownReceipt(_))));
        }
        assert_eq!(s.settle(all_done(&batch)).await.unwrap().success, 1);
        assert!(matches!(s.settle(all_done(&batch)).await, Err(BrokerError::UnknownReceipt(_))), "repeated");
        assert_eq!(s.counters(0).await.consumed_messages, 1);
    })
    .await;
}

/// DMS.10540004: a token of another queue or group.
#[tokio::test(start_paused = true)]
async fn a_receipt_of_another_group_is_refused() {
    on_each_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage| {
        s.send(&["1"]).await;
        let batch = s.take(1).await;
        let foreign = s.broker.ack(&s.group(1), Stream::Messages, all_done(&batch)).await;
        assert!(matches!(foreign, Err(BrokerError::ForeignReceipt(_))));
        let foreign = s.broker.ack(&s.group(0), Stream::DeadLetters, all_done(&batch)).await;
        assert!(matches!(foreign, Err(BrokerError::ForeignReceipt(_))));
        assert_eq!(s.settle(all_done(&batch)).await.unwrap().success, 1);
    })
    .await;
}

/// 5.3.2 `ack_wait`: without an acknowledgement in time the message can be consumed again; a late one is refused.
#[tokio::test(start_paused = true)]
async fn a_lapsed_lease_makes_its_messages_available_again() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2"]).await;
        let batch = s.take(2).await;
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert_eq!(texts(&s.take(2).await), NOTHING);
        let again = s.lease(0, Stream::Messages, wait(2, 60)).await.unwrap();
        assert_eq!(texts(&again), ["1", "2"]);
        assert!(matches!(s.settle(all_done(&batch)).await, Err(BrokerError::UnknownReceipt(_))));
        assert_eq!(s.settle(all_done(&again)).await.unwrap().success, 2);
    })
    .await;
}

/// The acknowledgement that comes first after the deadline is late even if the lapse was not noticed yet.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_at_the_deadline_is_late() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1"]).await;
        let batch = s.take(1).await;
        // The clock moves without letting the timer run in between.
        let late = async {
            tokio::time::advance(Duration::from_secs(30)).await;
            s.settle(all_done(&batch)).await
        };
        assert!(matches!(late.await, Err(BrokerError::UnknownReceipt(_))));
    })
    .await;
}

/// 5.3.2: an answer holds at most 512 KB; a single message is given whatever its size.
#[tokio::test(start_paused = true)]
async fn a_batch_obeys_its_limit_of_bytes() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let large = "x".repeat(1_000);
        s.send(&[&large, &large, "small"]).await;
        let request = |bytes| LeaseRequest { max_bytes: bytes, ..take(10) };
        assert_eq!(s.lease(0, Stream::Messages, request(10)).await.unwrap().len(), 1);
        assert_eq!(s.lease(0, Stream::Messages, request(1_002)).await.unwrap().len(), 1);
        assert_eq!(s.lease(0, Stream::Messages, request(1_002)).await.unwrap().len(), 1);
    })
    .await;
}

/// The FAQ on FIFO queues (dms-ug-180607003): "retrieved and acknowledged in order, not concurrently". A group gets nothing while a
/// batch is leased, and failed messages come before anything newer.
#[tokio::test(start_paused = true)]
async fn a_fifo_group_is_blocked_while_a_batch_is_leased() {
    on_each_store(NewQueue::new("q").mode(QueueMode::Fifo), async |s: Stage| {
        s.send(&["1", "2", "3", "4"]).await;
        let batch = s.take(2).await;
        assert_eq!(texts(&s.take(2).await), NOTHING);
        let mut polls = Vec::new();
        polls.push(s.lease(0, Stream::Messages, wait(3, 20)));
        let unblock = async {
            tokio::task::yield_now().await;
            s.settle(acks(&batch, &[true, false])).await.unwrap()
        };
        let (next, settled) = tokio::join!(polls.remove(0), unblock);
        assert_eq!(settled, AckCounts { success: 1, fail: 1 });
        assert_eq!(texts(&next.unwrap()), ["2", "3", "4"]);
        assert_eq!(s.lease(1, Stream::Messages, take(10)).await.unwrap().len(), 4, "other groups are not blocked");
    })
    .await;
}

/// 5.3.2 `time_wait`: a message that arrives ends the wait at once.
#[tokio::test(start_paused = true)]
async fn a_waiting_call_wakes_on_arrival() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let began = tokio::time::Instant::now();
        let (batch, ()) = tokio::join!(s.lease(0, Stream::Messages, wait(10, 20)), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            s.send(&["1"]).await;
        });
        assert_eq!(texts(&batch.unwrap()), ["1"]);
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert_eq!(texts(&s.lease(0, Stream::Messages, wait(10, 20)).await.unwrap()), NOTHING);
        assert_eq!(began.elapsed(), Duration::from_secs(25));
    })
    .await;
}

/// 5.3.2 `time_wait`: every waiting call gets its share of one arrival: the wake is passed on.
#[tokio::test(start_paused = true)]
async fn one_send_wakes_as_many_waiting_calls_as_it_has_messages() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let poll = || s.lease(0, Stream::Messages, wait(1, 20));
        let began = tokio::time::Instant::now();
        let (one, two, three, ()) = tokio::join!(poll(), poll(), poll(), s.send(&["1", "2", "3"]));
        let mut got = [one, two, three].map(|batch| texts(&batch.unwrap()).concat());
        got.sort();
        assert_eq!(got, ["1", "2", "3"]);
        assert_eq!(began.elapsed(), Duration::ZERO);
    })
    .await;
}

/// A call that is dropped while it waits takes nothing with it, and the next one is woken in its place.
#[tokio::test(start_paused = true)]
async fn a_dropped_consume_call_leases_nothing() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let request = wait(1, 20);
        tokio::select! {
            biased;
            _ = s.lease(0, Stream::Messages, request.clone()) => unreachable!("nothing to consume"),
            () = tokio::task::yield_now() => {}
        }
        let (batch, ()) = tokio::join!(s.lease(0, Stream::Messages, request), s.send(&["1"]));
        assert_eq!(texts(&batch.unwrap()), ["1"]);
        assert_eq!(s.counters(0).await.available_messages, 0);
    })
    .await;
}

/// 5.2.2: leased messages are not available; consumed ones are those acknowledged.
#[tokio::test(start_paused = true)]
async fn counters_follow_what_happens() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        s.send(&["1", "2", "3", "4", "5"]).await;
        s.send_all(vec![message("later", &[], Duration::from_secs(60))]).await;
        let batch = s.take(3).await;
        let group = s.counters(0).await;
        assert_eq!((group.produced_messages, group.consumed_messages, group.available_messages), (6, 0, 2));
        s.settle(acks(&batch, &[true])).await.unwrap();
        let group = s.counters(0).await;
        assert_eq!((group.produced_messages, group.consumed_messages, group.available_messages), (6, 1, 4));
        assert_eq!(s.counters(1).await.available_messages, 5);
    })
    .await;
}

/// A backlog larger than the memory for messages is read back completely and in order.
#[tokio::test(start_paused = true)]
async fn a_long_backlog_comes_in_order() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let filler = "x".repeat(10_000);
        for number in 0..60 {
            let texts: Vec<String> = (0..10).map(|place| format!("{}-{filler}", number * 10 + place)).collect();
            s.send(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let mut next = 0;
        while next < 600 {
            let batch = s.take(7).await;
            assert!(!batch.is_empty(), "{next} of 600");
            for text in texts(&batch) {
                assert_eq!(text.split('-').next(), Some(next.to_string().as_str()));
                next += 1;
            }
            s.settle(all_done(&batch)).await.unwrap();
        }
        assert_eq!(s.counters(0).await.consumed_messages, 600);
    })
    .await;
}
