//! Limits on the messages in flight, of one worker and of all workers that share a limit.

pub(crate) mod acks;
pub(crate) mod acquire;
pub(crate) mod fair_share;
pub(crate) mod inflight;
pub(crate) mod shared;
