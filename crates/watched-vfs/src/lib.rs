//! Lets tests observe every change that SQLite makes to its files, and make it fail.
//!
//! [`install`] makes a VFS the default that passes every call on to the previous default. It tells the [`Observer`] of a thread about each
//! change before it happens. A change that the observer refuses fails as if the system had refused it. The shared memory beside the
//! database is not watched, because SQLite creates it again after a crash.

use std::{cell::RefCell, path::Path, rc::Rc};

mod file;
mod vfs;

pub use vfs::install;

/// What SQLite is about to do.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// A file is created.
    Create {
        /// Its path.
        path: &'a Path,
    },
    /// Bytes are written.
    Write {
        /// The file.
        path: &'a Path,
        /// The offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The length of a file is changed.
    Truncate {
        /// The file.
        path: &'a Path,
        /// The new length.
        length: u64,
    },
    /// A file's bytes are brought to the disk.
    Sync {
        /// The file.
        path: &'a Path,
    },
    /// The entries of a file's directory are brought to the disk.
    SyncNames {
        /// The file.
        path: &'a Path,
    },
    /// A file is deleted.
    Delete {
        /// The file.
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

impl Refusal {
    /// The code that SQLite receives; `failed` is the one of the call for a disk that failed.
    fn code(self, failed: std::ffi::c_int) -> std::ffi::c_int {
        match self {
            Self::Full => rusqlite::ffi::SQLITE_FULL,
            Self::Failed => failed,
        }
    }
}

/// Observes changes.
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

/// Sets the observer of this thread, or removes it.
pub fn watch(observer: Option<Rc<dyn Observer>>) {
    OBSERVER.with(|current| *current.borrow_mut() = observer);
}

fn tell(op: Op<'_>) -> Result<(), Refusal> {
    // A thread that is ending has no observer any more.
    let observer = OBSERVER.try_with(|observer| observer.borrow().clone()).ok().flatten();
    observer.map_or(Ok(()), |observer| observer.before(op))
}
