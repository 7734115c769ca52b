//! What of a batch can be acknowledged, and until when: pure.

pub(crate) mod lease;
pub(crate) mod ledger;
