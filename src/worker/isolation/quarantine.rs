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
//!
//! Where nobody knows whether the acknowledgement counted, its messages may be leased to this worker still: until that lease is over, what
//! else is fetched, or is not there, says nothing of them.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::message::ReceivedMessage;

/// How much longer suspects of a FIFO queue are waited for. Their order says when they are past, so this is for what never comes back (it
/// was settled elsewhere, and nothing is behind it): two of the longest leases.
const FIFO_PATIENCE: Duration = Duration::from_secs(600);

/// What the service told of a message when it handed it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageTrace {
    /// Its place in the queue.
    pub(crate) sequence: Option<u64>,
    /// Which attempt it was.
    pub(crate) attempt: Option<u32>,
}

impl MessageTrace {
    pub(crate) fn of(message: &ReceivedMessage) -> Self {
        Self { sequence: message.sequence, attempt: message.attempt }
    }
}

/// When messages under suspicion can come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absence {
    /// Until then they may be leased to this worker still.
    pub(crate) held_until: Instant,
    /// By then a replica that took them has let go of them.
    pub(crate) until: Instant,
}

/// The suspects of one worker.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    /// Those whose place is known.
    named: HashMap<u64, Suspect>,
    /// The others.
    unnamed: VecDeque<Absence>,
    /// Nothing newer comes before a message that failed.
    fifo: bool,
    /// The service counts nobody for another's failure.
    spared: bool,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// The attempt on which it stood behind a failure; `None` for the failure itself.
    innocent_at: Option<u32>,
    absence: Absence,
}

impl Quarantine {
    /// For a FIFO queue, or another.
    pub(crate) fn new(fifo: bool) -> Self {
        Self { fifo, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_empty()
    }

    /// A failure is reported, or may be, and those behind it fail with it.
    pub(crate) fn add(&mut self, failed: &[MessageTrace], absence: Absence) {
        let until = if self.fifo { absence.until + FIFO_PATIENCE } else { absence.until };
        let absence = Absence { until, ..absence };
        for (position, trace) in failed.iter().enumerate() {
            match trace.sequence {
                Some(sequence) => {
                    let innocent_at = trace.attempt.filter(|_| position > 0);
                    self.named.insert(sequence, Suspect { innocent_at, absence });
                }
                None => self.unnamed.push_back(absence),
            }
        }
    }

    /// A poll was answered with these messages.
    pub(crate) fn fetched(&mut self, messages: &[MessageTrace], now: Instant) {
        // Nearly always there are none, and nothing to look up.
        if self.is_empty() {
            return;
        }
        if messages.is_empty() && !self.fifo && self.spared {
            // Nobody else keeps them. On a FIFO queue that says nothing: another's batch blocks it.
            self.keep(|absence| now < absence.held_until);
        }
        for message in messages {
            match message.sequence {
                Some(sequence) => self.seen(sequence, message.attempt, now),
                None => self.seen_unnamed(now),
            }
        }
        self.keep(|absence| now < absence.until);
    }

    fn seen(&mut self, sequence: u64, attempt: Option<u32>, now: Instant) {
        match self.named.remove(&sequence) {
            Some(Suspect { innocent_at: Some(before), .. }) => self.spared = attempt == Some(before),
            Some(Suspect { innocent_at: None, .. }) => {}
            None if self.spared => {
                let free = self.named.iter().find(|(_, suspect)| suspect.absence.held_until <= now);
                let any = free.map(|(sequence, _)| *sequence);
                any.map(|any| self.named.remove(&any));
            }
            None => {}
        }
        if self.fifo {
            self.named.retain(|suspect, _| *suspect > sequence);
        }
    }

    fn seen_unnamed(&mut self, now: Instant) {
        if let Some(free) = self.unnamed.iter().position(|absence| absence.held_until <= now) {
            self.unnamed.remove(free);
        }
    }

    fn keep(&mut self, is_kept: impl Fn(&Absence) -> bool) {
        self.named.retain(|_, suspect| is_kept(&suspect.absence));
        self.unnamed.retain(is_kept);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn traces(messages: &[(u64, u32)]) -> Vec<MessageTrace> {
        messages
            .iter()
            .map(|&(place, attempt)| MessageTrace { sequence: Some(place), attempt: Some(attempt) })
            .collect()
    }

    /// They are available at once, and with another replica for a minute.
    fn free(now: Instant) -> Absence {
        Absence { held_until: now, until: now + MINUTE }
    }

    /// Suspects after a batch whose first of three messages failed.
    fn three(fifo: bool) -> (Quarantine, Instant) {
        let now = Instant::now();
        let mut suspects = Quarantine::new(fifo);
        suspects.add(&traces(&[(4, 1), (5, 1), (6, 1)]), free(now));
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
        let unknown = MessageTrace { sequence: None, attempt: None };
        for fifo in [false, true] {
            let mut suspects = Quarantine::new(fifo);
            suspects.add(&[unknown; 2], free(now));
            suspects.fetched(&[], now);
            suspects.fetched(&[unknown], now);
            assert!(!suspects.is_empty());
            suspects.fetched(&[unknown], now);
            assert!(suspects.is_empty());
        }
    }

    /// Settled elsewhere, with nothing behind them, or moved to other places by a restore: no message ever says that they are past.
    #[tokio::test(start_paused = true)]
    async fn suspects_of_a_fifo_queue_are_not_waited_for_for_ever() {
        let (mut suspects, now) = three(true);
        suspects.fetched(&traces(&[(1, 1)]), now + MINUTE + FIFO_PATIENCE - Duration::from_millis(1));
        assert!(!suspects.is_empty());
        suspects.fetched(&[], now + MINUTE + FIFO_PATIENCE);
        assert!(suspects.is_empty());
    }

    /// Failures that go on do not keep those for ever that were settled elsewhere.
    #[tokio::test(start_paused = true)]
    async fn each_suspect_has_a_time_of_its_own() {
        let (mut suspects, now) = three(false);
        suspects.add(&traces(&[(9, 1)]), free(now + MINUTE));
        suspects.fetched(&traces(&[(9, 2)]), now + MINUTE);
        assert!(suspects.is_empty(), "4, 5 and 6 were with nobody any more");
    }

    /// Nobody knows whether the acknowledgement counted: they may be leased to this worker still.
    #[tokio::test(start_paused = true)]
    async fn what_may_be_leased_still_is_not_past_before_the_lease_is() {
        let unknown = MessageTrace { sequence: None, attempt: None };
        for failed in [traces(&[(4, 1), (5, 1)]), vec![unknown; 2]] {
            let now = Instant::now();
            let mut suspects = Quarantine { spared: true, ..Quarantine::new(false) };
            suspects.add(&failed, Absence { held_until: now + MINUTE, until: now + MINUTE * 3 });
            suspects.fetched(&[], now);
            for _ in 0..3 {
                suspects.fetched(&traces(&[(8, 1)]), now);
                suspects.fetched(&[unknown], now);
            }
            assert!(!suspects.is_empty(), "others came, or nobody: {suspects:?}");
            suspects.fetched(&failed, now + MINUTE);
            assert!(suspects.is_empty(), "{suspects:?}");
        }
    }
}
