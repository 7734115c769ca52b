//! What can be acknowledged of a batch, and until when. Pure.

pub(crate) mod lease;
pub(crate) mod ledger;
