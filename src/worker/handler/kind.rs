//! [`HandlerKind`]: a worker's handler, which takes single messages or batches.

use std::{fmt, sync::Arc};

use super::{Handler, batch::BatchHandler};

/// The handler of a worker.
#[derive(Clone)]
pub(crate) enum HandlerKind {
    /// Takes one message in a call.
    Single(Arc<dyn Handler>),
    /// Takes several messages in a call.
    Batch(Arc<dyn BatchHandler>),
}

impl fmt::Debug for HandlerKind {
    // Handlers need not implement `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Handler",
            Self::Batch(_) => "BatchHandler",
        })
    }
}
