//! The controls of a running worker: pause, resume, limits, stop, status. Shared by the worker and its handles.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::worker::{
    fetch::rate_limit::TokenBucket,
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
    pub(crate) inflight: Arc<InflightLimiter>,
    pub(crate) rate_limit: TokenBucket,
    /// How many messages a poll asks for.
    max_messages: Mutex<MaxMessages>,
    pub(crate) paused: watch::Sender<bool>,
    /// No more polls.
    pub(crate) stopping: CancellationToken,
    /// No more handlers either.
    pub(crate) interrupt: CancellationToken,
    pub(crate) counters: Arc<Counters>,
    /// How long handlers take.
    pub(crate) latency: Latency,
    pub(crate) health: Health,
    /// Why the worker cannot go on at present.
    failure: Mutex<Option<String>>,
    /// Handlers that go on although they were stopped.
    pub(crate) stuck: AtomicUsize,
    /// What was found likely not meant when the queue was looked up.
    warnings: Mutex<Vec<String>>,
}

impl Control {
    pub(crate) fn new(queue: String, group: String, settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            name: settings.name.clone(),
            queue,
            group,
            inflight: InflightLimiter::new(settings.concurrency, settings.max_in_flight_bytes),
            rate_limit: TokenBucket::new(settings.rate_limit),
            max_messages: Mutex::new(settings.max_messages),
            paused: watch::Sender::new(false),
            stopping: CancellationToken::new(),
            interrupt: CancellationToken::new(),
            counters: Arc::default(),
            latency: Latency::default(),
            health: Health::default(),
            failure: Mutex::default(),
            stuck: AtomicUsize::new(0),
            warnings: Mutex::default(),
        })
    }

    /// Whether nothing is to be fetched: the worker stops or is paused, or no message may be in flight.
    pub(crate) fn is_held(&self) -> bool {
        self.stopping.is_cancelled() || *self.paused.borrow() || self.inflight.is_shut()
    }

    /// Waits until the worker is held, or until it is not. A stop is for good. Cancel-safe.
    pub(crate) async fn until_held(&self, held: bool) {
        let (mut paused, mut shut) = (self.paused.subscribe(), self.inflight.subscribe());
        while self.is_held() != held {
            // The senders live as long as `self`.
            tokio::select! {
                () = self.stopping.cancelled(), if held => {}
                _ = paused.changed() => {}
                _ = shut.changed() => {}
            }
        }
    }

    /// Waits until fetching is not paused. Cancel-safe.
    pub(crate) async fn until_resumed(&self) {
        if !*self.paused.borrow() {
            return;
        }
        // The sender lives as long as `self`.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    /// What was found likely not meant when the queue was looked up.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_warnings(&self, warnings: Vec<String>) {
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = warnings;
    }

    /// Notes why the worker cannot go on, or that it can; gives what was noted before.
    pub(crate) fn set_failure(&self, reason: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.lock().unwrap_or_else(PoisonError::into_inner), reason)
    }

    /// The worker can go on: what kept it from that is over.
    pub(crate) fn works(&self) {
        if self.set_failure(None).is_some() {
            tracing::info!(worker = self.name, "the queue and the group are there: the worker goes on");
        }
    }

    /// Why the worker cannot go on at present.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_max_messages(&self, messages: MaxMessages) {
        *self.max_messages.lock().unwrap_or_else(PoisonError::into_inner) = messages;
    }

    /// How many messages a poll asks for.
    pub(crate) fn max_messages(&self) -> MaxMessages {
        *self.max_messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the service last answered a poll, and whether it is being asked.
#[derive(Debug, Default)]
pub(crate) struct Health {
    last_poll: Mutex<Option<Instant>>,
    /// Polls that are out, or that wait to be repeated.
    pub(crate) trying: AtomicUsize,
    /// Why the service refuses the key or the user, while that is waited out.
    refusal: Mutex<Option<String>>,
}

/// A poll that is out, or waits to be repeated.
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

    /// The service refuses the key or the user, and that is waited out until a poll is answered.
    pub(crate) fn refused(&self, reason: &impl ToString) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a poll was ever answered.
    pub(crate) fn has_polled(&self) -> bool {
        self.last_poll().is_some()
    }

    /// When a poll was answered last.
    pub(crate) fn last_poll(&self) -> Option<Instant> {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
