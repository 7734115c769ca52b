//! [`Producers`]: the producers of a runtime, closed after the workers and tasks.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;

use super::report::ProducerEnd;
use crate::producer::Producer;

/// Named producers. More can be added while the runtime runs.
#[derive(Debug, Default)]
pub(super) struct Producers(Mutex<Vec<(String, Producer)>>);

impl Producers {
    pub(super) fn add(&self, name: String, producer: Producer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, producer));
    }

    pub(super) fn take(&self, name: &str) -> Option<Producer> {
        let mut producers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = producers.iter().position(|(known, _)| known == name)?;
        Some(producers.remove(place).1)
    }

    /// Closes all producers concurrently. They send their messages within `grace`.
    pub(super) async fn close(&self, grace: Duration) -> Vec<ProducerEnd> {
        let producers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let close = |(name, producer): (String, Producer)| async move {
            let report = producer.close(grace).await;
            ProducerEnd { name, report }
        };
        join_all(producers.into_iter().map(close)).await
    }
}
