//! The part of a batch that can be acknowledged, and until when. Pure.

pub(crate) mod lease;
pub(crate) mod ledger;
