//! [`Ledger`]: which messages of a batch can be acknowledged, and when. Pure; one ledger for each consumed batch.
//!
//! The service accepts one acknowledgement for each batch, in the order of consumption, and fails all messages from the
//! first one that is not a success (API reference 5.3.3). So the acknowledgement is due when the batch is complete, at
//! the first failure once all messages before it are done, or when the lease is about to end, and never earlier.
//!
//! This project's server also settles rejected messages. And if the first message that is not settled did not fail, it
//! takes back the rest of the batch without counting a failure.

use crate::wire::extensions::Extensions;

/// The result of one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It can be acknowledged as a success.
    Done,
    /// It becomes a dead letter at once, and messages after it do not fail with it.
    Rejected,
    /// It has to be redelivered.
    Failed,
    /// Its handler was not called, or was stopped with the worker. It has to be redelivered without counting a failure.
    NotStarted,
}

impl Verdict {
    /// Whether the message is settled, so that the acknowledgement covers messages after it.
    pub(crate) fn settles(self) -> bool {
        matches!(self, Self::Done | Self::Rejected)
    }
}

/// The content of an acknowledgement: the first `done` messages are settled, and the `rest` is redelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    /// The length of the settled prefix.
    pub(crate) done: usize,
    /// The number of messages after it. The service stops at the first of them.
    pub(crate) rest: usize,
    /// The status reported for the first message of the rest. Meaningless if there is no rest.
    pub(crate) stop: Stop,
}

/// The status reported for the first message that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It failed.
    Fail,
    /// It is handed back without counting a failure.
    Release,
}

impl Settlement {
    /// Whether a failure is reported, so that the messages after it become available again together with it.
    pub(crate) fn fails(self) -> bool {
        self.rest > 0 && self.stop == Stop::Fail
    }

    /// The number of messages that are handed back without counting a failure.
    pub(crate) fn released(self) -> usize {
        if self.stop == Stop::Release { self.rest } else { 0 }
    }
}

/// The verdicts of one batch as they arrive, in any order.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    verdicts: Vec<Option<Verdict>>,
}

impl Ledger {
    /// A ledger for a batch of `len` messages.
    pub(crate) fn new(len: usize) -> Self {
        Self { verdicts: vec![None; len] }
    }

    /// Records the verdict of the message at `position`. The first verdict stays, because a late result cannot undo
    /// a decision.
    pub(crate) fn record(&mut self, position: usize, verdict: Verdict) {
        if let Some(slot) = self.verdicts.get_mut(position) {
            slot.get_or_insert(verdict);
        }
    }

    /// The acknowledgement to send now, or `None` while it is too early.
    pub(crate) fn due(&self) -> Option<Settlement> {
        let settlement = self.prefix();
        match self.verdicts.get(settlement.done) {
            Some(None) => None,
            Some(Some(_)) | None => Some(settlement),
        }
    }

    /// The acknowledgement to send when time is up: the settled prefix as it is.
    pub(crate) fn prefix(&self) -> Settlement {
        self.until(|verdict| verdict.is_some_and(Verdict::settles))
    }

    /// The acknowledgement for a service with these extensions. Results that it does not support are reported as
    /// failures.
    pub(crate) fn to_report(&self, settlement: Settlement, extensions: Extensions) -> Settlement {
        let mut reported = settlement;
        if !extensions.reject() {
            reported = self.without_rejects(reported);
        }
        if !extensions.release() {
            reported.stop = Stop::Fail;
        }
        reported
    }

    /// The acknowledgement for a service without rejects, in which the first rejected message is a failure.
    fn without_rejects(&self, settlement: Settlement) -> Settlement {
        let shorter = self.until(|verdict| verdict == Some(Verdict::Done));
        if shorter.done < settlement.done { Settlement { stop: Stop::Fail, ..shorter } } else { settlement }
    }

    fn until(&self, settles: impl Fn(Option<Verdict>) -> bool) -> Settlement {
        let done = self.verdicts.iter().take_while(|verdict| settles(**verdict)).count();
        let stop = match self.verdict(done) {
            Some(Verdict::NotStarted) => Stop::Release,
            Some(_) | None => Stop::Fail,
        };
        Settlement { done, rest: self.verdicts.len() - done, stop }
    }

    /// Whether a message is not settled, so that starting messages after it would be useless.
    pub(crate) fn has_failure(&self) -> bool {
        self.verdicts.iter().flatten().any(|verdict| !verdict.settles())
    }

    /// The verdict of the message at `position`, if it has one.
    pub(crate) fn verdict(&self, position: usize) -> Option<Verdict> {
        self.verdicts.get(position).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every order in which `len` messages can end.
    fn orders(len: usize) -> Vec<Vec<usize>> {
        let Some(last) = len.checked_sub(1) else { return vec![Vec::new()] };
        let shorter = orders(last);
        let insert = |order: &Vec<usize>, at: usize| {
            let mut longer = order.clone();
            longer.insert(at, last);
            longer
        };
        shorter.iter().flat_map(|order| (0..=last).map(move |at| insert(order, at))).collect()
    }

    /// All completion orders of batches of up to 6 messages, with every combination of success and failure. The
    /// acknowledgement is due exactly when no message before the first failure is running, and it covers that prefix.
    #[test]
    fn every_completion_order_is_due_exactly_when_the_prefix_is_decided() {
        for len in 1..=6 {
            for order in orders(len) {
                for failures in 0u32..1 << len {
                    let failed = |position: usize| failures & (1 << position) != 0;
                    let mut ledger = Ledger::new(len);
                    assert_eq!(ledger.due(), None, "nothing has ended");
                    for (ended, &position) in order.iter().enumerate() {
                        let verdict = if failed(position) { Verdict::Failed } else { Verdict::Done };
                        ledger.record(position, verdict);
                        let seen = &order[..=ended];
                        let open = (0..len).find(|p| !seen.contains(p)).unwrap_or(len);
                        let stop = (0..len).find(|&p| seen.contains(&p) && failed(p)).unwrap_or(len);
                        let expected = (stop < open || open == len).then(|| {
                            let done = stop.min(len);
                            Settlement { done, rest: len - done, stop: Stop::Fail }
                        });
                        assert_eq!(ledger.due(), expected, "{order:?} {failures:b} after {seen:?}");
                        assert_eq!(ledger.prefix().done, stop.min(open));
                    }
                    assert!(ledger.due().is_some());
                }
            }
        }
    }

    #[test]
    fn a_late_success_does_not_undo_a_failure() {
        let mut ledger = Ledger::new(1);
        ledger.record(0, Verdict::Failed);
        ledger.record(0, Verdict::Done);
        assert_eq!(ledger.due(), Some(Settlement { done: 0, rest: 1, stop: Stop::Fail }));
        assert!(ledger.has_failure());
    }

    fn of(verdicts: &[Verdict]) -> Ledger {
        Ledger { verdicts: verdicts.iter().copied().map(Some).collect() }
    }

    #[test]
    fn a_message_that_did_not_start_ends_the_prefix_without_a_failure() {
        let ledger = of(&[Verdict::Done, Verdict::NotStarted, Verdict::Failed]);
        let due = Settlement { done: 1, rest: 2, stop: Stop::Release };
        assert_eq!(ledger.due(), Some(due));
        assert_eq!((due.released(), due.fails()), (2, false));
        assert!(
            ledger.to_report(due, Extensions::NONE).fails(),
            "a service without the extension knows failures alone"
        );
    }

    #[test]
    fn a_rejected_message_is_settled_where_the_service_takes_rejects() {
        let ledger = of(&[Verdict::Done, Verdict::Rejected, Verdict::Done, Verdict::NotStarted]);
        let due = Settlement { done: 3, rest: 1, stop: Stop::Release };
        assert_eq!(ledger.due(), Some(due));
        assert_eq!(ledger.to_report(due, Extensions::ALL), due);
        let failing = Settlement { done: 1, rest: 3, stop: Stop::Fail };
        assert_eq!(ledger.to_report(due, Extensions::NONE), failing);
        assert_eq!(ledger.without_rejects(due), failing);
        let clean = of(&[Verdict::Done, Verdict::NotStarted]);
        assert_eq!(clean.without_rejects(clean.prefix()), clean.prefix(), "without a reject nothing changes");
        assert!(!of(&[Verdict::Done, Verdict::Rejected]).has_failure());
    }
}
