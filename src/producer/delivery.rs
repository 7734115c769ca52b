//! One batch on its way: send, read the result of each message, repeat what failed and may be repeated.

use std::time::Duration;

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::error::SendError;
use crate::{
    client::{Client, Error, SendOptions},
    message::{Message, MessageId},
    queue::QueueId,
    retry::RetryPolicy,
};

/// What becomes of one message.
pub(super) type SendResult = Result<Option<MessageId>, SendError>;

/// A message with those who wait for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    /// Its place among all messages of the producer.
    pub(super) sequence: u64,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<SendResult>,
    /// Its share of the bounds; given back when the message is settled.
    pub(super) _room: [OwnedSemaphorePermit; 2],
}

/// How batches are sent.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) client: Client,
    pub(super) queue: QueueId,
    pub(super) options: SendOptions,
    pub(super) retry: RetryPolicy,
    /// How long a message may be tried, counted from when it was accepted.
    pub(super) patience: Duration,
    /// Gives up what is on its way.
    pub(super) abandon: CancellationToken,
}

/// How many messages of a batch fared how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) unsure: u64,
}

impl Tally {
    /// Tells those who wait for a message what became of it, and counts it.
    fn settle(&mut self, entry: Entry, result: SendResult) {
        match &result {
            Ok(_) => self.sent += 1,
            Err(error) if error.is_unsure() => self.unsure += 1,
            Err(_) => self.failed += 1,
        }
        // Nobody may be waiting any more: then the count is all that is left.
        let _ = entry.reply.send(result);
    }

    fn settle_all(&mut self, batch: Vec<Entry>, error: &SendError) {
        for entry in batch {
            self.settle(entry, Err(error.clone()));
        }
    }
}

impl Delivery {
    /// Sends a batch until every message of it is settled.
    pub(super) async fn run(&self, mut batch: Vec<Entry>) -> Tally {
        let mut tally = Tally::default();
        let mut schedule = self.retry.clone().max_attempts(None).schedule();
        let give_up = batch.iter().map(|entry| entry.since).min().unwrap_or_else(Instant::now) + self.patience;
        loop {
            let error = match self.send(&mut batch, &mut tally).await {
                Ok(()) => return tally,
                Err(error) => error,
            };
            let pause = match &error {
                SendError::Call(error) if self.may_repeat(error) => schedule.next_delay(),
                _ => None,
            };
            let Some(pause) = pause.filter(|pause| Instant::now() + *pause < give_up) else {
                tally.settle_all(batch, &error);
                return tally;
            };
            tracing::debug!(%error, ?pause, messages = batch.len(), "the messages are sent again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {},
                () = self.abandon.cancelled() => {
                    tally.settle_all(batch, &error);
                    return tally;
                },
            }
        }
    }

    /// One request. What is settled by it leaves `batch`; what is left failed with the error that is given.
    async fn send(&self, batch: &mut Vec<Entry>, tally: &mut Tally) -> Result<(), SendError> {
        let messages: Vec<Message> = batch.iter().map(|entry| entry.message.clone()).collect();
        let outcomes = tokio::select! {
            outcomes = self.client.send_with(&self.queue, &messages, self.options) => outcomes?,
            () = self.abandon.cancelled() => return Err(SendError::Abandoned),
        };
        let mut last = None;
        for (entry, outcome) in std::mem::take(batch).into_iter().zip(outcomes) {
            match outcome {
                Err(error) if self.may_repeat(&error) => {
                    last = Some(error);
                    batch.push(entry);
                }
                outcome => tally.settle(entry, outcome.map_err(SendError::from)),
            }
        }
        last.map_or(Ok(()), |error| Err(error.into()))
    }

    fn may_repeat(&self, error: &Error) -> bool {
        error.is_retryable() && (self.options.allow_duplicates || !error.is_unsure())
    }
}
