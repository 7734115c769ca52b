//! [`Owner`]: the task that owns the waiting messages, forms batches and bounds the batches in flight.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::Instrument;

use super::{
    Stats,
    batcher::{Batcher, Ready},
    delivery::{Delivery, PendingEntry, Tally},
    error::SendError,
};
use crate::spans::messaging_span;

/// The most commands to receive at once.
const BURST: usize = 256;

/// A request of a handle.
#[derive(Debug)]
pub(super) enum Command {
    /// Sends a message.
    Send(PendingEntry),
    /// Resolves when all messages that were accepted before are settled.
    Flush(oneshot::Sender<()>),
    /// Accepts no more messages, settles the accepted ones until the deadline, and returns the number of messages that
    /// were never sent.
    Close(Instant, oneshot::Sender<u64>),
}

/// The state of a producer. It ends when all handles are dropped and all messages are settled.
#[derive(Debug)]
pub(super) struct Owner {
    delivery: Arc<Delivery>,
    batcher: Batcher<PendingEntry>,
    max_in_flight: usize,
    in_flight: JoinSet<Tally>,
    /// The numbers of the messages of each batch in flight, which follow each other.
    travelling: HashMap<task::Id, Range<u64>>,
    /// The flushes that wait for all messages before a number.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    next_sequence: u64,
    stats: Arc<Stats>,
}

impl Owner {
    pub(super) fn new(delivery: Delivery, linger: Duration, max_in_flight: usize, stats: Arc<Stats>) -> Self {
        Self {
            delivery: Arc::new(delivery),
            batcher: Batcher::new(linger),
            max_in_flight,
            in_flight: JoinSet::new(),
            travelling: HashMap::new(),
            flushes: Vec::new(),
            next_sequence: 0,
            stats,
        }
    }

    /// Runs until the producer is closed, or all handles are dropped and all messages are settled.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut burst = Vec::with_capacity(BURST);
        let mut open = true;
        while open || self.has_unsettled() {
            let due = self.start_batches();
            // The task of a sender wakes this one, which would run right after it, for each message. After the other tasks that
            // can run, there are more messages to receive at once.
            task::yield_now().await;
            tokio::select! {
                count = commands.recv_many(&mut burst, BURST), if open => {
                    open = count > 0;
                    for command in burst.drain(..) {
                        match command {
                            Command::Send(entry) => self.accept(entry),
                            Command::Flush(reply) => self.flush(reply),
                            Command::Close(deadline, reply) => return self.close(commands, deadline, reply).await,
                        }
                    }
                    if !open {
                        self.batcher.hurry();
                    }
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {},
                Some(done) = self.in_flight.join_next_with_id() => self.finished(done),
            }
        }
    }

    /// Whether a message waits or is in flight.
    fn has_unsettled(&self) -> bool {
        self.oldest().is_some()
    }

    /// The number of the first message that waits or is in flight.
    fn oldest(&self) -> Option<u64> {
        let in_flight = self.travelling.values().map(|numbers| numbers.start);
        in_flight.chain(self.batcher.first().map(|entry| entry.sequence)).min()
    }

    fn accept(&mut self, mut entry: PendingEntry) {
        entry.sequence = self.next_sequence;
        self.next_sequence += 1;
        let (bytes, since) = (entry.room.bytes(), entry.since);
        self.batcher.push(entry, bytes, since);
    }

    fn flush(&mut self, reply: oneshot::Sender<()>) {
        self.batcher.hurry();
        self.flushes.push((self.next_sequence, reply));
        self.answer_flushes();
    }

    /// Sends ready batches while fewer than the maximum are in flight. Returns when the next batch is ready, if it
    /// could be sent then.
    fn start_batches(&mut self) -> Option<Instant> {
        while self.in_flight.len() < self.max_in_flight {
            match self.batcher.ready(Instant::now()) {
                Ready::Empty => return None,
                Ready::At(due) => return Some(due),
                Ready::Now => self.start(),
            }
        }
        None
    }

    fn start(&mut self) {
        let batch = self.batcher.take();
        let first = batch.first().map_or(self.next_sequence, |entry| entry.sequence);
        let numbers = first..first + batch.len() as u64;
        let delivery = Arc::clone(&self.delivery);
        let span = span(&delivery.name, batch.len());
        self.stats.batches(1);
        let task = self.in_flight.spawn(async move { delivery.run(batch).await }.instrument(span));
        self.travelling.insert(task.id(), numbers);
    }

    fn finished(&mut self, done: Result<(task::Id, Tally), JoinError>) {
        // A task that panicked lost its messages, which may have been sent.
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let numbers = self.travelling.remove(&id).unwrap_or_default();
        let lost = || Tally { unsure: numbers.end - numbers.start, ..Tally::default() };
        let tally = done.map_or_else(|_| lost(), |(_, tally)| tally);
        self.stats.settled(tally);
        self.answer_flushes();
    }

    fn answer_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let first = self.oldest().unwrap_or(u64::MAX);
        for (_, reply) in self.flushes.extract_if(.., |(before, _)| *before <= first) {
            // The caller may have stopped waiting.
            let _ = reply.send(());
        }
    }

    /// Receives the messages that were accepted already, settles all it can until `deadline`, and gives up the rest.
    async fn close(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        deadline: Instant,
        reply: oneshot::Sender<u64>,
    ) {
        commands.close();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Send(entry) => self.accept(entry),
                Command::Flush(reply) => self.flush(reply),
                // The first close decides. Dropping this one's channel tells its caller that the producer is closed.
                Command::Close(..) => {}
            }
        }
        self.batcher.hurry();
        let unsent = self.drain(deadline).await;
        let _ = reply.send(unsent);
    }

    async fn drain(&mut self, deadline: Instant) -> u64 {
        let mut unsent = 0;
        while self.has_unsettled() {
            self.start_batches();
            tokio::select! {
                Some(done) = self.in_flight.join_next_with_id() => self.finished(done),
                () = sleep_until(deadline), if !self.delivery.abandon.is_cancelled() => {
                    unsent = self.give_up();
                },
            }
        }
        unsent
    }

    /// Fails the messages that were never sent, and has the batches in flight settle theirs as unsure.
    fn give_up(&mut self) -> u64 {
        self.delivery.abandon.cancel();
        let waiting = self.batcher.clear();
        let mut unsent = 0;
        for entry in waiting {
            unsent += 1;
            entry.settle(Err(SendError::Closed));
        }
        self.stats.settled(Tally { failed: unsent, ..Tally::default() });
        self.answer_flushes();
        unsent
    }
}

/// The span of a batch.
fn span(queue: &str, messages: usize) -> tracing::Span {
    messaging_span!("send", kind: "producer", operation: "send", queue: queue, messaging.batch.message_count = messages,)
}
