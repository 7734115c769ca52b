//! [`ProducerBuilder`]: the settings of a producer.

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
    wire::Dialect,
};

/// Builds a [`Producer`].
///
/// ```
/// use std::time::Duration;
/// use dms_worker::{ProducerBuilder, queue::NewQueue, testing::TestServer};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     server.client().create_queue(NewQueue::new("orders")).await?;
///
///     let producer = ProducerBuilder::find(server.client(), "orders").await?
///         .linger(Duration::from_millis(20))
///         .max_pending(1_000, 1024 * 1024)
///         .delivery_timeout(Duration::from_secs(60))
///         .build()?;
///     producer.close(Duration::from_secs(5)).await;
///     Ok(())
/// }
/// ```
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
    delivery_timeout: Duration,
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
            max_in_flight: 16,
            max_messages: 10_000,
            max_bytes: 16 * 1024 * 1024,
            ordered: false,
            options: SendOptions::default(),
            retry: RetryPolicy::default(),
            delivery_timeout: Duration::from_secs(30),
            trace: Trace::default(),
        }
    }

    /// Looks up the queue by its name or id. The producer keeps the order if it is a FIFO queue.
    ///
    /// # Errors
    /// When there is no such queue, or the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn find(client: Client, name_or_id: &str) -> Result<Self, Error> {
        let queue = client.find_queue(name_or_id).await?;
        Ok(Self::of(client, queue))
    }

    /// Starts a producer for a queue that was looked up. Its name appears in metrics and spans, and the producer keeps
    /// the order if it is a FIFO queue.
    pub fn of(client: Client, queue: Queue) -> Self {
        let ordered = queue.mode == QueueMode::Fifo;
        Self { name: Some(queue.name), ordered, ..Self::new(client, queue.id) }
    }

    /// The metrics of the producer; none by default. The label `queue` is the queue's name, or its id if the name is
    /// not known.
    pub fn metrics(mut self, metrics: &ProducerMetrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// How long a message waits for others to share its request; 5 ms by default. A full request is sent at once.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The most concurrent requests, 1-1024; 16 by default. Ignored if the producer is [`ordered`](Self::ordered).
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// The most messages, and the most bytes, that may be pending (waiting or in flight) before senders have to wait;
    /// 10 000 messages and 16 MiB by default.
    pub fn max_pending(mut self, messages: usize, bytes: usize) -> Self {
        (self.max_messages, self.max_bytes) = (messages, bytes);
        self
    }

    /// Whether messages are stored in the order in which they were accepted; off by default. Set it for FIFO queues.
    /// The producer then sends one request at a time, and later messages wait while it is retried.
    pub fn ordered(mut self, ordered: bool) -> Self {
        self.ordered = ordered;
        self
    }

    /// Whether the service returns the id of each message; off by default.
    pub fn return_ids(mut self, on: bool) -> Self {
        self.options.return_ids = on;
        self
    }

    /// Whether a send is repeated if it may have been stored already, so that its messages may be stored twice. Off by
    /// default: such a message fails with [`SendError::is_unsure`](super::SendError::is_unsure).
    pub fn allow_duplicates(mut self, on: bool) -> Self {
        self.options.allow_duplicates = on;
        self
    }

    /// The delays between tries; by default 200 ms, doubled up to 10 s, and half of each is random.
    /// [`delivery_timeout`](Self::delivery_timeout) bounds their number, not the policy.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// How long the producer tries to send a message, from its acceptance; 30 s by default.
    pub fn delivery_timeout(mut self, delivery_timeout: Duration) -> Self {
        self.delivery_timeout = delivery_timeout;
        self
    }

    /// Refuses what ROMA Connect MQS cannot do.
    fn check_dialect(&self) -> Result<(), LimitError> {
        let refuse = |what, value: &str, allowed: &str| {
            Err(LimitError {
                what,
                value: value.to_owned(),
                allowed: format!("ROMA Connect MQS {allowed}; leave it out"),
            })
        };
        match self.client.dialect() {
            Dialect::Mqs if self.options.return_ids => refuse("return_ids", "true", "returns no ids"),
            Dialect::Mqs if self.trace.0.is_some() => refuse("trace_context", "set", "carries no attributes"),
            _ => Ok(()),
        }
    }

    /// Calls `current` for each message that is accepted, and adds the trace context that it returns to the attributes,
    /// unless the message has one. Off by default.
    pub fn trace_context(mut self, current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        self.trace = Trace(Some(Arc::new(current)));
        self
    }

    /// Starts the producer's task.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Errors
    /// When a setting is outside its limits: 1 to 1024 requests, 1 to 1 000 000 messages, 512 KiB to 1 GiB, a linger of
    /// at most a minute, a delivery timeout of at most a day.
    pub fn build(self) -> Result<Producer, LimitError> {
        limits::in_range("max_in_flight", self.max_in_flight, &(1..=1024), " requests")?;
        limits::in_range("max_pending", self.max_messages, &(1..=limits::MAX_PENDING), " messages")?;
        limits::in_range("max_pending", self.max_bytes, &(MAX_BYTES..=1 << 30), " bytes")?;
        limits::seconds("linger", self.linger, &(0..=limits::MAX_LINGER.as_secs()))?;
        limits::seconds("delivery_timeout", self.delivery_timeout, &(0..=86_400))?;
        self.check_dialect()?;
        let name = self.name.unwrap_or_else(|| self.queue.to_string());
        let counters = Arc::new(self.metrics.counters(&name));
        let delivery = Delivery {
            client: self.client.clone(),
            queue: self.queue.clone(),
            name,
            counters: Arc::clone(&counters),
            options: self.options,
            retry: self.retry,
            delivery_timeout: self.delivery_timeout,
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
