//! The index: a SQLite database that knows where the log has each message, and everything else that is not a message.
//!
//! It follows the log and can always be brought up to date from it, so its transactions need not be on the disk at once.
//! `schema` has the tables, `load` reads the broker's state, `lookup` finds messages, `writer` takes in what the log has,
//! `page` is what is settled of a reader, and `sums` guards the rows, and `sweep` does what nobody waits for.

pub(crate) mod checksums;
pub(crate) mod error;
pub(crate) mod load;
pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod rows;
pub(crate) mod schema;
mod sweep;
pub(crate) mod writer;
