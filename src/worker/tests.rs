//! The worker with a scripted source, under the paused clock.

#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, advance},
};

mod acknowledging;
mod batch_handlers;
mod copies;
mod extensions;
mod fetching;
mod order;
mod policies;
mod quick_handlers;
mod redeliveries;
mod shutdown;
mod steering;
mod stops;
mod users_panics;

use super::{
    attributes::{ATTEMPTS, DEFERRED, ERROR, FIRST_FAILURE, LAST_FAILURE, ORIGIN, REASON, WORKER},
    control::Control,
    failure::{FailurePolicy, exhausted::ExhaustedMessages, parking::ParkingQueues, reject_pauses::RejectPauses},
    fetch::source::Source,
    handler::kind::HandlerKind,
    observe::event::Observers,
    pipeline::{context::Context, drain::drain, poller},
    settings::Settings,
    *,
};
use crate::{
    client::{Acked, Consumed, Error, Extensions, PollId},
    message::{AckLine, AckStatus, Attributes, Body, FailureReport, Message, ReceivedMessage},
    queue::QueueId,
    worker::{dedup::identity::UniqueKey, failure::attempts::AttemptCounts},
};

/// An acknowledgement: when it was sent, and its lines.
type Sent = (Duration, Vec<(String, AckStatus)>);

/// A service that returns the configured batches, one per poll, and records the requests.
#[derive(Debug)]
struct Script {
    began: Instant,
    batches: Mutex<VecDeque<Vec<ReceivedMessage>>>,
    more: Notify,
    /// When each poll was sent, and for how many messages.
    asked: Mutex<Vec<(Duration, usize)>>,
    out: AtomicUsize,
    acks: Mutex<Vec<Sent>>,
    /// How long the reply to an acknowledgement takes.
    ack_takes: Mutex<Duration>,
    forwarded: Mutex<Vec<Message>>,
    /// How many polls will panic.
    deadly: AtomicUsize,
    /// How many acknowledgements will panic.
    deadly_acks: AtomicUsize,
    extensions: Mutex<Extensions>,
    /// The failures that acknowledgements reported.
    failures: Mutex<Vec<(String, FailureReport)>>,
    /// The polls that were ended, and the number of such requests that will be lost.
    ended: Mutex<Vec<String>>,
    deaf: AtomicUsize,
    /// Notifies the polls that one was ended.
    ends: Notify,
    /// How long the reply to a poll with messages takes.
    answer_takes: Mutex<Duration>,
    /// Whether it does not say how long polls have waited.
    hides_waits: AtomicBool,
    /// The number of polls that were dropped before they were answered.
    abandoned: AtomicUsize,
    /// The number of acknowledgements with extensions that will be refused.
    refuses_extensions: AtomicUsize,
    refuses_copies: AtomicBool,
}

impl Script {
    fn new(batches: &[&[&'static str]]) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            batches: Mutex::new(batches.iter().map(|batch| messages(batch)).collect()),
            more: Notify::new(),
            asked: Mutex::default(),
            out: AtomicUsize::new(0),
            acks: Mutex::default(),
            ack_takes: Mutex::default(),
            forwarded: Mutex::default(),
            deadly: AtomicUsize::new(0),
            deadly_acks: AtomicUsize::new(0),
            extensions: Mutex::default(),
            failures: Mutex::default(),
            ended: Mutex::default(),
            deaf: AtomicUsize::new(0),
            ends: Notify::new(),
            answer_takes: Mutex::default(),
            hides_waits: AtomicBool::new(false),
            abandoned: AtomicUsize::new(0),
            refuses_extensions: AtomicUsize::new(0),
            refuses_copies: AtomicBool::new(false),
        })
    }

    /// Supports ending polls, so that tests with a running clock need not wait for the last one.
    fn ends_polls(&self) {
        *self.extensions.lock().unwrap() = Extensions::ALL;
    }

    /// Adds a batch.
    fn push(&self, batch: &[&'static str]) {
        self.batches.lock().unwrap().push_back(messages(batch));
        self.more.notify_one();
    }

    /// Adds a message.
    fn push_message(&self, message: ReceivedMessage) {
        self.push_batch(vec![message]);
    }

    fn push_batch(&self, batch: Vec<ReceivedMessage>) {
        self.batches.lock().unwrap().push_back(batch);
        self.more.notify_one();
    }

    fn acks(&self) -> Vec<Vec<(String, AckStatus)>> {
        self.acks.lock().unwrap().iter().map(|(_, list)| list.clone()).collect()
    }

    fn ack_times(&self) -> Vec<Duration> {
        self.acks.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

/// Counts a poll as in flight until it is answered or dropped.
struct Out<'a> {
    script: &'a Script,
    answered: bool,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.script.out.fetch_sub(1, SeqCst);
        if !self.answered {
            self.script.abandoned.fetch_add(1, SeqCst);
        }
    }
}

#[async_trait]
impl Source for Script {
    async fn receive(&self, want: usize, wait: Duration, _: Duration, poll: &PollId) -> Result<Consumed, Error> {
        let sent = Instant::now();
        self.asked.lock().unwrap().push((self.began.elapsed(), want));
        if self.deadly.fetch_update(SeqCst, SeqCst, |more| more.checked_sub(1)).is_ok() {
            panic!("planted");
        }
        self.out.fetch_add(1, SeqCst);
        let mut out = Out { script: self, answered: false };
        let next = || {
            let mut batches = self.batches.lock().unwrap();
            let mut batch = batches.pop_front()?;
            if batch.len() > want {
                batches.push_front(batch.split_off(want));
            }
            Some(batch)
        };
        let until = Instant::now() + wait;
        loop {
            let (more, ends) = (self.more.notified(), self.ends.notified());
            if let Some(messages) = next() {
                let takes = *self.answer_takes.lock().unwrap();
                if !takes.is_zero() {
                    tokio::time::sleep(takes).await;
                }
                out.answered = true;
                let waited = (!self.hides_waits.load(SeqCst)).then(|| sent.elapsed());
                return Ok(Consumed { messages, sent, waited });
            }
            let is_ended = self.ended.lock().unwrap().iter().any(|ended| ended == poll.as_str());
            let deaf = self.deaf.load(SeqCst) > 0;
            let waited = tokio::select! {
                waited = tokio::time::timeout_at(until, more) => waited.is_ok(),
                () = ends, if !is_ended || deaf => true,
                () = std::future::ready(()), if is_ended && !deaf => false,
            };
            if !waited {
                out.answered = true;
                return Ok(Consumed { messages: Vec::new(), sent, waited: None });
            }
        }
    }

    async fn end_polls(&self, polls: &[PollId]) -> Result<(), Error> {
        self.ended.lock().unwrap().extend(polls.iter().map(|poll| poll.as_str().to_owned()));
        let _ = self.deaf.fetch_update(SeqCst, SeqCst, |more| more.checked_sub(usize::from(more < usize::MAX)));
        self.ends.notify_waiters();
        Ok(())
    }

    fn extensions(&self) -> Extensions {
        *self.extensions.lock().unwrap()
    }

    async fn acknowledge(&self, lines: &[AckLine<'_>], _until: Instant) -> Result<Acked, Error> {
        let list: Vec<_> = lines.iter().map(|line| (line.handle.as_str().to_owned(), line.status)).collect();
        self.acks.lock().unwrap().push((self.began.elapsed(), list));
        let why = lines.iter().filter_map(|line| Some((line.handle.as_str().to_owned(), line.failure?.clone())));
        self.failures.lock().unwrap().extend(why);
        if self.deadly_acks.fetch_update(SeqCst, SeqCst, |more| more.checked_sub(1)).is_ok() {
            panic!("planted");
        }
        let extended = lines.iter().any(|line| matches!(line.status, AckStatus::Reject | AckStatus::Release));
        if extended && self.refuses_extensions.fetch_update(SeqCst, SeqCst, |more| more.checked_sub(1)).is_ok() {
            return Err(Error::refused_for_test());
        }
        let takes = *self.ack_takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(Acked { took: takes, ..Acked::default() })
    }

    async fn forward(&self, _queue: Option<&QueueId>, message: Message) -> Result<(), Error> {
        if self.refuses_copies.load(SeqCst) {
            return Err(Error::refused_for_test());
        }
        self.forwarded.lock().unwrap().push(message);
        Ok(())
    }

    async fn find_queue(&self, name: &str) -> Result<QueueId, Error> {
        Ok(name.into())
    }
}

fn messages(names: &[&'static str]) -> Vec<ReceivedMessage> {
    names.iter().copied().map(message).collect()
}

fn message(name: &'static str) -> ReceivedMessage {
    let mut attributes = Attributes::from_iter([("key", &name[..1])]);
    if name == "again" {
        attributes.insert(ATTEMPTS, 1);
    }
    let torn = name == "torn";
    let body = if torn { Body::undecodable("{\"body\":".into(), "the text ends") } else { Body::json(name).unwrap() };
    ReceivedMessage::new(body, attributes, Vec::new(), name)
}

struct Running {
    context: Arc<Context>,
    control: Arc<Control>,
    worker: JoinHandle<WorkerReport>,
}

impl Running {
    /// Starts a worker on the scripted source. Its handler is called with each message's name.
    fn start<F, Fut>(script: &Arc<Script>, settings: Settings, handle: F) -> Self
    where
        F: Fn(String, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        Self::observed(script, settings, None, handle)
    }

    /// As `start`, with an observer.
    fn observed<F, Fut>(
        script: &Arc<Script>,
        settings: Settings,
        observer: Option<Arc<dyn Observer>>,
        handle: F,
    ) -> Self
    where
        F: Fn(String, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = handler_fn(move |delivery: Delivery| handle(delivery.json().unwrap(), delivery));
        Self::handling(script, settings, observer, HandlerKind::Single(Arc::new(handler)))
    }

    /// As `start`, on a queue with or without dead letters.
    fn on_queue<F, Fut>(script: &Arc<Script>, settings: Settings, dead_letters: bool, handle: F) -> Self
    where
        F: Fn(String, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = handler_fn(move |delivery: Delivery| handle(delivery.json().unwrap(), delivery));
        Self::assembled(script, settings, None, HandlerKind::Single(Arc::new(handler)), dead_letters)
    }

    /// As `start`, with a handler of either kind.
    fn handling(
        script: &Arc<Script>,
        settings: Settings,
        observer: Option<Arc<dyn Observer>>,
        handler: HandlerKind,
    ) -> Self {
        Self::assembled(script, settings, observer, handler, true)
    }

    fn assembled(
        script: &Arc<Script>,
        settings: Settings,
        observer: Option<Arc<dyn Observer>>,
        handler: HandlerKind,
        dead_letters: bool,
    ) -> Self {
        let control = Control::new("q".into(), "g".into(), &settings);
        let source: Arc<dyn Source> = script.clone();
        let failure = FailurePolicy {
            wraps: false,
            on_failure: settings.on_failure.clone(),
            on_reject: settings.on_reject.clone(),
            on_undecodable: settings.on_undecodable.clone(),
            parking: ParkingQueues::default(),
            delays: true,
            dead_letters,
            of_dead_letters: false,
            worker: "test".into(),
            queue: "q".into(),
            source: source.clone(),
            attempts: AttemptCounts::new(settings.max_attempts, settings.unique_key.clone(), false),
            exhausted: ExhaustedMessages::new(),
            pauses: RejectPauses::new(),
        };
        let mut observers = Observers::default();
        observers.add(control.counters.clone());
        observer.into_iter().for_each(|observer| observers.add(observer));
        let origin = Arc::new(Origin { worker: "test".into(), queue: "q".into(), group: "g".into(), in_order: false });
        let context = Context::new(settings, control.clone(), source, handler, failure, observers, origin, false);
        let context = Arc::new(context);
        let running = context.clone();
        let worker = tokio::spawn(async move {
            let context = running;
            let (ended, pollers) = poller::supervise(&context).await;
            ended.unwrap();
            let drained = drain(&context, pollers).await;
            context.control.counters.report(drained)
        });
        Self { context, control, worker }
    }

    /// Starts a worker whose handler takes a second for each message and fails `poison`. Also returns the names of its
    /// calls, in order.
    fn in_order(script: &Arc<Script>, settings: Settings, poison: &'static str) -> (Self, Arc<Mutex<Vec<String>>>) {
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = order.clone();
        let running = Self::start(script, settings, move |name, _| {
            seen.lock().unwrap().push(name.clone());
            async move {
                tokio::time::sleep(SECOND).await;
                if name == poison { Err(HandlerError::retry("no")) } else { Ok(()) }
            }
        });
        (running, order)
    }

    /// Lets `time` pass.
    async fn after(&self, time: Duration) -> &Self {
        tokio::time::sleep(time).await;
        self
    }

    async fn stop(self) -> WorkerReport {
        self.control.stopping.cancel();
        self.worker.await.unwrap()
    }
}

fn list(entries: &[(&str, AckStatus)]) -> Vec<(String, AckStatus)> {
    entries.iter().map(|(name, status)| ((*name).to_owned(), *status)).collect()
}

const OK: AckStatus = AckStatus::Success;
const FAIL: AckStatus = AckStatus::Fail;
const SECOND: Duration = Duration::from_secs(1);
