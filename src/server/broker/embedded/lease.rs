//! A batch that is out, and how an acknowledgement of it is judged (API reference 5.3.3). Pure.

use std::{ops::Range, sync::Arc};

use tokio::time::Instant;

use super::{
    config::FailureCounting,
    handle::{BatchToken, Handle, Seal},
};
use crate::server::{
    broker::Settled,
    store::{Settlement, Stored},
};

/// A message of a batch.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The message itself: it is at hand if it fails or dies.
    pub(super) message: Arc<Stored>,
    /// Failed consumptions before this one.
    pub(super) failures: u32,
}

/// A batch that was handed out and is not settled.
#[derive(Debug)]
pub(super) struct Lease {
    /// What its tokens begin with.
    pub(super) token: BatchToken,
    /// What they end with, one for each message.
    pub(super) seals: Vec<Seal>,
    /// In the order they were handed out.
    pub(super) entries: Vec<Entry>,
    /// Messages between them that the label rule passed over: settled with the batch, however it ends.
    pub(super) skipped: Vec<Range<u64>>,
    /// From then on it cannot be acknowledged.
    pub(super) deadline: Instant,
    /// Its end is on the way to the store: no acknowledgement and no lapse may touch it meanwhile.
    pub(super) settling: bool,
}

/// How a batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// An acknowledgement got this far: all before it are done, it failed, and so did all behind it.
    Acknowledged { done: usize },
    /// Nobody answered in time: every message failed.
    Lapsed,
    /// It is let go of: every message is available again, and none has failed.
    Released,
}

impl Lease {
    /// The tokens of its messages in order.
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        let batch = self.token;
        (0..).zip(&self.seals).map(move |(position, seal)| Handle { batch, position, seal: *seal })
    }

    /// What it keeps in memory, roughly.
    pub(super) fn footprint(&self) -> usize {
        self.entries.iter().map(|entry| entry.message.footprint()).sum()
    }

    /// Whether this token is one of the batch.
    pub(super) fn holds(&self, handle: &Handle) -> bool {
        self.entries.len() > usize::from(handle.position)
            && self.seals.get(usize::from(handle.position)) == Some(&handle.seal)
    }

    /// Whether it can be acknowledged at `now`.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        !self.settling && now < self.deadline
    }

    /// How many of the batch an ending settles, and how many it fails.
    pub(super) fn count(&self, ending: Ending) -> Settled {
        let success = match ending {
            Ending::Acknowledged { done } => done,
            Ending::Lapsed | Ending::Released => 0,
        };
        Settled { success, fail: self.entries.len() - success }
    }

    /// What an ending means for each message; `dead_after` failures make a dead letter.
    pub(super) fn judge(&self, ending: Ending, counting: FailureCounting, dead_after: Option<u32>) -> Settlement {
        let mut settlement = Settlement { skipped: self.skipped.clone(), ..Settlement::default() };
        for (position, entry) in self.entries.iter().enumerate() {
            let counted = match ending {
                Ending::Acknowledged { done } if position < done => {
                    settlement.done.push(entry.message.seq);
                    continue;
                }
                Ending::Acknowledged { done } => position == done || counting == FailureCounting::Batch,
                Ending::Lapsed => true,
                Ending::Released => false,
            };
            let failures = entry.failures.saturating_add(u32::from(counted));
            if counted && dead_after.is_some_and(|most| failures >= most) {
                settlement.dead.push(entry.message.seq);
            } else {
                settlement.failed.push((entry.message.seq, failures));
            }
        }
        settlement
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::server::broker::embedded::handle::Minted;

    fn lease(failures: &[u32]) -> Lease {
        let minted = Minted::draw(failures.len()).unwrap();
        let entry = |(seq, failures): (u64, &u32)| Entry {
            message: Arc::new(Stored {
                seq,
                entered_ms: 0,
                json: "{}".into(),
                body_bytes: 1,
                tags: Arc::from(Vec::new()),
            }),
            failures: *failures,
        };
        Lease {
            token: minted.batch,
            seals: minted.seals().collect(),
            entries: (1..).zip(failures).map(entry).collect(),
            skipped: Vec::new(),
            deadline: Instant::now(),
            settling: false,
        }
    }

    /// 5.3.3: at the first message that is not confirmed the service stops; it and all behind it failed.
    #[test]
    fn settled_up_to_the_first_failure_and_failed_behind_it() {
        let batch = lease(&[0, 0, 0, 0]);
        let ending = Ending::Acknowledged { done: 2 };
        assert_eq!(batch.count(ending), Settled { success: 2, fail: 2 });
        let culprit = batch.judge(ending, FailureCounting::Culprit, Some(3));
        assert_eq!((culprit.done, culprit.failed), (vec![1, 2], vec![(3, 1), (4, 0)]));
        let strict = batch.judge(ending, FailureCounting::Batch, Some(3));
        assert_eq!(strict.failed, [(3, 1), (4, 1)]);
    }

    /// 5.1.1: after `max_consume_count` failed consumptions a message is a dead letter.
    #[test]
    fn the_last_allowed_failure_makes_a_dead_letter() {
        let batch = lease(&[2, 2, 1]);
        let one = batch.judge(Ending::Acknowledged { done: 0 }, FailureCounting::Culprit, Some(3));
        assert_eq!((one.dead, one.failed), (vec![1], vec![(2, 2), (3, 1)]));
        let all = batch.judge(Ending::Lapsed, FailureCounting::Culprit, Some(3));
        assert_eq!((all.dead, all.failed), (vec![1, 2], vec![(3, 2)]));
        let released = batch.judge(Ending::Released, FailureCounting::Batch, Some(3));
        assert_eq!((released.dead, released.failed), (vec![], vec![(1, 2), (2, 2), (3, 1)]));
        let never = batch.judge(Ending::Lapsed, FailureCounting::Culprit, None);
        assert_eq!((never.dead, never.failed), (vec![], vec![(1, 3), (2, 3), (3, 2)]));
    }

    #[test]
    fn failures_do_not_overflow() {
        let judged = lease(&[u32::MAX]).judge(Ending::Lapsed, FailureCounting::Culprit, None);
        assert_eq!(judged.failed, [(1, u32::MAX)]);
    }
}
