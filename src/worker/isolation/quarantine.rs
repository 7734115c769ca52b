//! [`Quarantine`]: the messages that may be redelivered together with one that fails. Pure.
//!
//! A failing acknowledgement makes its failed message available again, and all messages after it. Until the worker has
//! seen them, it fetches one message at a time. If the service sends places and attempts, as this project's server
//! does, each message is known by its place:
//!
//! * Another replica may hold it, and fail it together with others again. So it stays in quarantine until it is seen,
//!   or for a while.
//! * On a FIFO queue, a later message shows that it was settled.
//! * A neighbour that is redelivered with the same attempt number shows that the service does not count failures of
//!   other messages. Then it suffices to fetch as many messages as failed, whichever they are.
//!
//! If the service does not send them, the number of messages is all there is to go by.
//!
//! If it is unknown whether the acknowledgement counted, its messages may still be leased to this worker. Until that
//! lease expires, other messages or an empty queue say nothing about them.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::message::ReceivedMessage;

/// How much longer quarantined messages of a FIFO queue are waited for: two of the longest leases. Their order usually
/// shows that they were settled. This limit is for messages that were settled elsewhere and have none after them.
const FIFO_EXTRA_TIME: Duration = Duration::from_secs(600);

/// The place and the attempt of a message, as the service sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageTrace {
    /// The place in the queue.
    pub(crate) sequence: Option<u64>,
    /// The number of the attempt.
    pub(crate) attempt: Option<u32>,
}

impl MessageTrace {
    pub(crate) fn of(message: &ReceivedMessage) -> Self {
        Self { sequence: message.sequence, attempt: message.attempt }
    }
}

/// When the leases of a quarantined message end. Until then it cannot be redelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseEnds {
    /// The end of the lease of this worker.
    pub(crate) own: Instant,
    /// The latest end of the leases of replicas that may have received it.
    pub(crate) others: Instant,
}

/// The quarantined messages of a worker.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    /// Messages whose place is known.
    named: HashMap<u64, Suspect>,
    /// Messages whose place is not known.
    unnamed: VecDeque<LeaseEnds>,
    /// Whether no newer message is delivered before one that failed.
    fifo: bool,
    /// Whether the service counts failures for the failed message only.
    spared: bool,
}

/// A quarantined message whose place is known.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// The attempt in which the message stood behind a failure; `None` for the failed message itself.
    innocent_at: Option<u32>,
    leases: LeaseEnds,
}

/// The messages that a worker fetches one at a time, because they may fail together with another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Isolated {
    /// The number of messages; zero while the worker fetches batches.
    pub messages: usize,
    /// The lowest place among them; `None` if the service sends no places.
    pub first: Option<u64>,
    /// The highest place among them.
    pub last: Option<u64>,
}

impl Quarantine {
    /// Its messages, as operators see them.
    pub(crate) fn isolated(&self) -> Isolated {
        let (first, last) = (self.named.keys().min(), self.named.keys().max());
        Isolated { messages: self.named.len() + self.unnamed.len(), first: first.copied(), last: last.copied() }
    }

    /// An empty quarantine, for a FIFO queue or another one.
    pub(crate) fn new(fifo: bool) -> Self {
        Self { fifo, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_empty()
    }

    /// Quarantines messages of a batch whose failure is reported, or may be. The first one is the failed one.
    pub(crate) fn add(&mut self, failed: &[MessageTrace], leases: LeaseEnds) {
        let others = if self.fifo { leases.others + FIFO_EXTRA_TIME } else { leases.others };
        let leases = LeaseEnds { others, ..leases };
        for (position, trace) in failed.iter().enumerate() {
            match trace.sequence {
                Some(sequence) => {
                    let innocent_at = trace.attempt.filter(|_| position > 0);
                    self.named.insert(sequence, Suspect { innocent_at, leases });
                }
                None => self.unnamed.push_back(leases),
            }
        }
    }

    /// Records the messages that a poll has received.
    pub(crate) fn fetched(&mut self, messages: &[MessageTrace], now: Instant) {
        // The quarantine is nearly always empty.
        if self.is_empty() {
            return;
        }
        if messages.is_empty() && !self.fifo && self.spared {
            // No replica holds them. On a FIFO queue an empty reply says nothing, because another batch may block the
            // queue.
            self.keep(|leases| now < leases.own);
        }
        for message in messages {
            match message.sequence {
                Some(sequence) => self.seen(sequence, message.attempt, now),
                None => self.seen_unnamed(now),
            }
        }
        self.keep(|leases| now < leases.others);
    }

    /// A message was received alone, so it needs no quarantine any more.
    fn seen(&mut self, sequence: u64, attempt: Option<u32>, now: Instant) {
        match self.named.remove(&sequence) {
            Some(Suspect { innocent_at: Some(before), .. }) => self.spared = attempt == Some(before),
            Some(Suspect { innocent_at: None, .. }) => {}
            // The service counts failures for the failed message alone, so it is enough to see as many messages as
            // failed.
            None if self.spared => {
                let free = self.named.iter().find(|(_, suspect)| suspect.leases.own <= now);
                let any = free.map(|(sequence, _)| *sequence);
                any.map(|any| self.named.remove(&any));
            }
            None => {}
        }
        if self.fifo {
            // On a FIFO queue nothing later is delivered while an earlier message is unsettled.
            self.named.retain(|suspect, _| *suspect > sequence);
        }
    }

    /// The same for a message without a place, which stands for any one whose lease here has ended.
    fn seen_unnamed(&mut self, now: Instant) {
        if let Some(free) = self.unnamed.iter().position(|leases| leases.own <= now) {
            self.unnamed.remove(free);
        }
    }

    fn keep(&mut self, is_kept: impl Fn(&LeaseEnds) -> bool) {
        self.named.retain(|_, suspect| is_kept(&suspect.leases));
        self.unnamed.retain(is_kept);
    }
}

#[cfg(test)]
mod tests;
