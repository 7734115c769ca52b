//! The operations of the broker, one file for each group of calls.
//!
//! | file | calls |
//! |---|---|
//! | `append` | send |
//! | `consume` | lease messages, with long polling |
//! | `ack` | settle leased messages |
//! | `oldest` | the age of each backlog |
//! | `find` | find a message by its id |
//! | `resolve` | retry or discard one message |
//! | `peek` | look at messages without leasing them |
//! | `look` | limits how many messages are read without leasing them |
//! | `purge` | delete messages |
//! | `schedules` | add, list, pause and remove schedules |
//! | `damaged` | list and skip damaged messages |
//! | `admin_ops` | queues, groups, tags, quotas |

pub(crate) mod ack;
mod admin_ops;
pub(crate) mod append;
pub(crate) mod consume;
mod damaged;
pub(crate) mod find;
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only stores in PostgreSQL change their owner"))]
pub(crate) mod hand_over;
mod look;
pub(crate) mod oldest;
pub(crate) mod peek;
mod purge;
pub(crate) mod resolve;
mod schedules;
