//! Where a run is in the log. Pure.

use crate::store::StreamId;

/// A position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The number of the segment, from 1.
    pub(crate) segment: u64,
    /// The offset in the segment, in bytes.
    pub(crate) offset: u64,
}

/// A run: consecutive messages of one stream that were committed together. They are stored and read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The stream.
    pub(crate) stream: StreamId,
    /// The first sequence number.
    pub(crate) first: u64,
    /// The number of messages.
    pub(crate) count: u32,
    /// Where the bytes begin.
    pub(crate) at: Position,
    /// The number of bytes.
    pub(crate) bytes: u32,
}

impl Run {
    /// The sequence number after the last message.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}
