//! [`Producers`]: the producers of a publisher, and the room for messages that they share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use dms_protocol::queue::QueueId;
#[cfg(feature = "dashboard")]
use dms_worker::producer::ProducerReport;
use dms_worker::{client::Error, producer::Producer};

/// The producers of a publisher, one for each real queue: a queue that is listed by its name and by its id has a single one, because two
/// would not keep the order of its messages.
#[derive(Debug)]
pub(crate) struct Producers {
    by_queue: Mutex<BTreeMap<QueueId, Named>>,
    room: Arc<Semaphore>,
    /// The number of permits that `room` began with.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    max_pending: usize,
}

/// A producer with the name of its queue, for people.
#[derive(Clone, Debug)]
struct Named {
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    name: String,
    producer: Producer,
}

impl Producers {
    /// Producers that take at most `max_pending` messages together.
    pub(crate) fn new(max_pending: usize) -> Self {
        let room = Semaphore::new(max_pending.min(Semaphore::MAX_PERMITS));
        Self { by_queue: Mutex::default(), max_pending: room.available_permits(), room: Arc::new(room) }
    }

    /// The producer of this queue, which `make` makes if there is none.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn of(
        &self,
        (queue, name): (&QueueId, &str),
        make: impl FnOnce() -> Result<Producer, Error>,
    ) -> Result<Producer, Error> {
        let mut producers = self.by_queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = producers.get(queue) {
            return Ok(known.producer.clone());
        }
        let made = make()?;
        producers.insert(queue.clone(), Named { name: name.to_owned(), producer: made.clone() });
        Ok(made)
    }

    /// The results so far by the id and the name of the queue; without queues that got no message yet.
    #[cfg(feature = "dashboard")]
    pub(crate) fn reports(&self) -> Vec<(QueueId, String, ProducerReport)> {
        let producers = self.by_queue.lock().unwrap_or_else(PoisonError::into_inner);
        producers
            .iter()
            .map(|(queue, Named { name, producer })| (queue.clone(), name.clone(), producer.report()))
            .collect()
    }

    /// The number of messages whose result is not known, and the maximum of it.
    #[cfg(feature = "dashboard")]
    pub(crate) fn pending(&self) -> (usize, usize) {
        (self.max_pending.saturating_sub(self.room.available_permits()), self.max_pending)
    }

    /// Room for a message until its result is known; `None` if there is none.
    pub(super) fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use dms_worker::{queue::NewQueue, testing::TestServer};

    #[tokio::test]
    async fn a_queue_has_one_producer_and_all_queues_share_the_room() {
        let server = TestServer::start().await;
        let queue = server.group(NewQueue::new("orders"), "g").await.queue_id().clone();
        let producers = Producers::new(2);
        let make = || Ok(Producer::builder(server.client(), queue.clone()).build().unwrap());
        producers.of((&queue, "orders"), make).unwrap();
        producers.of((&queue, "orders"), || panic!("it has one")).unwrap();
        let (first, second) = (producers.room(), producers.room());
        assert!(first.is_some() && second.is_some() && producers.room().is_none());
        #[cfg(feature = "dashboard")]
        assert_eq!((producers.pending(), producers.reports().len()), ((2, 2), 1));
        drop(first);
        assert!(producers.room().is_some());
    }
}
