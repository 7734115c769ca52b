//! [`AckStatus`]: the status that a consumer reports for a message, and the reasons of dead letters.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::store::FailureCause;

/// The status that a consumer reports for a message (API reference 5.3.3; the last two are extensions).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckStatus {
    /// It was processed.
    Success,
    /// It failed. It becomes available again, or a dead letter after the last allowed failure.
    Fail(Option<Arc<FailureCause>>),
    /// It is handed back with all later messages of the batch. No failure is counted for any of them.
    Release,
    /// It becomes a dead letter at once. Later messages of the batch are treated as after a success.
    Reject(Option<Arc<FailureCause>>),
}

impl AckStatus {
    /// Combines two statuses of one message. The worse one wins: `Fail`, then `Release`, `Reject`, `Success`.
    pub(crate) fn or(self, other: Self) -> Self {
        let weight = |status: &Self| match status {
            Self::Success => 0,
            Self::Reject(_) => 1,
            Self::Release => 2,
            Self::Fail(_) => 3,
        };
        if weight(&other) > weight(&self) { other } else { self }
    }

    /// Whether it settles the message, so that later messages of the batch are looked at.
    pub(crate) fn settles(&self) -> bool {
        matches!(self, Self::Success | Self::Reject(_))
    }
}

/// The reason of a failure for which the consumer gave none.
pub(crate) const FAILED: &str = "failed";
/// The reason of a rejection for which the consumer gave none.
pub(crate) const REJECTED: &str = "rejected";
/// The reason if a lease ended without an acknowledgement.
pub(crate) const LEASE_EXPIRED: &str = "lease_expired";
/// The reason if an earlier message of the batch failed and that counts (`failure_counting: batch`).
pub(crate) const BATCH_FAILED: &str = "batch_failed";
/// The reason of a dead letter that is kept as the original of a copy, which was edited and sent again.
pub(crate) const EDITED: &str = "edited";

/// The reasons that are counted by name.
const KNOWN: [&str; 9] = [
    FAILED,
    "panicked",
    "timed_out",
    REJECTED,
    "undecodable",
    "republish_exhausted",
    LEASE_EXPIRED,
    BATCH_FAILED,
    // All other reasons.
    "other",
];

/// The number of dead letters by reason. The number of names is bounded, whatever consumers report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonCounts([u64; KNOWN.len()]);

impl ReasonCounts {
    /// Counts a dead letter of this reason.
    pub(crate) fn add(&mut self, reason: &str) {
        let place = KNOWN.iter().position(|known| *known == reason).unwrap_or(KNOWN.len() - 1);
        self.0[place] += 1;
    }

    /// Adds the counts of others.
    #[cfg(feature = "postgres")]
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// Every name with its count. `other` stands for all reasons without a name of their own.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KNOWN.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_of_two_statuses_counts() {
        let of = |first: AckStatus, second: AckStatus| (first.clone().or(second.clone()), second.or(first));
        assert_eq!(of(AckStatus::Success, AckStatus::Fail(None)), (AckStatus::Fail(None), AckStatus::Fail(None)));
        assert_eq!(of(AckStatus::Release, AckStatus::Fail(None)), (AckStatus::Fail(None), AckStatus::Fail(None)));
        assert_eq!(of(AckStatus::Reject(None), AckStatus::Release), (AckStatus::Release, AckStatus::Release));
        assert_eq!(of(AckStatus::Reject(None), AckStatus::Success), (AckStatus::Reject(None), AckStatus::Reject(None)));
    }

    #[test]
    fn reasons_of_consumers_make_no_names() {
        let mut counts = ReasonCounts::default();
        for reason in ["failed", "failed", "made-up", "lease_expired", "other"] {
            counts.add(reason);
        }
        let counted: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("failed", 2), ("lease_expired", 1), ("other", 2)]);
    }
}
