//! [`WorkerBuilder`]: the options of a worker, their defaults, and the checks between them.

use std::{fmt, sync::Arc, time::Duration};

use dms_protocol::{internal::setting_checks::SettingChecks, settings::InvalidSettings};
use tower::Layer;

use crate::{
    client::Client,
    queue::TagFilter,
    wire::Dialect,
    worker::{
        dedup::identity::UniqueKey,
        failure::policy::{OnFailure, OnReject, OnUndecodable},
        fetch::rate_limit::Rate,
        handler::{
            Handler,
            batch::{BatchHandler, Batching},
            kind::HandlerKind,
            needed,
            service::{DeliveryService, HandlerService, ServiceHandler},
        },
        lifecycle::Worker,
        observe::event::{Observer, Observers},
        settings::{
            Settings,
            defaults::ExplicitSettings,
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
/// use dms_worker::{Client, Delivery, Worker, handler_fn};
///
/// let client = Client::builder("http://127.0.0.1:9400", "local").build()?;
/// let worker = Worker::builder(client)
///     .queue("orders")
///     .group("billing")
///     .handler(handler_fn(|delivery: Delivery| async move { Ok(println!("{:?}", delivery.body())) }))
///     .concurrency(64)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct WorkerBuilder {
    /// `None` in a builder whose settings are only checked.
    client: Option<Client>,
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
        WorkerBuilder::new(Some(client))
    }
}

impl WorkerBuilder {
    fn new(client: Option<Client>) -> Self {
        Self {
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

    /// The maximum number of messages in flight, including the capacity that polls have reserved. Default: 32.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.chosen.concurrency = Some(messages);
        self
    }

    /// The weight of the worker when the limit of a [`Runtime`](crate::runtime::Runtime) is scarce, 1-1000: it gets a
    /// share in proportion to the weights of the others. Default: 1. Without a shared limit the weight has no effect.
    pub fn weight(mut self, weight: u32) -> Self {
        self.settings.weight = weight;
        self
    }

    /// The maximum bytes of bodies in flight. Default: 64 MiB. A poll counts as 512 KiB, the most that it can bring,
    /// until it is answered.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_in_flight_bytes = bytes;
        self
    }

    /// The number of messages that a poll asks for (wire: `max_msgs`): 1-10, or [`MaxMessages::Auto`], the default.
    pub fn max_messages(mut self, messages: MaxMessages) -> Self {
        self.settings.max_messages = messages;
        self
    }

    /// How long a poll waits for a first message (wire: `time_wait`), in whole seconds, 1-60 s. Default: 20 s.
    pub fn poll_wait(mut self, wait: Duration) -> Self {
        self.settings.poll_wait = wait;
        self
    }

    /// The lease: how long the service waits for the acknowledgement of a batch. A `Duration` in whole seconds, 15-300
    /// s, or [`AckWait::Auto`]. Default: 30 s, or more if the handler timeout or the linger of a collected batch needs
    /// more.
    ///
    /// A handler has this time, less at least a second that is kept for the acknowledgement. A lease cannot be
    /// extended.
    pub fn ack_wait(mut self, wait: impl Into<AckWait>) -> Self {
        self.chosen.ack_wait = Some(wait.into());
        self
    }

    /// The maximum number of polls in flight. Default: `None`, which adapts the number to the load.
    pub fn pollers(mut self, max: impl Into<Option<usize>>) -> Self {
        self.settings.pollers = max.into();
        self
    }

    /// The handler timeout: a handler that takes longer is stopped. Default: `None`, which leaves a handler the
    /// lease except the time that the acknowledgement needs, at least a second.
    pub fn handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.handler_timeout = timeout.into();
        self
    }

    /// The grace period: how long handlers may continue after the shutdown signal. Default: 25 s.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// The order in which messages are handled. Default: [`Ordering::None`], which on a FIFO queue means strictly in
    /// order.
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.settings.ordering = ordering;
        self
    }

    /// The messages that share a call of a batch handler. Default: [`Batching::Consumed`], messages that were consumed
    /// together.
    pub fn batching(mut self, batching: Batching) -> Self {
        self.settings.batching = Some(batching);
        self
    }

    /// Consumes only messages with these labels. Default: all messages. The first consume call of a group fixes its label filter.
    pub fn tags(mut self, filter: TagFilter) -> Self {
        self.settings.filter = filter;
        self
    }

    /// Consumes the group's dead letters instead of the queue's messages.
    pub fn dead_letters(mut self) -> Self {
        self.settings.dead_letters = true;
        self
    }

    /// The policy for messages that failed. Default: [`OnFailure::Redeliver`].
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.settings.on_failure = policy;
        self
    }

    /// The policy for messages that were rejected. Default: [`OnReject::Fail`].
    pub fn on_reject(mut self, policy: OnReject) -> Self {
        self.settings.on_reject = policy;
        self
    }

    /// The attempts after which [`on_reject`](Self::on_reject) applies to a message that keeps failing. Default: over ROMA Connect
    /// MQS 5 if messages are parked, otherwise no limit but the queue's `max_consume_count`.
    ///
    /// The worker counts the failures that it sees, in memory, for an hour each and for 10,000 messages. So each replica has its own
    /// count, and a restart forgets it. Without a place or a unique key, messages with equal bodies share a count.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = Some(attempts);
        self
    }

    /// The policy for messages whose body could not be decoded. Default: [`OnUndecodable::Reject`], which treats them
    /// like other rejected messages.
    pub fn on_undecodable(mut self, policy: OnUndecodable) -> Self {
        self.settings.on_undecodable = policy;
        self
    }

    /// The rate limit for taking messages. Default: `None`, no limit.
    pub fn rate_limit(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.settings.rate_limit = rate.into();
        self
    }

    /// Whether the worker remembers finished work whose message may be redelivered, because a message before it failed
    /// or its acknowledgement was lost. The redelivery is then acknowledged without calling the handler again. Default:
    /// yes, if messages can be distinguished, either by the place in the queue that this project's server sends, or by
    /// [`unique_attribute`](Self::unique_attribute) or [`unique_pointer`](Self::unique_pointer).
    pub fn remember_finished(mut self, remember: bool) -> Self {
        self.settings.remember = remember;
        self
    }

    /// The name of an attribute whose value is unique to each message of the queue. Default: none. For services that do not send the
    /// place of a message.
    pub fn unique_attribute(mut self, name: impl Into<String>) -> Self {
        self.settings.unique_key = Some(UniqueKey::Attribute(name.into()));
        self
    }

    /// A JSON pointer into the body, such as `/order/id`, at which each message of the queue has a unique text or number. Default: none. For
    /// services whose messages have no attributes. It replaces [`unique_attribute`](Self::unique_attribute).
    pub fn unique_pointer(mut self, pointer: impl Into<String>) -> Self {
        self.settings.unique_key = Some(UniqueKey::Pointer(pointer.into()));
        self
    }

    /// The policy for the capacity of a handler that continues although it was stopped. Default:
    /// [`OnStuck::KeepPermit`].
    pub fn on_stuck(mut self, policy: OnStuck) -> Self {
        self.settings.on_stuck = policy;
        self
    }

    /// Puts a `tower` layer around the handler: one of [`layers`](crate::layers), or any other. The layer that is added
    /// last is the outermost, so it receives a delivery first. Default: no layer. Not for batch handlers.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<HandlerService> + Send + 'static,
        L::Service: DeliveryService,
    {
        self.layers
            .push(Box::new(move |handler| Arc::new(ServiceHandler::new(layer.layer(HandlerService::shared(handler))))));
        self
    }

    /// Adds an observer, which receives every event of the worker. Default: none.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.add(observer);
        self
    }

    /// Builds the worker. Settings that work but are probably a mistake are logged as warnings; see
    /// [`Worker::warnings`].
    ///
    /// # Errors
    /// Names the setting that is missing, or every setting that cannot work, with its value and the allowed values.
    pub fn build(self) -> Result<Worker, InvalidSettings> {
        let Self { client, queue, group, handler, layers, name, settings, chosen, observers } = self;
        let Some(client) = client else { return Err(missing("client")) };
        if queue.is_empty() {
            return Err(missing("queue"));
        }
        if group.is_empty() {
            return Err(missing("group"));
        }
        let Some(handler) = handler else { return Err(missing("handler")) };
        let (name, dialect) = (name.unwrap_or_else(|| queue.clone()), client.dialect());
        let settings = Settings { name, dialect, ..settings }.with_defaults(chosen);
        settings.check()?;
        let handler = match handler {
            HandlerKind::Batch(_) if !layers.is_empty() => {
                let problem =
                    "layers handle one message at a time: set WorkerBuilder::handler instead of batch_handler";
                return Err(SettingChecks::one("layer", problem));
            }
            HandlerKind::Single(_) if settings.batching.is_some() => {
                let problem = "needs a batch handler: set WorkerBuilder::batch_handler instead of handler";
                return Err(SettingChecks::one("batching", problem));
            }
            HandlerKind::Batch(handler) => HandlerKind::Batch(handler),
            HandlerKind::Single(handler) => {
                let apply = || layers.into_iter().fold(handler, |handler, layer| layer(handler));
                let (handler, attributes) = needed::collect(apply);
                if let Some(name) = attributes.first().filter(|_| dialect == Dialect::Mqs) {
                    let problem = format!(
                        "deduplicates by the attribute {name}, and messages of ROMA Connect MQS have none: use \
                         Deduplicate::by_pointer with a place in the body, such as /order/id"
                    );
                    return Err(SettingChecks::one("layer", problem));
                }
                HandlerKind::Single(handler)
            }
        };
        for warning in settings.warnings() {
            tracing::warn!(worker = settings.name, "{warning}");
        }
        Ok(Worker::new(Setup::new(client, queue, group, handler, settings, observers)))
    }
}

fn missing(setting: &str) -> InvalidSettings {
    SettingChecks::one(setting, format!("is not set: use WorkerBuilder::{setting}"))
}

/// Checks settings as they are set, for a client of this API. Defaults are not adapted to them.
///
/// # Errors
/// Names every setting that cannot work.
pub fn check_settings(
    dialect: Dialect,
    set: impl FnOnce(WorkerBuilder) -> WorkerBuilder,
) -> Result<(), InvalidSettings> {
    let WorkerBuilder { settings, chosen, .. } = set(WorkerBuilder::new(None));
    let settings = Settings {
        dialect,
        concurrency: chosen.concurrency.unwrap_or(settings.concurrency),
        ack_wait: chosen.ack_wait.unwrap_or(settings.ack_wait),
        ..settings
    };
    settings.check()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::worker::handler_fn;

    #[test]
    fn a_builder_names_what_was_not_set() {
        let builder = || Worker::builder(Client::builder("http://127.0.0.1:9400", "local").build().unwrap());
        let handler = || handler_fn(|| async { Ok(()) });
        let missing = [
            (builder().group("billing").handler(handler()), "queue"),
            (builder().queue("orders").handler(handler()), "group"),
            (builder().queue("orders").group("billing"), "handler"),
            (builder().queue("").group("billing").handler(handler()), "queue"),
        ];
        for (builder, name) in missing {
            let error = builder.build().unwrap_err();
            assert_eq!(error.all()[0].setting(), name);
            assert!(error.to_string().contains(&format!("WorkerBuilder::{name}")), "{error}");
        }
        let worker = builder().queue("orders").group("billing").handler(handler()).build().unwrap();
        assert_eq!(worker.handle().name(), "orders", "a worker is named after its queue");
    }
}
