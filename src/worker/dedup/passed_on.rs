//! [`PassedOn`]: messages that were settled without success, because a copy was sent or they were parked or discarded.
//!
//! A message is identified by its place alone. Its copy has the same unique attribute, and so has a parked message that
//! is sent back to its queue; these must be handled, or they would be lost. If the service sends no places, nothing is
//! remembered and a redelivery is handled again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    message::ReceivedMessage,
    ttl_map::TtlMap,
    worker::dedup::identity::{CAPACITY, Identity},
};

/// The messages that a worker has passed on.
#[derive(Debug)]
pub(crate) struct PassedOn {
    places: Mutex<TtlMap<Identity, ()>>,
    keep: Duration,
}

impl PassedOn {
    /// Remembers each message for `keep`, which is longer than a redelivery can take.
    pub(crate) fn new(keep: Duration) -> Self {
        Self { places: Mutex::new(TtlMap::new(CAPACITY)), keep }
    }

    /// Records a message that was passed on. Its redelivery is acknowledged without calling the handler.
    pub(crate) fn record(&self, message: &ReceivedMessage) {
        if let Some(place) = Identity::of(message, None) {
            self.lock().insert(place, (), self.keep);
        }
    }

    /// Whether this very message was passed on.
    pub(crate) fn contains(&self, message: &ReceivedMessage) -> bool {
        Identity::of(message, None).is_some_and(|place| self.lock().get(&place).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, TtlMap<Identity, ()>> {
        // No code that can panic runs under this lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
