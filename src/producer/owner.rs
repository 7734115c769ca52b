//! The task that owns the waiting messages: it gathers them into batches and keeps so many on their way.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::Instrument;

use super::{
    Stats,
    batcher::{Batcher, Ready},
    delivery::{Delivery, Entry, Tally},
    error::SendError,
};
use crate::spans::messaging_span;

/// How many commands are taken at once.
const BURST: usize = 256;

/// What the handles ask for.
#[derive(Debug)]
pub(super) enum Command {
    /// Send this message.
    Send(Box<Entry>),
    /// Answer when all that was accepted before is settled.
    Flush(oneshot::Sender<()>),
    /// Accept nothing more, settle what there is by then, and answer with what was never sent.
    Close(Instant, oneshot::Sender<u64>),
}

/// The state of a producer. Dropping the handles lets it finish its work and end.
#[derive(Debug)]
pub(super) struct Owner {
    delivery: Arc<Delivery>,
    batcher: Batcher<Entry>,
    max_in_flight: usize,
    in_flight: JoinSet<Tally>,
    /// The sequences of the messages of each task on its way.
    travelling: HashMap<task::Id, Vec<u64>>,
    /// The messages that are not settled, by sequence.
    unsettled: BTreeSet<u64>,
    /// Who waits for all messages before a sequence.
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
            unsettled: BTreeSet::new(),
            flushes: Vec::new(),
            next_sequence: 0,
            stats,
        }
    }

    /// Works until it is closed, or all handles are gone and everything is settled.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut burst = Vec::with_capacity(BURST);
        let mut open = true;
        while open || !self.unsettled.is_empty() {
            let due = self.start_batches();
            tokio::select! {
                count = commands.recv_many(&mut burst, BURST), if open => {
                    open = count > 0;
                    for command in burst.drain(..) {
                        match command {
                            Command::Send(entry) => self.accept(*entry),
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

    fn accept(&mut self, mut entry: Entry) {
        entry.sequence = self.next_sequence;
        self.next_sequence += 1;
        self.unsettled.insert(entry.sequence);
        let (bytes, since) = (entry.room.bytes(), entry.since);
        self.batcher.push(entry, bytes, since);
    }

    fn flush(&mut self, reply: oneshot::Sender<()>) {
        self.batcher.hurry();
        self.flushes.push((self.next_sequence, reply));
        self.answer_flushes();
    }

    /// Sends what is ready while there is a free place. Gives when more will be, if a place is free for it.
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
        let sequences: Vec<u64> = batch.iter().map(|entry| entry.sequence).collect();
        let delivery = Arc::clone(&self.delivery);
        let span = span(&delivery.name, batch.len());
        self.stats.batches(1);
        let task = self.in_flight.spawn(async move { delivery.run(batch).await }.instrument(span));
        self.travelling.insert(task.id(), sequences);
    }

    fn finished(&mut self, done: Result<(task::Id, Tally), JoinError>) {
        // A task that failed took its messages with it: nobody knows what became of them.
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let sequences = self.travelling.remove(&id).unwrap_or_default();
        let tally =
            done.map_or_else(|_| Tally { unsure: sequences.len() as u64, ..Tally::default() }, |(_, tally)| tally);
        for sequence in sequences {
            self.unsettled.remove(&sequence);
        }
        self.stats.settled(tally.sent, tally.failed, tally.unsure);
        self.answer_flushes();
    }

    fn answer_flushes(&mut self) {
        let first = self.unsettled.first().copied().unwrap_or(u64::MAX);
        for (_, reply) in self.flushes.extract_if(.., |(before, _)| *before <= first) {
            // Who asked may have stopped waiting.
            let _ = reply.send(());
        }
    }

    /// Takes what was accepted already, settles all it can until `deadline`, and gives up the rest.
    async fn close(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        deadline: Instant,
        reply: oneshot::Sender<u64>,
    ) {
        commands.close();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Send(entry) => self.accept(*entry),
                Command::Flush(reply) => self.flush(reply),
                // The first close decides; this one hears that the producer is gone.
                Command::Close(..) => {}
            }
        }
        self.batcher.hurry();
        let unsent = self.drain(deadline).await;
        let _ = reply.send(unsent);
    }

    async fn drain(&mut self, deadline: Instant) -> u64 {
        let mut unsent = 0;
        while !self.unsettled.is_empty() {
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

    /// Fails what was never sent, and lets the deliveries settle the rest as unsure.
    fn give_up(&mut self) -> u64 {
        self.delivery.abandon.cancel();
        let waiting = self.batcher.clear();
        let mut unsent = 0;
        for entry in waiting {
            self.unsettled.remove(&entry.sequence);
            unsent += 1;
            entry.settle(Err(SendError::Closed));
        }
        self.stats.settled(0, unsent, 0);
        self.answer_flushes();
        unsent
    }
}

/// The span of a batch.
fn span(queue: &str, messages: usize) -> tracing::Span {
    messaging_span!("send", kind: "producer", operation: "send", queue: queue, messaging.batch.message_count = messages,)
}
