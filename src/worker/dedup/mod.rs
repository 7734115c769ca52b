//! What a worker remembers of single messages, so that work is not done twice and a redelivery can be explained.

pub(crate) mod identity;
pub(crate) mod in_progress;
pub(crate) mod passed_on;
pub(crate) mod records;
pub(crate) mod redelivery;
