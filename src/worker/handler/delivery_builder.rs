//! [`DeliveryBuilder`]: deliveries for unit tests of handlers, without a worker or a server.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    later::after,
    message::{Attributes, Body, ReceivedMessage},
    worker::{
        attributes::ATTEMPTS,
        handler::delivery::{Deliveries, Delivery, Origin, Signals},
    },
};

/// Makes a [`Delivery`] for a test. By default it has a lease of 30 s, is the first attempt, and has no attributes.
///
/// ```
/// use dms_worker::worker::{Delivery, DeliveryBuilder, Handler, handler_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), serde_json::Error> {
/// let handler = handler_fn(|delivery: Delivery| async move { Ok(assert_eq!(delivery.json::<u64>()?, 7)) });
/// let delivery = DeliveryBuilder::json(&7)?.attribute("customer", "c1").build();
/// assert!(handler.handle(delivery).await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DeliveryBuilder {
    message: ReceivedMessage,
    queue: String,
    group: String,
    lease: Duration,
    retry: u32,
    signals: Signals,
}

impl DeliveryBuilder {
    /// A delivery with this body.
    pub fn new(body: Body) -> Self {
        let message = ReceivedMessage::new(body, Attributes::new(), Vec::new(), "made-by-hand");
        let (queue, group) = ("queue".to_owned(), "group".to_owned());
        Self { message, queue, group, lease: Duration::from_secs(30), retry: 0, signals: Signals::default() }
    }

    /// A delivery whose body is `value` as JSON.
    ///
    /// # Errors
    /// As [`Body::json`].
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Body::json(value).map(Self::new)
    }

    /// Adds an attribute.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.message.attributes.insert(name, value);
        self
    }

    /// Sets all attributes.
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.message.attributes = attributes;
        self
    }

    /// Adds a label.
    pub fn tag(mut self, label: impl Into<String>) -> Self {
        self.message.tags.push(label.into());
        self
    }

    /// The queue and the group of the delivery. Default: `queue` and `group`.
    pub fn origin(mut self, queue: impl Into<String>, group: impl Into<String>) -> Self {
        (self.queue, self.group) = (queue.into(), group.into());
        self
    }

    /// The number of the attempt, from 1. Default: 1.
    pub fn attempt(self, attempt: u32) -> Self {
        self.attribute(ATTEMPTS, attempt.saturating_sub(1))
    }

    /// The number of the retry within the lease. Default: 0, the first call.
    pub fn retry(mut self, retry: u32) -> Self {
        self.retry = retry;
        self
    }

    /// The time that the handler has, from [`build`](Self::build) on. Default: 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Makes [`Delivery::cancelled`] resolve at once.
    pub fn cancelled(self) -> Self {
        self.signals.cancelled.cancel();
        self
    }

    /// Makes [`Delivery::is_shutting_down`] return `true`.
    pub fn shutting_down(self) -> Self {
        self.signals.shutdown.cancel();
        self
    }

    /// Makes the delivery; its lease starts now.
    pub fn build(self) -> Delivery {
        let Self { message, queue, group, lease, retry, signals } = self;
        let origin = Arc::new(Origin { worker: queue.clone(), queue, group, in_order: false });
        let now = Instant::now();
        Deliveries::new(vec![message], origin, now, after(now, lease), signals).at(0).retried(retry)
    }
}
