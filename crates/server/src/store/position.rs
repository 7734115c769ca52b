//! Where something is in the log. Pure.

use crate::store::StreamId;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The file's number, from 1.
    pub(crate) segment: u64,
    /// Bytes from the file's beginning.
    pub(crate) offset: u64,
}

/// Messages that follow each other in their stream and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Whose messages.
    pub(crate) stream: StreamId,
    /// The place of the first.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u32,
    /// Where their bytes begin.
    pub(crate) at: Position,
    /// How many bytes there are.
    pub(crate) bytes: u32,
}

impl Run {
    /// The place behind the last one.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}
