//! The `workers` section: what each worker consumes, how, and how failures are handled.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::{
    deduplicate::Deduplicate,
    handler::Handler,
    values::{Auto, Rate, Span},
};
use dms_protocol::{limits::ACK_WAIT_SECS, queue::TagMode};
use dms_worker::{
    internal::{ACK_MARGIN, worker_defaults as defaults},
    retry::{InvalidRetryPolicy, RetryPolicy},
};

/// A worker: a queue's messages for one group, given to one handler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["queue", "group", "handler"]))]
pub struct Worker {
    /// Its name in logs and metrics, unique; `QUEUE/GROUP` by default.
    pub name: Option<String>,
    /// The queue's name or identifier; required.
    pub queue: String,
    /// The group's name or identifier; required.
    pub group: String,
    /// Which of the group's streams is read; `messages` by default.
    pub source: Source,
    /// The maximum number of messages per poll, 1-10; `auto` by default: as many as can start.
    pub max_messages: Auto<usize>,
    /// How long a poll waits for a message, 1-60 s; 20 s by default.
    pub poll_wait: Span,
    /// How long a batch may stay unacknowledged, 15-300 s; 30 s by default, or more where the
    /// handler's timeout needs more. `auto` is what the handler's timeout needs.
    pub ack_wait: Auto<Span>,
    /// Messages in flight, 1-100 000; 32 by default, and room for two batches where they are collected.
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: usize,
    /// Bytes of bodies in flight, at least 524 288, which a poll may bring; 67 108 864 by default.
    #[schemars(range(min = 524_288))]
    pub max_in_flight_bytes: usize,
    /// Its share of `limits` when capacity is scarce, relative to the other weights, 1-1000; 1 by default.
    pub weight: u32,
    /// Concurrent polls, at least 1; `auto` by default: one when idle, more as messages come.
    pub pollers: Auto<usize>,
    /// Which messages are handled in order; `none` by default: all run concurrently.
    pub ordering: Ordering,
    /// Labels to consume, at most 3; none by default: all messages.
    #[schemars(length(max = 3))]
    pub tags: Vec<String>,
    /// Whether one of the labels is enough (`or`, the default) or all are needed (`and`).
    pub tag_type: TagMode,
    /// What happens to a message whose handler failed; `redeliver` by default.
    pub on_failure: OnFailure,
    /// What happens to a message that its handler rejected; `fail` by default.
    pub on_reject: OnReject,
    /// The attempts after which `on_reject` applies to a message that keeps failing, at least 1, as this process counts them; by default
    /// 5 over ROMA Connect MQS where `on_reject` parks messages, otherwise none but the queue's `max_consume_count`.
    #[schemars(range(min = 1))]
    pub max_attempts: Option<u32>,
    /// Retries within the lease, before `on_failure`; none by default.
    pub retry: Option<Retry>,
    /// Messages with the same key are handled once; none by default.
    pub deduplicate: Option<Deduplicate>,
    /// The maximum rate, such as 200/s; no limit by default.
    pub rate_limit: Option<Rate>,
    /// Whether a redelivered message is acknowledged without calling the handler, if the handler has succeeded with it before;
    /// true by default.
    pub remember_finished: bool,
    /// An attribute whose value is different for every message, to tell them apart where the service sends no place in the
    /// queue; none by default.
    pub unique_attribute: Option<String>,
    /// A JSON pointer into the body, such as `/order/id`, whose value is different for every message, for services whose messages
    /// have no attributes; none by default.
    pub unique_pointer: Option<String>,
    /// The handler of messages; required.
    pub handler: Handler,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            name: None,
            queue: String::new(),
            group: String::new(),
            source: Source::default(),
            max_messages: Auto::Auto,
            poll_wait: defaults::POLL_WAIT.into(),
            ack_wait: Auto::Fixed(defaults::ACK_WAIT.into()),
            concurrency: defaults::CONCURRENCY,
            max_in_flight_bytes: defaults::MAX_IN_FLIGHT_BYTES,
            weight: defaults::WEIGHT,
            pollers: Auto::Auto,
            ordering: Ordering::default(),
            tags: Vec::new(),
            tag_type: TagMode::default(),
            on_failure: OnFailure::default(),
            on_reject: OnReject::default(),
            max_attempts: None,
            retry: None,
            deduplicate: None,
            rate_limit: None,
            remember_finished: true,
            unique_attribute: None,
            unique_pointer: None,
            handler: Handler::default(),
        }
    }
}

impl Worker {
    /// How long a batch may stay unacknowledged: for `auto` what the handler's timeout and linger need, within the service's limits.
    pub fn ack_wait(&self) -> Duration {
        match (self.ack_wait, self.handler.timeout()) {
            (Auto::Fixed(span), _) => span.get(),
            (Auto::Auto, None) => defaults::ACK_WAIT,
            (Auto::Auto, Some(timeout)) => {
                let time = timeout.get().saturating_add(self.handler.linger());
                // Twice the margin, as the timeout has to stay below the lease less the margin.
                let needed = time.saturating_add(ACK_MARGIN * 2).as_secs().saturating_add(1);
                Duration::from_secs(needed.clamp(*ACK_WAIT_SECS.start(), *ACK_WAIT_SECS.end()))
            }
        }
    }

    /// The name in logs and metrics.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{}/{}", self.queue, self.group))
    }
}

/// Which of a group's streams a worker reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The queue's messages. The default.
    #[default]
    Messages,
    /// The messages that failed too often in the group.
    DeadLetters,
}

/// Which messages are handled in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// No order: all messages may run concurrently. The default.
    #[default]
    None,
    /// Batches; the messages of one run one after the other.
    Batch,
    /// Messages with different values of this attribute; those with equal values run one after the other.
    KeyAttribute(String),
    /// The same by the text or number at this JSON pointer into the body, such as `/customer/id`.
    KeyPointer(String),
}

/// What happens to a message whose handler failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The message is reported as failed, and the service redelivers it. The default.
    #[default]
    Redeliver,
    /// A copy is sent with a delay, and the delivery is acknowledged.
    Republish(Republish),
}

/// How failed messages are sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Republish {
    /// Attempts in total, at least 1; 5 by default.
    #[schemars(range(min = 1))]
    pub max_attempts: u32,
    /// The delay before the second try, doubled for each further one; 10 s by default, at most 7 days. Each delay is drawn at random
    /// from the half below it.
    pub backoff: Span,
    /// The longest delay; 1 h by default, at most 7 days.
    pub max_backoff: Span,
    /// What happens after the last try; `fail` by default.
    pub then: Then,
}

impl Default for Republish {
    fn default() -> Self {
        Self { max_attempts: 5, backoff: Span::secs(10), max_backoff: Span::secs(3600), then: Then::default() }
    }
}

/// Retries within one lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts in total, at least 1; 3 by default.
    pub max_attempts: u32,
    /// The pause before the second try, doubled for each further one; 200 ms by default.
    pub backoff: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, backoff: Span::millis(200) }
    }
}

impl Retry {
    /// The same as a policy, half of each pause being jitter.
    ///
    /// # Errors
    /// When the pause is zero, or longer than the longest lease.
    pub fn policy(&self) -> Result<RetryPolicy, InvalidRetryPolicy> {
        let longest = Duration::from_secs(*ACK_WAIT_SECS.end());
        RetryPolicy::try_new(self.backoff.get(), longest, 2.0, 0.5).map(|policy| policy.max_attempts(self.max_attempts))
    }
}

/// What happens to a message after its last try.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The message is reported as failed. The default.
    #[default]
    Fail,
    /// The message is sent to this queue, and the delivery is acknowledged.
    Park(String),
}

/// What happens to a message that its handler rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The message is reported as failed. The default.
    #[default]
    Fail,
    /// The message is sent to this queue, and the delivery is acknowledged.
    Park(String),
    /// The message is acknowledged and dropped.
    Discard,
}
