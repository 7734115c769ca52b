//! Which messages may still come back in the company of one that fails: pure.
//!
//! A failing acknowledgement makes its failure available again, and all behind it. Until the worker has seen them past, it fetches
//! one message at a time. Where the service tells places and attempts (this project's server does), each suspect is known by its place:
//!
//! * another replica may hold it, and fail it together with others again: it stays a suspect until it is seen, or for a while;
//! * on a FIFO queue a message from behind it says that it is past;
//! * a neighbour that comes back without another attempt on it says that the service counts nobody for another's failure: then
//!   it is enough to have fetched as many messages as failed, whichever they are.
//!
//! Where it does not, that is all there is to go by.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::message::ReceivedMessage;

/// What the service told of a message when it handed it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Its place in the queue.
    pub(crate) sequence: Option<u64>,
    /// Which attempt it was.
    pub(crate) attempt: Option<u32>,
}

impl Trace {
    pub(crate) fn of(message: &ReceivedMessage) -> Self {
        Self { sequence: message.sequence, attempt: message.attempt }
    }
}

/// The suspects of one worker.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// Those whose place is known.
    named: HashMap<u64, Suspect>,
    /// How many others there are.
    unnamed: usize,
    /// Nothing newer comes before a message that failed.
    fifo: bool,
    /// The service counts nobody for another's failure.
    spared: bool,
    /// When the last of them has surely come back to somebody.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// The attempt on which it stood behind a failure; `None` for the failure itself.
    innocent_at: Option<u32>,
}

impl Suspects {
    /// For a FIFO queue, or another.
    pub(crate) fn new(fifo: bool) -> Self {
        Self { fifo, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed == 0
    }

    /// A failure is reported, and those behind it fail with it; a replica that takes them has let go of them by `until`.
    pub(crate) fn add(&mut self, failed: &[Trace], until: Instant) {
        self.until = self.until.max(Some(until));
        for (position, trace) in failed.iter().enumerate() {
            match trace.sequence {
                Some(sequence) => {
                    let innocent_at = trace.attempt.filter(|_| position > 0);
                    self.named.insert(sequence, Suspect { innocent_at });
                }
                None => self.unnamed += 1,
            }
        }
    }

    /// A poll was answered with these messages.
    pub(crate) fn fetched(&mut self, messages: &[Trace], now: Instant) {
        if messages.is_empty() && self.nobody_has_them(now) {
            self.clear();
        }
        // Nearly always there are none, and nothing to look up.
        let messages = if self.is_empty() { &[] } else { messages };
        for message in messages {
            match message.sequence {
                Some(sequence) => self.seen(sequence, message.attempt),
                None => self.unnamed = self.unnamed.saturating_sub(1),
            }
        }
        if !self.fifo && self.until.is_some_and(|until| until <= now) {
            self.clear();
        }
    }

    /// Whether an empty answer means that they are gone. On a FIFO queue it does not: another's batch blocks it.
    fn nobody_has_them(&self, now: Instant) -> bool {
        !self.fifo && (self.spared || self.until.is_none_or(|until| until <= now))
    }

    fn seen(&mut self, sequence: u64, attempt: Option<u32>) {
        match self.named.remove(&sequence) {
            Some(Suspect { innocent_at: Some(before) }) => self.spared = attempt == Some(before),
            Some(Suspect { innocent_at: None }) => {}
            None if self.spared => {
                let any = self.named.keys().next().copied();
                any.map(|any| self.named.remove(&any));
            }
            None => {}
        }
        if self.fifo {
            self.named.retain(|suspect, _| *suspect > sequence);
        }
    }

    fn clear(&mut self) {
        self.named.clear();
        self.unnamed = 0;
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn traces(messages: &[(u64, u32)]) -> Vec<Trace> {
        messages.iter().map(|&(place, attempt)| Trace { sequence: Some(place), attempt: Some(attempt) }).collect()
    }

    /// Suspects after a batch whose first of three messages failed.
    fn three(fifo: bool) -> (Suspects, Instant) {
        let now = Instant::now();
        let mut suspects = Suspects::new(fifo);
        suspects.add(&traces(&[(4, 1), (5, 1), (6, 1)]), now + MINUTE);
        (suspects, now)
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_another_replica_has_stay_suspects() {
        let (mut suspects, now) = three(false);
        suspects.fetched(&traces(&[(4, 2)]), now);
        suspects.fetched(&[], now);
        suspects.fetched(&traces(&[(7, 1)]), now);
        suspects.fetched(&traces(&[(8, 1)]), now);
        assert!(!suspects.is_empty(), "5 and 6 were not seen");
        suspects.fetched(&traces(&[(5, 2)]), now);
        suspects.fetched(&traces(&[(6, 2)]), now);
        assert!(suspects.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_not_waited_for_longer_than_anybody_can_have_them() {
        let (mut suspects, now) = three(false);
        suspects.fetched(&[], now + MINUTE);
        assert!(suspects.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifo_queue_shows_that_they_are_past() {
        let (mut suspects, now) = three(true);
        suspects.fetched(&[], now + MINUTE * 9);
        suspects.fetched(&traces(&[(5, 2)]), now);
        assert!(!suspects.is_empty(), "6 is behind it");
        suspects.fetched(&traces(&[(7, 1)]), now);
        assert!(suspects.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn where_neighbours_are_spared_any_messages_will_do() {
        let (mut suspects, now) = three(false);
        suspects.fetched(&traces(&[(5, 1)]), now);
        suspects.fetched(&traces(&[(8, 1)]), now);
        suspects.fetched(&traces(&[(9, 1)]), now);
        assert!(suspects.is_empty(), "three came after three had failed");
    }

    #[tokio::test(start_paused = true)]
    async fn without_places_as_many_come_as_failed() {
        let now = Instant::now();
        let unknown = Trace { sequence: None, attempt: None };
        for fifo in [false, true] {
            let mut suspects = Suspects::new(fifo);
            suspects.add(&[unknown; 2], now + MINUTE);
            suspects.fetched(&[], now);
            suspects.fetched(&[unknown], now);
            assert!(!suspects.is_empty());
            suspects.fetched(&[unknown], now);
            assert!(suspects.is_empty());
        }
    }
}
