//! [`InFlight`]: the messages that handlers work on now.

use std::{
    collections::HashMap,
    ptr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use dms_protocol::trace_context::TraceContext;
use dms_worker::worker::Delivery;

/// The messages that the handlers of a worker work on.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashMap<usize, Held>>);

/// One of them. The clone of the delivery shares the message.
#[derive(Debug)]
struct Held {
    delivery: Delivery,
    since: Instant,
}

/// A message in flight, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The id of the message, if the service gives it one.
    pub(crate) id: Option<String>,
    /// Its place in the queue, if the service tells it.
    pub(crate) place: Option<u64>,
    /// The number of this attempt.
    pub(crate) attempt: u32,
    /// How long its handler has been running.
    pub(crate) age: Duration,
    /// The time until the handler is stopped.
    pub(crate) left: Duration,
    /// The trace that the message is a part of.
    pub(crate) trace: Option<TraceContext>,
}

impl InFlight {
    /// Notes that a handler has begun.
    pub(crate) fn begin(&self, delivery: &Delivery) {
        let held = Held { delivery: delivery.clone(), since: Instant::now() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key(delivery), held);
    }

    /// Notes that it has ended.
    pub(crate) fn end(&self, delivery: &Delivery) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(delivery));
    }

    /// The messages, the shortest time first.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let now = Instant::now();
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |held: &Held| Row {
            id: held.delivery.id().map(|id| id.to_string()),
            place: held.delivery.sequence(),
            attempt: held.delivery.attempt(),
            age: now - held.since,
            left: held.delivery.deadline().saturating_duration_since(now),
            trace: held.delivery.trace_context(),
        };
        let mut rows: Vec<_> = held.values().map(row).collect();
        drop(held);
        rows.sort_by_key(|row| (row.left, row.place));
        rows
    }
}

/// Where the handle of a delivery is. No other delivery has it there while a clone of this one is kept.
fn key(delivery: &Delivery) -> usize {
    ptr::from_ref(delivery.handle()).addr()
}
