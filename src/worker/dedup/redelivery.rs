//! [`Redelivery`]: why a message came again.

use std::fmt;

/// Why a message came again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Redelivery {
    /// Its handler failed.
    Failed,
    /// Its handler rejected it, or could not decode it.
    Rejected,
    /// Its handler panicked.
    Panicked,
    /// Its handler was stopped at its deadline.
    TimedOut,
    /// Its handler deferred it.
    Deferred,
    /// One before it in its batch failed: the service fails everything behind a failure.
    BehindFailure,
    /// Its batch was handed back: the worker stopped or was paused, or one before it could not be started in time.
    HandedBack,
    /// It was not started: too little of the lease was left, or one before it in an order had failed.
    NotStarted,
    /// The acknowledgement of its batch came too late.
    LateAck,
    /// The answer to the acknowledgement of its batch was lost.
    LostAck,
    /// The acknowledgement of its batch was refused, or settled fewer messages than it named.
    RejectedAck,
    /// The lease of its batch lapsed while the service could not be reached.
    LeaseLapsed,
    /// It was delivered before, but to another worker (one that shut down or died say), or longer ago than is remembered.
    Unknown,
}

impl Redelivery {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::Failed,
        Self::Rejected,
        Self::Panicked,
        Self::TimedOut,
        Self::Deferred,
        Self::BehindFailure,
        Self::HandedBack,
        Self::NotStarted,
        Self::LateAck,
        Self::LostAck,
        Self::RejectedAck,
        Self::LeaseLapsed,
        Self::Unknown,
    ];

    /// A short stable name, as in the label `reason` of `dms_worker_redeliveries_total`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
            Self::Deferred => "deferred",
            Self::BehindFailure => "behind_failure",
            Self::HandedBack => "handed_back",
            Self::NotStarted => "not_started",
            Self::LateAck => "late_ack",
            Self::LostAck => "lost_ack",
            Self::RejectedAck => "rejected_ack",
            Self::LeaseLapsed => "lease_lapsed",
            Self::Unknown => "unknown",
        }
    }

    /// The reason with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Redelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "its handler failed",
            Self::Rejected => "its handler rejected it, or could not decode it",
            Self::Panicked => "its handler panicked",
            Self::TimedOut => "its handler was stopped at its deadline",
            Self::Deferred => "its handler deferred it",
            Self::BehindFailure => "a message before it in its batch failed",
            Self::HandedBack => "its batch was handed back, without a failure counted",
            Self::NotStarted => "it was not started in time",
            Self::LateAck => "the acknowledgement of its batch came too late",
            Self::LostAck => "the answer to the acknowledgement of its batch was lost",
            Self::RejectedAck => "the acknowledgement of its batch was refused",
            Self::LeaseLapsed => "its lease lapsed while the service could not be reached",
            Self::Unknown => "another worker left it, one that shut down or died say, or it was left long ago",
        })
    }
}
