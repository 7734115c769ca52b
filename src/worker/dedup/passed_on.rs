//! Messages that were taken care of without success: a copy was sent, or they were parked or discarded.
//!
//! Each is known by its place alone. Its copy has the same unique attribute, and so has a parked message that is sent back to its queue:
//! those have to be run, or they would be lost. Where the service gives no places nothing is known, and a redelivery is run again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    message::ReceivedMessage,
    ttl_map::TtlMap,
    worker::dedup::identity::{CAPACITY, Identity},
};

/// What one worker has passed on.
#[derive(Debug)]
pub(crate) struct PassedOn {
    places: Mutex<TtlMap<Identity, ()>>,
    keep: Duration,
}

impl PassedOn {
    /// Remembers each message for `keep`: past the longest time until it is redelivered.
    pub(crate) fn new(keep: Duration) -> Self {
        Self { places: Mutex::new(TtlMap::new(CAPACITY)), keep }
    }

    /// A message was passed on: its redelivery is acknowledged without a run.
    pub(crate) fn record(&self, message: &ReceivedMessage) {
        if let Some(place) = Identity::of(message, None) {
            self.lock().insert(place, (), self.keep);
        }
    }

    /// Whether a message, this very one, was passed on.
    pub(crate) fn contains(&self, message: &ReceivedMessage) -> bool {
        Identity::of(message, None).is_some_and(|place| self.lock().get(&place).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, TtlMap<Identity, ()>> {
        // No code that can panic runs under this lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
