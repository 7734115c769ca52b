//! Sets up a worker: every option with its default, and the checks between them.

use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

use crate::{
    client::Client,
    queue::TagFilter,
    worker::{
        failure::policy::{OnFailure, OnReject, OnUndecodable},
        fetch::rate_limit::Rate,
        handler::{
            Handler,
            batch::{BatchHandler, Batching},
            kind::HandlerKind,
            service::{DeliveryService, HandlerService, ServiceHandler},
        },
        lifecycle::Worker,
        observe::event::{Observer, Observers},
        settings::{
            Settings,
            defaults::ExplicitSettings,
            invalid::InvalidSettings,
            ordering::Ordering,
            values::{AckWait, MaxMessages, OnStuck},
        },
        setup::Setup,
    },
};

/// Sets up a [`Worker`]; made by [`Worker::builder`].
///
/// The queue, the group and a handler have to be set; everything else has a default.
///
/// ```
/// use dms_worker::{Client, Worker, worker::handler_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://127.0.0.1:9400", "local").build()?;
/// let worker = Worker::builder(client)
///     .queue("orders")
///     .group("billing")
///     .handler(handler_fn(|delivery| async move { Ok(println!("{:?}", delivery.body())) }))
///     .concurrency(64)
///     .build()?;
/// # drop(worker);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct WorkerBuilder {
    client: Client,
    queue: String,
    group: String,
    handler: Option<HandlerKind>,
    layers: Vec<AnyLayer>,
    name: Option<String>,
    settings: Settings,
    chosen: ExplicitSettings,
    observers: Observers,
}

/// A `tower` layer whose type is erased.
type AnyLayer = Box<dyn FnOnce(Arc<dyn Handler>) -> Arc<dyn Handler> + Send>;

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("queue", &self.queue)
            .field("group", &self.group)
            .field("handler", &self.handler)
            .field("layers", &self.layers.len())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Sets up a worker that consumes with this client.
    pub fn builder(client: Client) -> WorkerBuilder {
        WorkerBuilder {
            client,
            queue: String::new(),
            group: String::new(),
            handler: None,
            layers: Vec::new(),
            name: None,
            settings: Settings::default(),
            chosen: ExplicitSettings::default(),
            observers: Observers::default(),
        }
    }
}

impl WorkerBuilder {
    /// The queue to consume, by name or id. Required.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = queue.into();
        self
    }

    /// The consumer group to consume for, by name or id. Required.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// The handler, called with one message at a time. Required, unless a [`batch_handler`](Self::batch_handler) is set; the handler
    /// that is set last counts.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(HandlerKind::Single(Arc::new(handler)));
        self
    }

    /// A handler that is called with several messages at a time; [`batching`](Self::batching) says which.
    pub fn batch_handler(mut self, handler: impl BatchHandler) -> Self {
        self.handler = Some(HandlerKind::Batch(Arc::new(handler)));
        self
    }

    /// The worker's name in logs, metrics and parked messages. Default: the queue.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many messages may be in flight, polls' reservations included. Default: 32.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.chosen.concurrency = Some(messages);
        self
    }

    /// How much of a [`Runtime`](crate::runtime::Runtime)'s ceiling the worker gets when that is scarce, in proportion to the weights
    /// of the others: 1-1000. Default: 1. Without a ceiling it means nothing.
    pub fn weight(mut self, weight: u32) -> Self {
        self.settings.weight = weight;
        self
    }

    /// How many bytes of bodies may be in flight. Default: 64 MiB. A poll may bring 512 KiB and counts as that much.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_in_flight_bytes = bytes;
        self
    }

    /// How many messages a poll asks for (wire: `max_msgs`): 1-10, or [`MaxMessages::Auto`], the default.
    pub fn max_messages(mut self, messages: MaxMessages) -> Self {
        self.settings.max_messages = messages;
        self
    }

    /// How long a poll waits for a first message (wire: `time_wait`), in whole seconds, 1-60 s. Default: 20 s.
    pub fn poll_wait(mut self, wait: Duration) -> Self {
        self.settings.poll_wait = wait;
        self
    }

    /// How long the service waits for a batch's acknowledgement: a `Duration` in whole seconds, 15-300 s, or
    /// [`AckWait::Auto`]. Default: 30 s, or more where the handler's timeout or the linger of a collected batch needs more.
    ///
    /// This is all the time a handler has, less a second or more for the acknowledgement: it cannot be extended.
    pub fn ack_wait(mut self, wait: impl Into<AckWait>) -> Self {
        self.chosen.ack_wait = Some(wait.into());
        self
    }

    /// The most polls that may be out at a time; `None`, the default, lets the worker find out.
    pub fn pollers(mut self, most: impl Into<Option<usize>>) -> Self {
        self.settings.pollers = most.into();
        self
    }

    /// Stops a handler that takes longer; `None`, the default, leaves it all of the lease.
    pub fn handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.handler_timeout = timeout.into();
        self
    }

    /// How long handlers may go on after the shutdown signal. Default: 25 s.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// In which order messages are handled. Default: [`Ordering::None`], which on a FIFO queue means strictly in order.
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.settings.ordering = ordering;
        self
    }

    /// Which messages share a call of a batch handler. Default: [`Batching::Consumed`], those that were consumed together.
    pub fn batching(mut self, batching: Batching) -> Self {
        self.settings.batching = Some(batching);
        self
    }

    /// Consumes only messages with these labels. The service fixes a group's rule with its first consume.
    pub fn tags(mut self, filter: TagFilter) -> Self {
        self.settings.filter = filter;
        self
    }

    /// Consumes the group's dead letters instead of the queue's messages.
    pub fn dead_letters(mut self) -> Self {
        self.settings.dead_letters = true;
        self
    }

    /// What becomes of a message that failed. Default: [`OnFailure::Redeliver`].
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.settings.on_failure = policy;
        self
    }

    /// What becomes of a message that was rejected. Default: [`OnReject::Fail`].
    pub fn on_reject(mut self, policy: OnReject) -> Self {
        self.settings.on_reject = policy;
        self
    }

    /// What becomes of a message whose body could not be decoded. Default: [`OnUndecodable::Reject`], the same as of every reject.
    pub fn on_undecodable(mut self, policy: OnUndecodable) -> Self {
        self.settings.on_undecodable = policy;
        self
    }

    /// Takes at most so many messages per time; `None`, the default, takes them as fast as they can be handled.
    pub fn rate_limit(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.settings.rate_limit = rate.into();
        self
    }

    /// Whether work that was finished behind a failure, or whose acknowledgement was lost, is remembered, so that its redelivery
    /// is acknowledged without running the handler again. Default: yes, where messages can be told apart: by the place in
    /// the queue that this project's server sends, or by [`unique_attribute`](Self::unique_attribute).
    pub fn remember_finished(mut self, remember: bool) -> Self {
        self.settings.remember = remember;
        self
    }

    /// Names an attribute whose value is different for every message of the queue, for services that send no place.
    pub fn unique_attribute(mut self, name: impl Into<String>) -> Self {
        self.settings.unique_attribute = Some(name.into());
        self
    }

    /// What becomes of the place of a handler that goes on although it was stopped. Default: [`OnStuck::KeepPlace`].
    pub fn on_stuck(mut self, policy: OnStuck) -> Self {
        self.settings.on_stuck = policy;
        self
    }

    /// Puts a `tower` layer around the handler: one of [`layers`](crate::layers), or any other. The layer that is added last is the
    /// outermost: it sees a delivery first. Not for batch handlers.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<HandlerService> + Send + 'static,
        L::Service: DeliveryService,
    {
        self.layers
            .push(Box::new(move |handler| Arc::new(ServiceHandler::new(layer.layer(HandlerService::shared(handler))))));
        self
    }

    /// Tells this observer every event.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.add(observer);
        self
    }

    /// Checks the settings. What will work but is likely not meant is logged as a warning; see [`Worker::warnings`].
    ///
    /// # Errors
    /// Names the setting that is missing or cannot work, its value, and what is allowed.
    pub fn build(self) -> Result<Worker, InvalidSettings> {
        let Self { client, queue, group, handler, layers, name, settings, chosen, observers } = self;
        if queue.is_empty() {
            return Err(InvalidSettings::Missing("queue"));
        }
        if group.is_empty() {
            return Err(InvalidSettings::Missing("group"));
        }
        let Some(handler) = handler else { return Err(InvalidSettings::Missing("handler")) };
        let settings = Settings { name: name.unwrap_or_else(|| queue.clone()), ..settings }.with_defaults(chosen);
        settings.check()?;
        let handler = match handler {
            HandlerKind::Batch(_) if !layers.is_empty() => return Err(InvalidSettings::LayerOfBatches),
            HandlerKind::Single(_) if settings.batching.is_some() => return Err(InvalidSettings::BatchingOfSingles),
            HandlerKind::Batch(handler) => HandlerKind::Batch(handler),
            HandlerKind::Single(handler) => {
                HandlerKind::Single(layers.into_iter().fold(handler, |handler, layer| layer(handler)))
            }
        };
        for warning in settings.warnings() {
            tracing::warn!(worker = settings.name, "{warning}");
        }
        Ok(Worker::new(Setup::new(client, queue, group, handler, settings, observers)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::worker::handler_fn;

    #[test]
    fn a_builder_names_what_was_not_set() {
        let builder = || Worker::builder(Client::builder("http://127.0.0.1:9400", "local").build().unwrap());
        let handler = || handler_fn(|_| async { Ok(()) });
        let missing = [
            (builder().group("billing").handler(handler()), "queue"),
            (builder().queue("orders").handler(handler()), "group"),
            (builder().queue("orders").group("billing"), "handler"),
            (builder().queue("").group("billing").handler(handler()), "queue"),
        ];
        for (builder, name) in missing {
            let error = builder.build().unwrap_err();
            assert_eq!(error, InvalidSettings::Missing(name));
            assert!(error.to_string().contains(&format!("WorkerBuilder::{name}")), "{error}");
        }
        let worker = builder().queue("orders").group("billing").handler(handler()).build().unwrap();
        assert_eq!(worker.handle().name(), "orders", "a worker is named after its queue");
    }
}
