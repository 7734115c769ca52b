//! Moving everything from one store into another: from a data directory into PostgreSQL, and back.
//!
//! `export` writes a directory with one file for each queue, and `import` brings it into a data directory or into PostgreSQL. Both
//! may be killed at any moment and are continued by the same call. An export changes nothing in its source. An import marks its
//! target until it is complete, so that no server serves half of it.
//!
//! Sequence numbers and entry times are kept, because ids follow from them, and because groups continue at them. The numbers of streams
//! and cursors are new.
//!
//! | file | contents |
//! |---|---|
//! | `format` | the files of an export |
//! | `export`, `import` | writing and reading them |
//! | `place` | opening the source and the target |
//! | `error` | why it failed |

mod error;
mod export;
mod format;
mod import;
mod place;

pub use self::{error::TransferError, export::export, format::ExportCounts, import::import, place::StoreLocation};

/// How far an export or an import has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Queues that are complete.
    pub queues: usize,
    /// How many there are.
    pub all_queues: usize,
    /// Messages of all kinds that were written.
    pub messages: u64,
    /// About how many there are.
    pub all_messages: u64,
}

/// The result of an export or an import.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many queues there are.
    pub queues: usize,
    /// How many of them were there already: written by an earlier call.
    pub already: usize,
    /// How many groups they have, where that is counted.
    pub groups: usize,
    /// Their messages.
    pub counts: ExportCounts,
}

/// Called with the progress. Ends the work by returning false.
pub type Watch<'a> = &'a mut dyn FnMut(&Progress) -> bool;

fn tell(watch: Watch<'_>, progress: &Progress) -> Result<(), TransferError> {
    if watch(progress) { Ok(()) } else { Err(TransferError::Interrupted) }
}
