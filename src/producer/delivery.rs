//! [`Delivery`]: sends one batch, reads the result of each message, and retries the failed messages that are safe to
//! repeat.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    error::{SendError, SendResult},
    metrics::{Counters, RequestEnd},
};
use crate::{
    client::{Client, Error, SendOptions, are_deduplicated},
    later::after,
    message::Message,
    queue::QueueId,
    retry::RetryPolicy,
    spans,
    text::brief,
};

/// A message, and the receipt that waits for its result.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    /// Its number among all messages of the producer.
    pub(super) sequence: u64,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<SendResult>,
    pub(super) room: Room,
}

/// An entry on its way from the sender to its result. Boxed, because it is large and moves from list to list.
pub(super) type PendingEntry = Box<Entry>;

/// A message's share of the bounds, returned when the message is settled.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    counters: Arc<Counters>,
    permits: Option<Permits>,
}

/// Shares of the bounds: of the messages, and of their bytes. Dropped, they are returned.
type Permits = [OwnedSemaphorePermit; 2];

impl Room {
    /// The share of a message whose exact size in a request is `bytes`.
    pub(super) fn new(bytes: usize, permits: Permits, counters: Arc<Counters>) -> Self {
        counters.accepted(bytes);
        Self { bytes, counters, permits: Some(permits) }
    }

    /// The exact size of the message in a request.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counters.released(self.bytes);
    }
}

impl Entry {
    /// Counts the result and sends it to the receipt.
    pub(super) fn settle(self: Box<Self>, result: SendResult) {
        let Self { since, reply, room, .. } = *self;
        room.counters.settled(&result, room.bytes, since.elapsed());
        // Returned before the sender continues, which may ask for room at once.
        drop(room);
        // The receipt may have been dropped.
        let _ = reply.send(result);
    }
}

/// Returns the shares of several messages at once, because each return takes a lock that all senders share.
fn return_room(entries: &mut [(PendingEntry, SendResult)]) {
    let mut all: Option<Permits> = None;
    for [messages, bytes] in entries.iter_mut().filter_map(|(entry, _)| entry.room.permits.take()) {
        match &mut all {
            None => all = Some([messages, bytes]),
            Some([all_messages, all_bytes]) => {
                all_messages.merge(messages);
                all_bytes.merge(bytes);
            }
        }
    }
}

/// The parts that sending a batch needs.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) client: Client,
    pub(super) queue: QueueId,
    /// The queue's name for spans, or its id if the name is not known.
    pub(super) name: String,
    pub(super) options: SendOptions,
    pub(super) retry: RetryPolicy,
    /// How long a message is tried, from its acceptance.
    pub(super) delivery_timeout: Duration,
    /// Gives up the batches in flight.
    pub(super) abandon: CancellationToken,
    pub(super) counters: Arc<Counters>,
}

/// The results of a batch, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Duplicates included.
    pub(super) sent: u64,
    pub(super) duplicates: u64,
    pub(super) failed: u64,
    /// Messages that may have been stored or not, because no answer arrived.
    pub(super) unsure: u64,
}

impl Tally {
    fn settle(&mut self, mut entries: Vec<(PendingEntry, SendResult)>) {
        return_room(&mut entries);
        for (entry, result) in entries {
            match &result {
                Ok(sent) => {
                    self.sent += 1;
                    self.duplicates += u64::from(sent.duplicate);
                }
                Err(error) if error.is_unsure() => self.unsure += 1,
                Err(_) => self.failed += 1,
            }
            entry.settle(result);
        }
    }

    fn settle_all(&mut self, batch: Vec<PendingEntry>, error: &SendError) {
        self.settle(batch.into_iter().map(|entry| (entry, Err(error.clone()))).collect());
    }
}

impl Delivery {
    /// Sends a batch until every message of it is settled.
    ///
    /// If the service refuses a batch, one message may be the reason, by a rule that only the service knows. Each
    /// message is then sent alone, so that the others are not refused with it.
    pub(super) async fn run(&self, mut batch: Vec<PendingEntry>) -> Tally {
        self.counters.started(batch.len());
        let mut tally = Tally::default();
        let Err(error) = self.attempt(&mut batch, &mut tally).await else { return tally };
        if batch.len() == 1 || !error.is_about_messages() {
            tally.settle_all(batch, &error);
            return tally;
        }
        tracing::debug!(%error, messages = batch.len(), "the messages are sent one by one");
        for entry in batch {
            let mut alone = vec![entry];
            if let Err(error) = self.attempt(&mut alone, &mut tally).await {
                tally.settle_all(alone, &error);
            }
        }
        tally
    }

    /// Sends messages until each is settled, or the rest of `batch` has failed with the returned error.
    async fn attempt(&self, batch: &mut Vec<PendingEntry>, tally: &mut Tally) -> Result<(), SendError> {
        let mut schedule = self.retry.clone().max_attempts(None).schedule();
        let give_up = batch.iter().map(|entry| entry.since).min().unwrap_or_else(Instant::now) + self.delivery_timeout;
        loop {
            let Err(error) = self.send(batch, tally).await else { return Ok(()) };
            let pause = match &error {
                SendError::Call(error) if self.may_repeat(error, self.are_deduplicated(batch)) => {
                    // While the key is refused, only messages with enough time left wait for it.
                    let pause = error.retry_after().filter(|_| error.is_auth()).unwrap_or_default();
                    schedule.next_delay().map(|delay| delay.max(pause))
                }
                _ => None,
            };
            let Some(pause) = pause.filter(|pause| after(Instant::now(), *pause) < give_up) else {
                spans::failed(&tracing::Span::current(), error.kind());
                return Err(error);
            };
            tracing::debug!(%error, pause = %brief(pause), messages = batch.len(), "the messages are sent again");
            tokio::select! {
                () = tokio::time::sleep(pause) => self.counters.retried(),
                () = self.abandon.cancelled() => return Err(error),
            }
        }
    }

    /// Sends one request. Settled messages leave `batch`; the others failed with the returned error.
    async fn send(&self, batch: &mut Vec<PendingEntry>, tally: &mut Tally) -> Result<(), SendError> {
        let messages: Vec<Message> = batch.iter().map(|entry| entry.message.clone()).collect();
        let answer = tokio::select! {
            outcomes = self.client.send_with(&self.queue, &messages, self.options) => outcomes.map_err(SendError::from),
            () = self.abandon.cancelled() => Err(SendError::Abandoned),
        };
        self.counters.requested(match &answer {
            Ok(_) => RequestEnd::Answered,
            Err(error) if error.is_unsure() => RequestEnd::Unsure,
            Err(_) => RequestEnd::Failed,
        });
        let outcomes = answer?;
        let deduplicated = self.are_deduplicated(batch);
        let mut last = None;
        let mut settled = Vec::with_capacity(batch.len());
        for (entry, outcome) in std::mem::take(batch).into_iter().zip(outcomes) {
            match outcome {
                Err(error) if self.may_repeat(&error, deduplicated) => {
                    last = Some(error);
                    batch.push(entry);
                }
                outcome => settled.push((entry, outcome.map_err(SendError::from))),
            }
        }
        tally.settle(settled);
        last.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Whether the service stores each message once, however often it is sent within the delivery timeout.
    fn are_deduplicated(&self, batch: &[PendingEntry]) -> bool {
        are_deduplicated(batch.iter().map(|entry| &entry.message), self.delivery_timeout)
    }

    fn may_repeat(&self, error: &Error, deduplicated: bool) -> bool {
        error.is_retryable() && (self.options.allow_duplicates || deduplicated || !error.is_unsure())
    }
}
