//! From the arrival of a message to the call of its handler: per-key order, and batches for one call.

pub(crate) mod collector;
pub(crate) mod key_queues;

use std::sync::Arc;

use crate::worker::{
    dispatch::{collector::Collector, key_queues::KeyedQueues},
    handler::{batch::Batching, kind::HandlerKind},
    settings::Settings,
};

/// A worker's handler, and where messages wait for it.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) handler: HandlerKind,
    /// Collects the messages of all batches for a batch handler; `None` if each consumed batch has a separate collector.
    collector: Option<Arc<Collector>>,
    /// The messages that wait for others of the same key.
    pub(crate) keyed_queues: KeyedQueues,
    /// Whether the messages of a consumed batch are handled one after the other.
    in_order: bool,
}

impl Dispatch {
    pub(crate) fn new(handler: HandlerKind, settings: &Settings) -> Self {
        let in_order = settings.ordering.is_batch();
        let collector = match settings.batching {
            Some(Batching::Collected(limits)) if !in_order => Some(Collector::collected(limits)),
            Some(_) | None => None,
        };
        Self { handler, collector, keyed_queues: KeyedQueues::default(), in_order }
    }

    /// The collector for the `messages` of a consumed batch; `None` if each message is a separate call.
    pub(crate) fn collector(&self, messages: usize) -> Option<Arc<Collector>> {
        match (&self.handler, &self.collector) {
            (HandlerKind::Single(_), _) => None,
            (HandlerKind::Batch(_), Some(collector)) => Some(collector.clone()),
            (HandlerKind::Batch(_), None) => Some(Collector::consumed(messages, self.in_order)),
        }
    }
}
