//! The parts of requests and answers that do not depend on the operation.
//!
//! | file | contents |
//! |---|---|
//! | `body` | reading a body within its limits |
//! | `query`, `path`, `json` | parameters, ids and JSON bodies |
//! | `head` | the memory of a request that waits |
//! | `error`, `codes` | refusals with their documented codes |
//! | `operation` | the names of the operations |
//! | `request_id` | the id of a request |
//! | `host_check`, `bearer` | who may use a listener |

pub mod bearer;
pub mod body;
pub(crate) mod codes;
pub(crate) mod error;
pub(crate) mod head;
pub mod host_check;
pub(crate) mod json;
pub(crate) mod operation;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod request_id;
