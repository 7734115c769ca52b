//! Operations on single messages: finding one by its id, giving a dead letter back, settling a message.

use std::time::Duration;

use dms_protocol::queue::NewQueue;
use dms_server::broker::{AckStatus, Broker, BrokerError, FoundIn, FoundMessage, MessageOrigin, Standing, Stream};

use super::stage::{Stage, acks, all_done, message, on_each_durable_store, on_each_store, say, take, take_by, texts};

fn queue() -> NewQueue {
    NewQueue::new("q").dead_letters_after(1)
}

/// Sends messages and makes them dead letters of the first group; returns their ids.
async fn dead(s: &Stage, texts: &[&str]) -> Vec<MessageOrigin> {
    s.send(texts).await;
    let mut ids = Vec::new();
    for _ in texts {
        let batch = s.take(1).await;
        ids.push(batch[0].id(&s.group(0), Stream::Messages));
        s.settle(acks(&batch, &[false])).await.unwrap();
    }
    ids
}

async fn find(s: &Stage, id: MessageOrigin) -> FoundMessage {
    let found = s.broker.find_message(&s.project, std::slice::from_ref(&s.queue), id).await.unwrap();
    assert!(found.complete);
    found
}

/// The place of a message among the dead letters of the first group.
async fn place_of_dead(s: &Stage, id: MessageOrigin) -> u64 {
    let found = find(s, id).await;
    found.places.iter().find(|place| place.found_in == FoundIn::DeadLetters).unwrap().sequence
}

/// Each place with the states for its groups.
async fn standings(s: &Stage, id: MessageOrigin) -> Vec<(FoundIn, Vec<Standing>)> {
    let states = |place: &dms_server::broker::FoundPlace| place.groups.iter().map(|group| group.standing).collect();
    find(s, id).await.places.iter().map(|place| (place.found_in, states(place))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_is_found_wherever_it_is() {
    use Standing::{Available, Leased, Settled};
    on_each_store(queue(), async |s| {
        s.send(&["first", "second"]).await;
        let batch = s.take(1).await;
        let id = batch[0].id(&s.group(0), Stream::Messages);
        let left = Duration::from_secs(30);
        assert_eq!(standings(&s, id).await, [(FoundIn::Queue, vec![Leased(left), Available])]);
        s.settle(acks(&batch, &[false])).await.unwrap();
        let dead = (FoundIn::DeadLetters, vec![Available]);
        assert_eq!(standings(&s, id).await, [(FoundIn::Queue, vec![Settled, Available]), dead]);
        let other = MessageOrigin::parse("m_RjkDiiQaIPJBFSAAAAAAAR").unwrap();
        assert_eq!(standings(&s, other).await, []);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_found_through_its_delay() {
    use Standing::{Available, Settled};
    on_each_store(queue(), async |s| {
        let delayed = vec![message("later", &[], Duration::from_secs(5))];
        let appended = s.broker.append(&s.project, &s.queue, delayed).await.unwrap();
        let id = appended.ids(&s.queue, std::iter::once((Duration::from_secs(5), None))).next().unwrap();
        assert_eq!(standings(&s, id).await, [(FoundIn::Delayed, vec![])]);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(standings(&s, id).await, [(FoundIn::Queue, vec![Available, Available])]);
        for group in [0, 1] {
            let batch = s.lease(group, Stream::Messages, take(10)).await.unwrap();
            assert_eq!(batch[0].id(&s.group(group), Stream::Messages), id);
            s.broker.ack(&s.group(group), Stream::Messages, all_done(&batch)).await.unwrap();
        }
        assert_eq!(standings(&s, id).await, [(FoundIn::Queue, vec![Settled, Settled])]);
    })
    .await;
}

/// Whatever is before it, and across a crash: only its own group gets it, once.
#[tokio::test(start_paused = true)]
async fn a_retried_dead_letter_goes_back_to_its_group_alone() {
    on_each_durable_store(queue(), async |s, reopen| {
        let ids = dead(&s, &["a", "b", "c"]).await;
        let others = s.lease(1, Stream::Messages, take(10)).await.unwrap();
        s.broker.ack(&s.group(1), Stream::Messages, all_done(&others)).await.unwrap();
        let place = place_of_dead(&s, ids[1]).await;
        s.broker.retry_dead_letter(&s.group(0), place, ids[1]).await.unwrap();
        let again = s.broker.retry_dead_letter(&s.group(0), place, ids[1]).await;
        assert!(matches!(again, Err(BrokerError::NotAvailable(_))), "{again:?}");

        let s = reopen.crash(s).await;
        let batch = s.take(10).await;
        assert_eq!((texts(&batch), batch[0].id(&s.group(0), Stream::Messages)), (vec!["b".to_owned()], ids[1]));
        assert_eq!(batch[0].failures, 0, "its attempts begin again");
        assert_eq!(texts(&s.lease(1, Stream::Messages, take(10)).await.unwrap()), [""; 0], "the other group is done");
        assert_eq!(texts(&s.take_dead(10).await), ["a", "c"]);
        s.settle(acks(&batch, &[false])).await.unwrap();
        tokio::time::sleep(Duration::from_secs(31)).await;
        let dead = s.take_dead(10).await;
        let b = dead.iter().find(|message| message.id(&s.group(0), Stream::DeadLetters) == ids[1]).unwrap();
        assert_eq!(texts(std::slice::from_ref(b)), ["b"], "it can die again, with the same id");
        s.broker.close().await;
    })
    .await;
}

/// The copy is what the group gets, alone and with the same id; the original is a dead letter still, and did not die once more.
#[tokio::test(start_paused = true)]
async fn an_edited_dead_letter_keeps_its_original_beside_it() {
    on_each_durable_store(queue(), async |s, reopen| {
        let ids = dead(&s, &["a", "b"]).await;
        let others = s.lease(1, Stream::Messages, take(10)).await.unwrap();
        s.broker.ack(&s.group(1), Stream::Messages, all_done(&others)).await.unwrap();
        let (place, died) = (place_of_dead(&s, ids[0]).await, s.broker.stats());
        let copy = || message("mended", &["unused"], Duration::ZERO);
        s.broker.edit_dead_letter(&s.group(0), place, ids[0], copy()).await.unwrap();
        let again = s.broker.edit_dead_letter(&s.group(0), place, ids[0], copy()).await;
        assert!(matches!(again, Err(BrokerError::NotAvailable(_))), "{again:?}");
        let now = s.broker.stats();
        assert_eq!((now.dead_letters, now.dead_letter_reasons), (died.dead_letters, died.dead_letter_reasons));
        assert_eq!(s.counters(0).await.available_dead_letters, Some(2));

        let s = reopen.crash(s).await;
        let batch = s.take(10).await;
        assert_eq!((texts(&batch), batch[0].id(&s.group(0), Stream::Messages)), (vec!["mended".to_owned()], ids[0]));
        assert_eq!(texts(&s.lease(1, Stream::Messages, take(10)).await.unwrap()), [""; 0], "the other group is done");
        let kept = s.take_dead(10).await;
        assert_eq!(texts(&kept), ["b", "a"]);
        assert_eq!(kept[1].id(&s.group(0), Stream::DeadLetters), ids[0]);
        let info = kept[1].dead_letter.as_deref().unwrap();
        assert_eq!((info.reason.as_str(), info.error.as_deref(), info.attempts), ("edited", Some("failed"), 1));
        s.broker.close().await;
    })
    .await;
}

/// A dead letter has no labels, but its group wants it all the same.
#[tokio::test(start_paused = true)]
async fn a_label_rule_does_not_keep_a_retried_dead_letter_out() {
    use dms_protocol::queue::TagMode;
    on_each_store(queue(), async |s| {
        s.send_all(vec![message("red", &["red"], Duration::ZERO)]).await;
        let red = || take_by(&["red"], TagMode::Or);
        let batch = s.lease(0, Stream::Messages, red()).await.unwrap();
        let id = batch[0].id(&s.group(0), Stream::Messages);
        s.settle(acks(&batch, &[false])).await.unwrap();
        s.broker.retry_dead_letter(&s.group(0), place_of_dead(&s, id).await, id).await.unwrap();
        assert_eq!(texts(&s.lease(0, Stream::Messages, red()).await.unwrap()), ["red"]);
    })
    .await;
}

/// One from the middle, before and after the others were consumed; nothing else is touched, also after a crash.
#[tokio::test(start_paused = true)]
async fn a_discarded_message_is_settled_and_no_other() {
    on_each_durable_store(queue(), async |s, reopen| {
        s.send(&["a", "b", "c", "d", "e"]).await;
        let first = s.take(1).await;
        s.broker.discard_message(&s.group(0), Stream::Messages, first[0].sequence + 2).await.unwrap();
        let leased = s.broker.discard_message(&s.group(0), Stream::Messages, first[0].sequence).await;
        assert!(matches!(leased, Err(BrokerError::NotAvailable(_))), "{leased:?}");
        let s = reopen.crash(s).await;
        let batch = s.take(10).await;
        assert_eq!(texts(&batch), ["a", "b", "d", "e"]);
        assert_eq!(texts(&s.lease(1, Stream::Messages, take(10)).await.unwrap()), ["a", "b", "c", "d", "e"]);
        s.settle(say(&batch, [AckStatus::Success, AckStatus::Success, AckStatus::Release])).await.unwrap();
        s.broker.discard_message(&s.group(0), Stream::Messages, batch[3].sequence).await.unwrap();
        let s = reopen.crash(s).await;
        assert_eq!(texts(&s.take(10).await), ["d"]);
        s.broker.close().await;
    })
    .await;
}
