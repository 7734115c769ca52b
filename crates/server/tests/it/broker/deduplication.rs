//! Deduplication keys: a message is stored once within its window, through crashes and concurrent sends.

use std::time::Duration;

use dms_protocol::queue::{NewQueue, QueueId};
use dms_server::broker::{Broker, BrokerError, Deduplication, MessageOrigin, NewMessage, Stream};
use tokio::time::advance;

use super::stage::{Reopen, Stage, all_done, message, on_each_durable_store, on_each_store, texts};

const WINDOW: Duration = Duration::from_secs(300);

/// A message with a key that differs from its text.
fn keyed(text: &str, key: &str, window: Duration) -> NewMessage {
    let deduplication = Some(Box::new(Deduplication::new(key, window)));
    NewMessage { deduplication, ..message(text, &[], Duration::ZERO) }
}

/// Sends messages: their ids, and which of them are duplicates.
async fn send(s: &Stage, messages: Vec<NewMessage>) -> (Vec<MessageOrigin>, Vec<usize>) {
    try_send(s, &s.queue, messages).await.unwrap()
}

async fn try_send(
    s: &Stage,
    queue: &QueueId,
    messages: Vec<NewMessage>,
) -> Result<(Vec<MessageOrigin>, Vec<usize>), BrokerError> {
    let asked: Vec<_> = messages.iter().map(|message| (message.delay, message.origin)).collect();
    let appended = s.broker.append(&s.project, queue, messages).await?;
    let duplicates = appended.duplicates().collect();
    Ok((appended.ids(queue, asked.into_iter()).collect(), duplicates))
}

async fn send_one(s: &Stage, text: &str, key: &str) -> (MessageOrigin, bool) {
    let (ids, duplicates) = send(s, vec![keyed(text, key, WINDOW)]).await;
    (ids[0], !duplicates.is_empty())
}

#[tokio::test(start_paused = true)]
async fn a_message_is_stored_once_within_its_window() {
    on_each_store(NewQueue::new("q"), async |s| {
        let (first, duplicate) = send_one(&s, "first", "k").await;
        assert!(!duplicate);
        assert_eq!(send_one(&s, "again", "k").await, (first, true));
        assert_ne!(send_one(&s, "other", "l").await.0, first);
        s.send(&["plain", "plain"]).await;
        let batch = s.take(10).await;
        assert_eq!(texts(&batch), ["first", "other", "plain", "plain"]);
        assert_eq!(batch[0].id(&s.group(0), Stream::Messages), first);
        // What became of the message does not matter, and later windows do not count.
        s.settle(all_done(&batch)).await.unwrap();
        advance(WINDOW - Duration::from_millis(1)).await;
        assert_eq!(send_one(&s, "late", "k").await, (first, true));
        advance(Duration::from_millis(1)).await;
        let (next, duplicate) = send_one(&s, "next", "k").await;
        assert!(next != first && !duplicate);
        assert_eq!(send_one(&s, "again", "k").await, (next, true));
        assert_eq!(texts(&s.take(10).await), ["next"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_belongs_to_its_queue() {
    on_each_store(NewQueue::new("q"), async |s| {
        let (first, _) = send_one(&s, "here", "k").await;
        let other = s.broker.create_queue(&s.project, NewQueue::new("other")).await.unwrap().id;
        let (ids, duplicates) = try_send(&s, &other, vec![keyed("there", "k", WINDOW)]).await.unwrap();
        assert!(ids[0] != first && duplicates.is_empty());
        // The keys of a deleted queue go with it.
        s.broker.delete_queue(&s.project, &other).await.unwrap();
        let again = s.broker.create_queue(&s.project, NewQueue::new("other")).await.unwrap().id;
        let (_, duplicates) = try_send(&s, &again, vec![keyed("there", "k", WINDOW)]).await.unwrap();
        assert!(duplicates.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn equal_keys_of_one_send_are_one_message() {
    on_each_store(NewQueue::new("q"), async |s| {
        let delayed = NewMessage { delay: Duration::from_secs(5), ..keyed("delayed", "later", WINDOW) };
        let messages = vec![
            message("plain", &[], Duration::ZERO),
            keyed("first", "k", WINDOW),
            delayed,
            keyed("second", "k", WINDOW),
            keyed("now", "later", WINDOW),
            message("last", &[], Duration::ZERO),
        ];
        let (ids, duplicates) = send(&s, messages).await;
        assert_eq!(duplicates, [3, 4]);
        assert_eq!((ids[3], ids[4]), (ids[1], ids[2]));
        let batch = s.take(10).await;
        assert_eq!(texts(&batch), ["plain", "first", "last"]);
        let taken: Vec<_> = batch.iter().map(|message| message.id(&s.group(0), Stream::Messages)).collect();
        assert_eq!(taken, [ids[0], ids[1], ids[5]]);
    })
    .await;
}

/// The answers of sends that were stored are lost in a crash, or in a take-over by another server: they are repeated.
#[tokio::test(start_paused = true)]
async fn keys_survive_a_crash_and_a_restart() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        let (first, _) = send_one(&s, "first", "k").await;
        let short = vec![keyed("short", "short", Duration::from_secs(1))];
        send(&s, short).await;
        let s = reopen.crash(s).await;
        assert_eq!(send_one(&s, "again", "k").await, (first, true));
        let (second, _) = send_one(&s, "second", "l").await;
        let s = reopen.restart(s).await;
        assert_eq!(send_one(&s, "again", "k").await, (first, true));
        assert_eq!(send_one(&s, "again", "l").await, (second, true));
        let s = reopen.crash(s).await;
        assert_eq!(send_one(&s, "again", "l").await, (second, true));
        advance(WINDOW).await;
        let s = reopen.restart(s).await;
        assert!(!send_one(&s, "third", "k").await.1);
        assert_eq!(texts(&s.take(10).await), ["first", "short", "second", "third"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_concurrent_sends_with_one_key_one_is_stored() {
    on_each_store(NewQueue::new("q"), async |s| {
        let sends = (0..60).map(|number| {
            let (s, key) = (&s, ["a", "b", "c"][number % 3]);
            async move { (key, send_one(s, key, key).await) }
        });
        let sent = futures_util::future::join_all(sends).await;
        assert_eq!(sent.iter().filter(|(_, (_, duplicate))| !duplicate).count(), 3);
        for key in ["a", "b", "c"] {
            let mut ids: Vec<_> = sent.iter().filter(|(of, _)| *of == key).map(|(_, (id, _))| id.to_string()).collect();
            ids.dedup();
            assert_eq!(ids.len(), 1, "{key}");
        }
        let mut stored = texts(&s.take(10).await);
        stored.sort();
        assert_eq!(stored, ["a", "b", "c"]);
    })
    .await;
}
