//! [`ParkingQueues`]: where parked messages go.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::queue::QueueId;

/// The ids of the parking queues, by their names in the settings.
#[derive(Debug, Default)]
pub(crate) struct ParkingQueues(Mutex<BTreeMap<String, QueueId>>);

impl ParkingQueues {
    pub(crate) fn new(queues: BTreeMap<String, QueueId>) -> Self {
        Self(Mutex::new(queues))
    }

    pub(crate) fn get(&self, name: &str) -> Option<QueueId> {
        self.lock().get(name).cloned()
    }

    /// Replaces the id of a queue that was deleted and created again.
    pub(crate) fn set(&self, name: &str, queue: QueueId) {
        self.lock().insert(name.to_owned(), queue);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, QueueId>> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
