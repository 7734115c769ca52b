//! Settings of a producer.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Bounds, Producer, ProducerMetrics, Stats, Trace,
    delivery::Delivery,
    owner::{Command, Owner},
};
use crate::{
    client::{Client, Error, SendOptions},
    limits::{self, LimitError, MAX_BYTES},
    queue::{Queue, QueueId, QueueMode},
    retry::RetryPolicy,
    trace_context::TraceContext,
};

/// Builds a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerBuilder {
    client: Client,
    queue: QueueId,
    name: Option<String>,
    metrics: ProducerMetrics,
    linger: Duration,
    max_in_flight: usize,
    max_messages: usize,
    max_bytes: usize,
    ordered: bool,
    options: SendOptions,
    retry: RetryPolicy,
    patience: Duration,
    trace: Trace,
}

impl ProducerBuilder {
    pub(super) fn new(client: Client, queue: QueueId) -> Self {
        Self {
            client,
            queue,
            name: None,
            metrics: ProducerMetrics::default(),
            linger: Duration::from_millis(5),
            max_in_flight: 4,
            max_messages: 10_000,
            max_bytes: 16 * 1024 * 1024,
            ordered: false,
            options: SendOptions::default(),
            retry: RetryPolicy::default(),
            patience: Duration::from_secs(30),
            trace: Trace::default(),
        }
    }

    /// Looks up the queue by its name or id, and keeps order if it is a FIFO queue.
    ///
    /// # Errors
    /// When there is no such queue, or the call fails.
    pub async fn find(client: Client, name_or_id: &str) -> Result<Self, Error> {
        let queue = client.find_queue(name_or_id).await?;
        Ok(Self::of(client, queue))
    }

    /// Begins a producer for a queue that was looked up: under its name in metrics and spans, and in order if it is a FIFO
    /// queue.
    pub fn of(client: Client, queue: Queue) -> Self {
        let ordered = queue.mode == QueueMode::Fifo;
        Self { name: Some(queue.name), ordered, ..Self::new(client, queue.id) }
    }

    /// Where the producer counts; nowhere by default. The label `queue` is the queue's name, or its id where only that is
    /// known.
    pub fn metrics(mut self, metrics: &ProducerMetrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// How long a message waits for others to share its request; 5 ms by default. A full request goes at once.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How many requests are on their way at a time; 4 by default. Ignored where order is kept.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// How many messages, and bytes of them, may be waiting or on their way before senders have to wait; 10 000
    /// messages and 16 MiB by default.
    pub fn max_pending(mut self, messages: usize, bytes: usize) -> Self {
        (self.max_messages, self.max_bytes) = (messages, bytes);
        self
    }

    /// Whether messages are stored in the order in which they were accepted; off by default, wanted for FIFO queues.
    /// One request is on its way at a time, and nothing overtakes one that is repeated.
    pub fn ordered(mut self, ordered: bool) -> Self {
        self.ordered = ordered;
        self
    }

    /// Whether the service gives each message's id; off by default.
    pub fn return_ids(mut self, on: bool) -> Self {
        self.options.return_ids = on;
        self
    }

    /// Whether a send whose fate is unknown is repeated, so that its messages may be stored twice; off by default:
    /// such a message fails with [`SendError::is_unsure`](super::SendError::is_unsure).
    pub fn allow_duplicates(mut self, on: bool) -> Self {
        self.options.allow_duplicates = on;
        self
    }

    /// The delays between tries. Their number is not bounded by it, but by [`patience`](Self::patience).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// How long a message is tried, from when it was accepted; 30 s by default.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks `current` for the trace that a message is made in, once for each message as it is accepted, and puts it into
    /// the attributes unless there is one. Off by default.
    pub fn trace_context(mut self, current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        self.trace = Trace(Some(Arc::new(current)));
        self
    }

    /// Starts the producer's task; must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a bound is zero or out of reason: 1 to 1024 requests, 1 to 1 000 000 messages, 512 KiB to 1 GiB, a
    /// linger of at most a minute, a patience of at most a day.
    pub fn build(self) -> Result<Producer, LimitError> {
        limits::in_range("max_in_flight", self.max_in_flight, &(1..=1024), " requests")?;
        limits::in_range("max_pending", self.max_messages, &(1..=limits::MAX_PENDING), " messages")?;
        limits::in_range("max_pending", self.max_bytes, &(MAX_BYTES..=1 << 30), " bytes")?;
        limits::seconds("linger", self.linger, &(0..=limits::MAX_LINGER.as_secs()))?;
        limits::seconds("patience", self.patience, &(0..=86_400))?;
        let name = self.name.unwrap_or_else(|| self.queue.to_string());
        let counters = Arc::new(self.metrics.counters(&name));
        let delivery = Delivery {
            client: self.client.clone(),
            queue: self.queue.clone(),
            name,
            counters: Arc::clone(&counters),
            options: self.options,
            retry: self.retry,
            patience: self.patience,
            abandon: CancellationToken::new(),
        };
        let in_flight = if self.ordered { 1 } else { self.max_in_flight };
        let stats = Arc::new(Stats::default());
        let (commands, received) = mpsc::unbounded_channel::<Command>();
        let owner = Owner::new(delivery, self.linger, in_flight, Arc::clone(&stats));
        tokio::spawn(owner.run(received));
        let bounds = Bounds {
            messages: Arc::new(Semaphore::new(self.max_messages)),
            bytes: Arc::new(Semaphore::new(self.max_bytes)),
            max_bytes: self.max_bytes,
        };
        let Self { client, queue, trace, .. } = self;
        Ok(Producer { client, queue, commands, bounds, stats, counters, trace })
    }
}
