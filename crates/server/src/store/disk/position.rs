//! Where something is in the log. Pure.

use crate::store::StreamNo;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The file's number, from 1.
    pub(super) segment: u64,
    /// Bytes from the file's beginning.
    pub(super) offset: u64,
}

/// Messages that follow each other in their stream and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Whose messages.
    pub(super) stream: StreamNo,
    /// The place of the first.
    pub(super) first: u64,
    /// How many.
    pub(super) count: u32,
    /// Where their bytes begin.
    pub(super) at: Position,
    /// How many bytes there are.
    pub(super) bytes: u32,
}

impl Run {
    /// The place behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}
