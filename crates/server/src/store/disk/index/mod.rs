//! The index: a SQLite database that says where each message is in the log, and contains everything else that is not a message.
//!
//! The index follows the log and can always be completed from it, so its transactions need not be on the disk at once.
//!
//! | file | contents |
//! |---|---|
//! | `open` | opening the database, its settings |
//! | `schema` | the tables and their migrations |
//! | `load` | the snapshot |
//! | `lookup` | finding messages |
//! | `writer` | taking in the log |
//! | `sweep` | deleting the rows of deleted queues, empty segments |
//! | `rows` | rows that are read one by one |
//! | `checksums` | checksums of the rows |

pub(crate) mod checksums;
pub(crate) mod error;
pub(crate) mod load;
pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod rows;
pub(crate) mod schema;
mod sweep;
pub(crate) mod writer;
