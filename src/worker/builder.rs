//! Sets up a worker: every option with its default, and the checks between them.

use std::{sync::Arc, time::Duration};

use tower::Layer;

use crate::{
    client::Client,
    queue::TagFilter,
    worker::{
        Worker,
        failure::{OnFailure, OnReject, OnUndecodable},
        fetch::rate_limit::Rate,
        handler::{
            Handler,
            batch::{BatchHandler, Batching},
            service::{DeliveryService, HandlerService, ServiceHandler},
        },
        observe::event::{Observer, Observers},
        settings::{AckWait, InvalidSettings, MaxMessages, OnStuck, Ordering, Settings, defaults::Chosen},
    },
};

/// Sets up a [`Worker`]; made by [`Worker::builder`].
#[derive(Debug)]
#[must_use]
pub struct WorkerBuilder {
    client: Client,
    queue: String,
    group: String,
    handler: Handling,
    settings: Settings,
    chosen: Chosen,
    observers: Observers,
    /// A layer was put around a batch handler.
    misplaced_layer: bool,
}

/// A handler of one kind or the other, which need not have a `Debug` of its own.
#[derive(Clone)]
pub(crate) enum Handling {
    /// Of one message at a time.
    Single(Arc<dyn Handler>),
    /// Of several messages in one call.
    Batch(Arc<dyn BatchHandler>),
}

impl std::fmt::Debug for Handling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Handler",
            Self::Batch(_) => "BatchHandler",
        })
    }
}

impl WorkerBuilder {
    pub(crate) fn new(client: Client, queue: String, group: String, handler: Handling) -> Self {
        let settings = Settings { name: queue.clone(), ..Settings::default() };
        Self {
            client,
            queue,
            group,
            handler,
            settings,
            chosen: Chosen::default(),
            observers: Observers::default(),
            misplaced_layer: false,
        }
    }

    /// The worker's name in logs, metrics and parked messages. Default: the queue.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
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

    /// Puts a `tower` layer around the handler: one of [`layers`](crate::layers), or any other. The one that is added last is the
    /// outermost: it sees a delivery first. Not for batch handlers.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<HandlerService>,
        L::Service: DeliveryService,
    {
        match self.handler {
            Handling::Single(handler) => {
                let service = layer.layer(HandlerService::shared(handler));
                self.handler = Handling::Single(Arc::new(ServiceHandler::new(service)));
            }
            Handling::Batch(_) => self.misplaced_layer = true,
        }
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
    /// Names the setting that cannot work, its value, and what is allowed.
    pub fn build(self) -> Result<Worker, InvalidSettings> {
        let Self { client, queue, group, handler, settings, chosen, observers, misplaced_layer } = self;
        let settings = settings.following(chosen);
        settings.check()?;
        if misplaced_layer {
            return Err(InvalidSettings::LayerOfBatches);
        }
        if matches!(handler, Handling::Single(_)) && settings.batching.is_some() {
            return Err(InvalidSettings::BatchingOfSingles);
        }
        for warning in settings.warnings() {
            tracing::warn!(worker = settings.name, "{warning}");
        }
        Ok(Worker::new(client, queue, group, handler, settings, observers))
    }
}
