//! What of a batch can be acknowledged, and when: pure, one ledger per consumed batch.
//!
//! The service judges one acknowledgement per batch, in the order of consumption, and fails everything from the first
//! message that is not a success (API reference 5.3.3). So the call is due when the batch is complete, at the first failure
//! once all before it are done, or when the lease is about to end — never earlier.

/// How one message of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be acknowledged as a success.
    Done,
    /// It has to come again.
    Failed,
    /// Its handler was never called; it has to come again, and nobody is to blame.
    NotStarted,
}

/// What to tell the service about a batch: the first `done` succeeded, the `rest` comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    /// Length of the successful prefix.
    pub(crate) done: usize,
    /// How many messages lie behind it; the first of them is where the service stops.
    pub(crate) rest: usize,
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

    /// Notes how the message at `position` ended. The first verdict stays: what was decided cannot be undone by a late answer.
    pub(crate) fn record(&mut self, position: usize, verdict: Verdict) {
        if let Some(slot) = self.verdicts.get_mut(position) {
            slot.get_or_insert(verdict);
        }
    }

    /// What to acknowledge now, or `None` while it is too early.
    pub(crate) fn due(&self) -> Option<Settlement> {
        let settlement = self.prefix();
        match self.verdicts.get(settlement.done) {
            Some(None) => None,
            Some(Some(_)) | None => Some(settlement),
        }
    }

    /// What to acknowledge when there is no more time: the successful prefix as it stands.
    pub(crate) fn prefix(&self) -> Settlement {
        let done = self.verdicts.iter().take_while(|verdict| **verdict == Some(Verdict::Done)).count();
        Settlement { done, rest: self.verdicts.len() - done }
    }

    /// Whether a message has failed, so that starting those behind it would be work for nothing.
    pub(crate) fn has_failure(&self) -> bool {
        self.verdicts.iter().any(|verdict| matches!(verdict, Some(Verdict::Failed | Verdict::NotStarted)))
    }

    /// The verdict of the message at `position` so far.
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

    /// All completion orders of all batches of up to 6 messages, with every combination of success and failure: the
    /// acknowledgement is due exactly when nothing in front of the first failure is open, and it covers that prefix.
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
                            Settlement { done, rest: len - done }
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
        assert_eq!(ledger.due(), Some(Settlement { done: 0, rest: 1 }));
        assert!(ledger.has_failure());
    }

    #[test]
    fn a_message_that_did_not_start_stops_the_prefix_like_a_failure() {
        let mut ledger = Ledger::new(3);
        ledger.record(0, Verdict::Done);
        ledger.record(1, Verdict::NotStarted);
        assert_eq!(ledger.due(), Some(Settlement { done: 1, rest: 2 }));
    }
}
