//! What a worker's messages are given to: a handler of single messages, or of several together.

use std::sync::Arc;

use crate::worker::{
    dispatch::collector::Gathering,
    handler::{
        Handler,
        batch::{BatchHandler, Batching},
    },
};

/// What handles the messages of a worker.
#[derive(Clone)]
pub(crate) enum Dispatch {
    Single(Arc<dyn Handler>),
    Batch {
        handler: Arc<dyn BatchHandler>,
        /// Where messages of all batches meet; those of one batch meet in a gathering of their own.
        collected: Option<Arc<Gathering>>,
    },
}

impl Dispatch {
    /// Calls a batch handler for what `batching` puts together.
    pub(crate) fn batch(handler: Arc<dyn BatchHandler>, batching: Batching, in_order: bool) -> Self {
        let collected = match batching {
            Batching::Collected(limits) if !in_order => Some(Gathering::collected(limits)),
            Batching::Collected(_) | Batching::Consumed => None,
        };
        Self::Batch { handler, collected }
    }

    /// Where the `messages` of a consumed batch meet for their call; `None` when each has its own.
    pub(crate) fn gathering(&self, messages: usize, in_order: bool) -> Option<Arc<Gathering>> {
        match self {
            Self::Single(_) => None,
            Self::Batch { collected: Some(collected), .. } => Some(collected.clone()),
            Self::Batch { collected: None, .. } => Some(Gathering::consumed(messages, in_order)),
        }
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Handler",
            Self::Batch { .. } => "BatchHandler",
        })
    }
}
