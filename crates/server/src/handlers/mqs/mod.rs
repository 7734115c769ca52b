//! The REST API of ROMA Connect MQS: producing, consuming and acknowledging by the names of topics and groups.
//!
//! A request arrives here with the ids of its queue and its group in place of their names. `docs/mqs.md` says which parts of this
//! dialect are documented by the vendor.

pub(crate) mod ack;
pub(crate) mod consume;
pub(crate) mod produce;
