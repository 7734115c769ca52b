//! Lets tests watch what SQLite does to its files, and have it fail.
//!
//! [`install`] makes a VFS the default that hands everything to the one that was the default before. Connections that a thread
//! opens, writes or closes while it has an [`Observer`] tell it of each change before it happens; what the observer refuses fails
//! as if the system had refused it. The shared memory beside the database is not watched: SQLite creates it again after a crash.

use std::{cell::RefCell, path::Path, rc::Rc};

mod file;
mod vfs;

pub use vfs::install;

/// What SQLite is about to do.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// A file is made that was not there.
    Create {
        /// Where.
        path: &'a Path,
    },
    /// Bytes are written.
    Write {
        /// To which file.
        path: &'a Path,
        /// From which place on.
        offset: u64,
        /// These.
        bytes: &'a [u8],
    },
    /// A file gets another length.
    Truncate {
        /// Which file.
        path: &'a Path,
        /// Its length from now on.
        length: u64,
    },
    /// A file's bytes are brought to the disk.
    Sync {
        /// Which file.
        path: &'a Path,
    },
    /// The names in a file's directory are brought to the disk.
    SyncNames {
        /// The file.
        path: &'a Path,
    },
    /// A file is deleted.
    Delete {
        /// Which file.
        path: &'a Path,
    },
}

/// The result to return to SQLite instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The disk is full.
    Full,
    /// The disk failed.
    Failed,
}

/// The observer.
pub trait Observer {
    /// Called before a change happens.
    ///
    /// # Errors
    /// The result to return to SQLite instead of making the change.
    fn before(&self, op: Op<'_>) -> Result<(), Refusal>;
}

thread_local! {
    static OBSERVER: RefCell<Option<Rc<dyn Observer>>> = const { RefCell::new(None) };
}

/// Has somebody watch what this thread does, or nobody.
pub fn watch(observer: Option<Rc<dyn Observer>>) {
    OBSERVER.with(|current| *current.borrow_mut() = observer);
}

fn tell(op: Op<'_>) -> Result<(), Refusal> {
    // A thread that is ending watches nothing any more.
    let observer = OBSERVER.try_with(|observer| observer.borrow().clone()).ok().flatten();
    observer.map_or(Ok(()), |observer| observer.before(op))
}
