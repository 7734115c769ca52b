//! What happens to messages between their arrival and the call of their handler: per-key order, and batches for one call.

pub(crate) mod collector;
pub(crate) mod key_queues;
