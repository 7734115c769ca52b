//! Many producers and consumers at once, on several threads and a real clock: every message is settled exactly once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dms_protocol::queue::{NewQueue, QueueMode};
use dms_server::broker::{Broker, Stream};

use super::stage::{Stage, acks, message, on_each_store, texts, wait};

const PRODUCERS: usize = 8;
const CONSUMERS: usize = 8;
const SENDS: usize = 25;
const TOTAL: usize = PRODUCERS * SENDS * 10;

/// How often each message was settled, and in which order.
#[derive(Default)]
struct Ledger {
    settled: Mutex<BTreeMap<String, usize>>,
    count: AtomicUsize,
}

async fn produce(s: Arc<Stage>, producer: usize) {
    for send in 0..SENDS {
        let text = |place| format!("{producer}-{}", send * 10 + place);
        s.send_all((0..10).map(|place| message(&text(place), &[], Duration::ZERO)).collect()).await;
    }
}

/// Consumes until everything is settled; every seventh batch fails somewhere.
async fn consume(s: Arc<Stage>, group: usize, consumer: usize, ledger: Arc<Ledger>) {
    for round in consumer.. {
        if ledger.count.load(Ordering::SeqCst) == TOTAL {
            return;
        }
        let batch = s.lease(group, Stream::Messages, wait(10, 1)).await.unwrap();
        if batch.is_empty() {
            continue;
        }
        let done = if round % 7 == 0 { round % batch.len() } else { batch.len() };
        let said: Vec<bool> = (0..batch.len()).map(|place| place < done).collect();
        let settled = s.broker.ack(&s.group(group), Stream::Messages, acks(&batch, &said)).await.unwrap();
        assert_eq!((settled.success, settled.fail), (done, batch.len() - done));
        let mut book = ledger.settled.lock().unwrap();
        for text in texts(&batch).into_iter().take(done) {
            *book.entry(text).or_default() += 1;
        }
        drop(book);
        ledger.count.fetch_add(done, Ordering::SeqCst);
    }
}

async fn run(s: Stage) {
    let s = Arc::new(s);
    let ledgers = [Arc::new(Ledger::default()), Arc::new(Ledger::default())];
    let mut tasks = tokio::task::JoinSet::new();
    (0..PRODUCERS).for_each(|producer| drop(tasks.spawn(produce(s.clone(), producer))));
    for (group, ledger) in ledgers.iter().enumerate() {
        (0..CONSUMERS).for_each(|consumer| drop(tasks.spawn(consume(s.clone(), group, consumer, ledger.clone()))));
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    for (group, ledger) in ledgers.iter().enumerate() {
        let settled = {
            let book = ledger.settled.lock().unwrap();
            (book.len(), book.values().max().copied())
        };
        assert_eq!(settled, (TOTAL, Some(1)));
        let counters = s.counters(group).await;
        assert_eq!((counters.consumed_messages, counters.available_messages), (TOTAL as u64, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_settled_exactly_once() {
    for mode in [QueueMode::Normal, QueueMode::Fifo] {
        let played = on_each_store(NewQueue::new("q").mode(mode), run);
        tokio::time::timeout(Duration::from_secs(120), played).await.unwrap();
    }
}
