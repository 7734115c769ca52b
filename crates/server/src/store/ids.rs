//! [`StreamId`] and [`CursorId`]: the numbers by which a store knows its parts.

use serde::{Deserialize, Serialize};

/// The number of a stream of messages, or of a delay queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StreamId(pub(crate) u32);

/// The number of a cursor: the position of a group on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CursorId(pub(crate) u32);
