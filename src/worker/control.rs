//! [`Control`]: the state that a running worker shares with its handles, for pause, resume, limits, stop and status.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::worker::{
    fetch::rate_limit::TokenBucket,
    isolation::Isolated,
    limit::inflight::InflightLimiter,
    observe::{latency::Latency, report::Counters},
    settings::{Settings, values::MaxMessages},
};

/// What a worker and its handles share.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) group: String,
    /// Its weight at a limit that other workers share.
    pub(crate) weight: u32,
    /// Whether the worker waits for a missing queue from the start, and retries after every refusal except of an unknown key.
    pub(crate) persistent: AtomicBool,
    pub(crate) inflight: Arc<InflightLimiter>,
    pub(crate) rate_limit: TokenBucket,
    /// The number of messages that a poll asks for.
    max_messages: Mutex<MaxMessages>,
    pub(crate) paused: watch::Sender<bool>,
    /// Cancelled when no more polls may be sent.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when running handlers have to stop, too.
    pub(crate) interrupt: CancellationToken,
    /// The grace period of the shutdown.
    grace: Mutex<Duration>,
    pub(crate) counters: Arc<Counters>,
    /// How long handlers take.
    pub(crate) latency: Latency,
    pub(crate) health: Health,
    /// Why the worker cannot continue at present.
    failure: Mutex<Option<String>>,
    /// The number of handlers that continue although they were stopped.
    pub(crate) stuck: AtomicUsize,
    /// Settings that are probably a mistake, found when the queue was looked up.
    warnings: Mutex<Vec<String>>,
    /// The messages that are fetched one at a time.
    pub(crate) isolated: Arc<Mutex<Isolated>>,
}

impl Control {
    pub(crate) fn new(queue: String, group: String, settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            name: settings.name.clone(),
            queue,
            group,
            weight: settings.weight,
            persistent: AtomicBool::new(false),
            inflight: InflightLimiter::new(settings.concurrency, settings.max_in_flight_bytes),
            rate_limit: TokenBucket::new(settings.rate_limit),
            max_messages: Mutex::new(settings.max_messages),
            paused: watch::Sender::new(false),
            stopping: CancellationToken::new(),
            interrupt: CancellationToken::new(),
            grace: Mutex::new(settings.grace),
            counters: Arc::default(),
            latency: Latency::default(),
            health: Health::default(),
            failure: Mutex::default(),
            stuck: AtomicUsize::new(0),
            warnings: Mutex::default(),
            isolated: Arc::default(),
        })
    }

    /// Whether nothing may be fetched: the worker is stopping or paused, or its concurrency is zero.
    pub(crate) fn is_suspended(&self) -> bool {
        self.stopping.is_cancelled() || *self.paused.borrow() || self.inflight.is_shut()
    }

    /// Waits until [`is_suspended`](Self::is_suspended) is `suspended`. A stop is final. Cancel-safe.
    pub(crate) async fn until_suspended(&self, suspended: bool) {
        let (mut paused, mut shut) = (self.paused.subscribe(), self.inflight.subscribe());
        while self.is_suspended() != suspended {
            // The senders live as long as `self`.
            tokio::select! {
                () = self.stopping.cancelled(), if suspended => {}
                _ = paused.changed() => {}
                _ = shut.changed() => {}
            }
        }
    }

    /// Waits until the worker is not paused. Cancel-safe.
    pub(crate) async fn until_resumed(&self) {
        if !*self.paused.borrow() {
            return;
        }
        // The sender lives as long as `self`.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    /// Settings that are probably a mistake, found when the queue was looked up.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_warnings(&self, warnings: Vec<String>) {
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = warnings;
    }

    /// Sets or clears the reason why the worker cannot continue, and returns the previous one.
    pub(crate) fn set_failure(&self, reason: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.lock().unwrap_or_else(PoisonError::into_inner), reason)
    }

    /// Clears the reason why the worker could not continue.
    pub(crate) fn works(&self) {
        if self.set_failure(None).is_some() {
            tracing::info!(worker = self.name, "the queue and the group exist, so the worker continues");
        }
    }

    /// Why the worker cannot continue at present.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The grace period of the shutdown.
    pub(crate) fn grace(&self) -> Duration {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_grace(&self, grace: Duration) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
    }

    pub(crate) fn set_max_messages(&self, messages: MaxMessages) {
        *self.max_messages.lock().unwrap_or_else(PoisonError::into_inner) = messages;
    }

    /// The number of messages that a poll asks for.
    pub(crate) fn max_messages(&self) -> MaxMessages {
        *self.max_messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the service last answered a poll, and whether a poll is in progress.
#[derive(Debug, Default)]
pub(crate) struct Health {
    last_poll: Mutex<Option<Instant>>,
    /// Polls in flight, and polls that wait to be retried.
    pub(crate) trying: AtomicUsize,
    /// Why the service refuses the key or the user, while the worker waits for that to change.
    refusal: Mutex<Option<String>>,
}

/// Guard of a poll that is in flight or waits to be retried.
pub(crate) struct PollAttempt<'a>(&'a Health);

impl Drop for PollAttempt<'_> {
    fn drop(&mut self) {
        self.0.trying.fetch_sub(1, Relaxed);
    }
}

impl Health {
    /// Counts a poll until the guard is dropped.
    pub(crate) fn trying(&self) -> PollAttempt<'_> {
        self.trying.fetch_add(1, Relaxed);
        PollAttempt(self)
    }

    /// A poll was answered.
    pub(crate) fn polled(&self) {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The service refuses the key or the user, and the worker waits for that to change.
    pub(crate) fn refused(&self, reason: &impl ToString) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the service has ever answered a poll.
    pub(crate) fn has_polled(&self) -> bool {
        self.last_poll().is_some()
    }

    /// When the service last answered a poll.
    pub(crate) fn last_poll(&self) -> Option<Instant> {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
