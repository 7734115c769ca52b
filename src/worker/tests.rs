//! The runtime against a scripted source, under the paused clock.

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

mod batch_handlers;
mod copies;
mod extensions;
mod quick_handlers;
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
};

/// An acknowledgement as it was sent: when, and the list.
type Sent = (Duration, Vec<(String, AckStatus)>);

/// A service that hands out the batches it is given, one per poll, and writes down what it is told.
#[derive(Debug)]
struct Script {
    began: Instant,
    batches: Mutex<VecDeque<Vec<ReceivedMessage>>>,
    more: Notify,
    /// What polls asked for, and when.
    asked: Mutex<Vec<(Duration, usize)>>,
    out: AtomicUsize,
    acks: Mutex<Vec<Sent>>,
    /// How long an acknowledgement takes to be answered.
    ack_takes: Mutex<Duration>,
    forwarded: Mutex<Vec<Message>>,
    /// How many polls that may wait long panic.
    deadly: AtomicUsize,
    /// How many acknowledgements panic.
    deadly_acks: AtomicUsize,
    extensions: Mutex<Extensions>,
    /// Why messages failed or were rejected, as acknowledgements said.
    failures: Mutex<Vec<(String, FailureReport)>>,
    /// The polls that were ended, and how many of such requests are lost.
    ended: Mutex<Vec<String>>,
    deaf: AtomicUsize,
    /// Tells the polls of an end.
    ends: Notify,
    /// How long the answer of a poll with messages is on its way.
    answer_takes: Mutex<Duration>,
    /// Polls whose answer nobody waited for.
    abandoned: AtomicUsize,
    /// How many acknowledgements that use extensions are refused.
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
            abandoned: AtomicUsize::new(0),
            refuses_extensions: AtomicUsize::new(0),
            refuses_copies: AtomicBool::new(false),
        })
    }

    /// Can end polls: nobody waits in real time for the last one, where the clock cannot be paused.
    fn ends_polls(&self) {
        *self.extensions.lock().unwrap() = Extensions::ALL;
    }

    /// Hands out one more batch.
    fn push(&self, batch: &[&'static str]) {
        self.batches.lock().unwrap().push_back(messages(batch));
        self.more.notify_one();
    }

    /// Hands out one more message.
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

/// Counts a poll as out until it is answered or given up.
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
        if wait > SECOND && self.deadly.fetch_update(SeqCst, SeqCst, |more| more.checked_sub(1)).is_ok() {
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
                return Ok(Consumed { messages, sent, waited: Some(sent.elapsed()) });
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
    /// A worker on the scripted source; its handler is called with each message's name.
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

    /// With a handler of either kind.
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

    /// Whose handler takes a second for each message and fails `poison`; with the names it was called with, in order.
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

    /// Lets everything happen that happens within `time`.
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

/// Invariant 2: one acknowledgement per batch, in the order of consumption, whatever the order of completion.
#[tokio::test(start_paused = true)]
async fn a_batch_is_acknowledged_once_and_in_the_order_of_consumption() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        tokio::time::sleep(SECOND * (4 - u32::from(name.as_bytes()[0] - b'a'))).await;
        Ok(())
    });
    running.after(SECOND * 10).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK), ("c", OK)])]);
    assert_eq!(script.ack_times(), [SECOND * 4], "when the slowest is done, no earlier");
    assert!(running.stop().await.drained);
}

/// Invariants 1 and 2: the prefix up to the first failure, and the failure itself; nothing behind it.
#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_prefix() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        if name == "b" { Err(HandlerError::retry("no")) } else { Ok(()) }
    });
    running.after(SECOND * 2).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    let report = running.stop().await;
    assert_eq!((report.done, report.failed), (2, 1));
}

/// Invariant 2: at the first failure once all before it are done, although others are still running.
#[tokio::test(start_paused = true)]
async fn a_failure_does_not_wait_for_the_messages_after_it() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        match name.as_str() {
            "a" => tokio::time::sleep(SECOND * 2).await,
            "c" => tokio::time::sleep(SECOND * 20).await,
            _ => return Err(HandlerError::retry("no")),
        }
        Ok(())
    });
    running.after(SECOND * 3).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    assert_eq!(running.control.counters.report(false).done, 1, "c goes on");
    running.after(SECOND * 20).await;
    assert_eq!(running.stop().await.done, 2);
}

/// Invariant 3: a handler that hangs is stopped in time for the prefix to be acknowledged before the lease ends.
#[tokio::test(start_paused = true)]
async fn a_hanging_handler_is_stopped_before_the_lease_ends() {
    let script = Script::new(&[&["a", "b"]]);
    let told = Arc::new(AtomicUsize::new(0));
    let seen = told.clone();
    let running = Running::start(&script, Settings::default(), move |name, delivery| {
        let seen = seen.clone();
        async move {
            if name == "b" {
                delivery.cancelled().await;
                seen.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    running.after(SECOND * 40).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    let at = script.ack_times()[0];
    assert!(at >= SECOND * 29 && at < SECOND * 30, "{at:?}");
    assert_eq!(told.load(SeqCst), 1, "it was told before it was stopped");
    assert_eq!(running.stop().await.timed_out, 1);
}

/// Invariant 8: a panic stays with its message.
#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_message_only() {
    let script = Script::new(&[&["a", "b"], &["c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        assert_ne!(name, "b", "planted");
        Ok(())
    });
    running.after(SECOND * 2).await;
    let acks = script.acks();
    assert!(acks.contains(&list(&[("a", OK), ("b", FAIL)])) && acks.contains(&list(&[("c", OK)])), "{acks:?}");
    let report = running.stop().await;
    assert_eq!((report.done, report.panicked), (2, 1));
}

/// Invariant 8: an undecodable body is a reject, and the policy says where it goes.
#[tokio::test(start_paused = true)]
async fn a_rejected_message_is_parked_with_its_reason_and_acknowledged() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { on_reject: OnReject::Park("parked".into()), ..Settings::default() };
    let running = Running::start(&script, settings, |name, delivery| async move {
        if name == "a" { delivery.json::<u32>().map(drop) } else { Ok(()) }
    });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)])]);
    let copy = script.forwarded.lock().unwrap()[0].clone();
    assert_eq!(copy.body, Body::json("a").unwrap());
    assert_eq!(copy.attributes.get_str(REASON).as_deref(), Some("undecodable"));
    assert_eq!(copy.attributes.get_u64(ATTEMPTS), Some(1));
    assert!(copy.attributes.get_str(ERROR).unwrap().contains("cannot be decoded"));
    assert_eq!(running.stop().await.rejected, 1);
}

/// Undecodable bodies have a policy of their own: here they are thrown away, are tried again, while other rejects are parked.
#[tokio::test(start_paused = true)]
async fn undecodable_bodies_have_a_policy_of_their_own() {
    let policies = [
        (OnUndecodable::Own(OnReject::Discard), OK, None),
        (OnUndecodable::Own(OnReject::Park("broken".into())), OK, Some("undecodable")),
        (OnUndecodable::Own(OnReject::Fail), FAIL, None),
        (OnUndecodable::Retry, OK, Some("undecodable")),
    ];
    for (on_undecodable, status, copied) in policies {
        let script = Script::new(&[&["a"]]);
        let settings = Settings {
            on_failure: OnFailure::Republish(Republish::default()),
            on_reject: OnReject::Park("parked".into()),
            on_undecodable: on_undecodable.clone(),
            ..Settings::default()
        };
        let running = Running::start(&script, settings, |_, delivery| async move { delivery.json::<u32>().map(drop) });
        running.after(SECOND * 3).await;
        assert_eq!(script.acks(), [list(&[("a", status)])], "{on_undecodable:?}");
        let copies = script.forwarded.lock().unwrap().clone();
        let reasons: Vec<_> = copies.iter().map(|copy| copy.attributes.get_str(REASON).unwrap().into_owned()).collect();
        assert_eq!(reasons, Vec::from_iter(copied), "{on_undecodable:?}");
        running.stop().await;
    }
}

/// A message that cannot be read is its own failure: those around it are handled, and no handler is called with it.
#[tokio::test(start_paused = true)]
async fn an_unreadable_message_is_treated_as_undecodable() {
    let policies = [
        (OnUndecodable::Own(OnReject::Discard), vec![("a", OK), ("torn", OK), ("b", OK)], None),
        (
            OnUndecodable::Own(OnReject::Park("broken".into())),
            vec![("a", OK), ("torn", OK), ("b", OK)],
            Some("undecodable"),
        ),
        (OnUndecodable::Own(OnReject::Fail), vec![("a", OK), ("torn", FAIL)], None),
        (OnUndecodable::Retry, vec![("a", OK), ("torn", FAIL)], None),
    ];
    for (on_undecodable, expected, parked) in policies {
        let script = Script::new(&[&["a", "torn", "b"]]);
        let settings = Settings {
            on_failure: OnFailure::Republish(Republish::default()),
            on_undecodable: on_undecodable.clone(),
            ..Settings::default()
        };
        let running = Running::start(&script, settings, |_, _| async { Ok(()) });
        running.after(SECOND * 3).await;
        let acks = script.acks().concat();
        assert_eq!(acks[..expected.len()], list(&expected), "{on_undecodable:?}");
        let copies = script.forwarded.lock().unwrap().clone();
        assert_eq!(copies.len(), usize::from(parked.is_some()), "{on_undecodable:?}");
        for copy in copies {
            assert_eq!(copy.body.parse::<String>().unwrap(), "{\"body\":", "its text is parked");
            assert_eq!(copy.attributes.get_str(REASON).as_deref(), parked);
            assert!(copy.attributes.get_str(ERROR).unwrap().contains("cannot be read: the text ends"));
        }
        running.stop().await;
    }
}

/// A deferral is no failure: its copy carries no word of one.
#[tokio::test(start_paused = true)]
async fn a_deferred_message_is_sent_again_as_it_was() {
    let script = Script::new(&[&["a"]]);
    let running = Running::start(&script, Settings::default(), |_, _| async { Err(HandlerError::defer(SECOND * 7)) });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK)])]);
    let copy = script.forwarded.lock().unwrap()[0].clone();
    let mut attributes = copy.attributes.clone();
    assert!(attributes.remove(DEFERRED).is_some());
    assert_eq!((copy.delay, attributes), (SECOND * 7, message("a").attributes));
    assert_eq!(running.stop().await.deferred, 1);
}

/// An observer that panics at everything hurts nobody.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_has_no_effect() {
    struct Panics;
    impl Observer for Panics {
        fn observe(&self, _: &Origin, event: &Event<'_>) {
            panic!("planted at {event:?}");
        }
    }
    let script = Script::new(&[&["a", "b"], &["c"]]);
    let running = Running::observed(&script, Settings::default(), Some(Arc::new(Panics)), |_, _| async { Ok(()) });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)]), list(&[("c", OK)])]);
    assert_eq!(running.stop().await.done, 3);
}

/// Republish: a delayed copy with an attempt count takes the place of the message, and nothing behind it fails.
#[tokio::test(start_paused = true)]
async fn a_republished_message_holds_no_other_back() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { on_failure: OnFailure::Republish(Republish::default()), ..Settings::default() };
    let running = Running::start(&script, settings, |name, _| async move {
        if name == "a" { Err(HandlerError::retry("not yet")) } else { Ok(()) }
    });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)])]);
    let copy = script.forwarded.lock().unwrap()[0].clone();
    assert!(copy.delay >= SECOND / 2 && copy.delay <= SECOND, "{:?}", copy.delay);
    assert_eq!(copy.attributes.get_u64(ATTEMPTS), Some(1));
    for (name, value) in [(REASON, "failed"), (ERROR, "not yet"), (WORKER, "test"), (ORIGIN, "q")] {
        assert_eq!(copy.attributes.get_str(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(copy.attributes.get_str(FIRST_FAILURE), copy.attributes.get_str(LAST_FAILURE));
    running.stop().await;
}

/// Messages that fail together, because what they need is down, are not delivered together again.
#[tokio::test(start_paused = true)]
async fn the_delays_of_republished_messages_are_spread() {
    fastrand::seed(7);
    let script = Script::new(&[&["a", "b", "c", "d", "e", "f", "g", "h"]]);
    let settings = Settings { on_failure: OnFailure::Republish(Republish::default()), ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Err(HandlerError::retry("the database is down")) });
    running.after(SECOND).await;
    let mut delays: Vec<_> = script.forwarded.lock().unwrap().iter().map(|copy| copy.delay.as_millis()).collect();
    assert!(delays.iter().all(|delay| (500..=1_000).contains(delay)), "{delays:?}");
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() >= 6 && delays[delays.len() - 1] - delays[0] > 200, "{delays:?}");
    running.stop().await;
}

/// Invariant 5: nothing is fetched that cannot start at once.
#[tokio::test(start_paused = true)]
async fn polls_never_ask_for_more_than_there_is_capacity_for() {
    let script = Script::new(&[&["a", "b", "c", "d", "e", "f", "g", "h"]]);
    let busy = Arc::new(AtomicUsize::new(0));
    let count = busy.clone();
    let settings = Settings { concurrency: 3, ..Settings::default() };
    let running = Running::start(&script, settings, move |_, _| {
        let count = count.clone();
        async move {
            assert!(count.fetch_add(1, SeqCst) < 3, "more than three at once");
            tokio::time::sleep(SECOND).await;
            count.fetch_sub(1, SeqCst);
            Ok(())
        }
    });
    running.after(SECOND * 10).await;
    assert!(script.asked.lock().unwrap().iter().all(|&(_, asked)| asked <= 3));
    assert_eq!(running.stop().await.done, 8);
}

/// Invariant 6: an empty queue costs one request per poll wait; a full one is polled by many.
#[tokio::test(start_paused = true)]
async fn idle_is_one_poll_and_busy_is_many() {
    let script = Script::new(&[]);
    let running = Running::start(&script, Settings { concurrency: 100, ..Settings::default() }, |_, _| async {
        tokio::time::sleep(SECOND).await;
        Ok(())
    });
    running.after(SECOND * 199).await;
    assert_eq!(script.asked.lock().unwrap().len(), 10, "one poll every 20 s");
    script.batches.lock().unwrap().extend((0..40).map(|_| messages(&["x"; 10])));
    script.more.notify_one();
    running.after(SECOND / 2).await;
    assert_eq!(running.control.inflight.in_flight(), 100, "as much as may be in flight");
    running.after(SECOND * 60).await;
    let before = script.asked.lock().unwrap().len();
    running.after(SECOND * 200).await;
    assert_eq!(script.asked.lock().unwrap().len() - before, 10, "idle again");
    assert_eq!(running.stop().await.done, 400);
}

/// Invariant 7: polls are given up, running handlers finish, what is due is acknowledged.
#[tokio::test(start_paused = true)]
async fn shutdown_finishes_started_messages() {
    let script = Script::new(&[&["a", "b"]]);
    let running = Running::start(&script, Settings::default(), |_, _| async {
        tokio::time::sleep(SECOND * 10).await;
        Ok(())
    });
    running.after(SECOND).await;
    let stopped = Instant::now();
    let report = running.stop().await;
    assert_eq!(stopped.elapsed(), SECOND * 9, "as long as the handlers need, not as long as a poll");
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)])]);
    assert!(report.drained && report.done == 2);
    assert_eq!(script.out.load(SeqCst), 0, "no poll is left out");
}

/// Invariant 7: after the grace period handlers are stopped, and the finished prefix is acknowledged.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_grace_period_stops_handlers_and_keeps_what_is_done() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { grace: SECOND * 5, ..Settings::default() };
    let running = Running::start(&script, settings, |name, delivery| async move {
        if name == "b" {
            tokio::time::sleep(SECOND * 20).await;
            assert!(delivery.is_shutting_down());
        }
        Ok(())
    });
    running.after(SECOND).await;
    let stopped = Instant::now();
    let report = running.stop().await;
    assert!(stopped.elapsed() < SECOND * 6);
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    assert_eq!((report.drained, report.done, report.interrupted, report.failed), (false, 1, 1, 0));
}

/// Ordering `batch`: one after the other, and a failure keeps those behind it from starting.
#[tokio::test(start_paused = true)]
async fn an_ordered_batch_stops_at_its_first_failure() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let settings = Settings { ordering: Ordering::Batch, ..Settings::default() };
    let (running, order) = Running::in_order(&script, settings, "b");
    running.after(SECOND * 5).await;
    assert_eq!(*order.lock().unwrap(), ["a", "b"]);
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    assert_eq!(running.stop().await.skipped, 1);
}

/// Ordering by key: a key's messages one at a time across batches, other keys beside them; a failure stops its own key.
#[tokio::test(start_paused = true)]
async fn a_failure_stops_its_own_key_only() {
    let script = Script::new(&[&["a1", "b1", "a2"], &["a3", "b2"]]);
    let settings = Settings { ordering: Ordering::by_attribute("key"), ..Settings::default() };
    let (running, order) = Running::in_order(&script, settings, "a1");
    running.after(SECOND * 5).await;
    let order = order.lock().unwrap().clone();
    assert_eq!(order, ["a1", "b1", "b2"], "a2 and a3 come again behind a1");
    let acks = script.acks();
    assert!(acks.contains(&list(&[("a1", FAIL)])) && acks.contains(&list(&[("a3", FAIL)])), "{acks:?}");
    running.stop().await;
}

/// Invariant 4: no poll for more than one message is out when a failing acknowledgement is sent, and what failed comes back
/// one at a time.
#[tokio::test(start_paused = true)]
async fn after_a_failure_messages_are_fetched_one_at_a_time_until_all_were_seen() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let failed = AtomicUsize::new(0);
    let running = Running::start(&script, Settings::default(), move |name, _| {
        let fails = name == "a" && failed.fetch_add(1, SeqCst) == 0;
        async move { if fails { Err(HandlerError::retry("no")) } else { Ok(()) } }
    });
    running.after(SECOND / 10).await;
    assert!(script.acks().is_empty(), "a wide poll is out");
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", FAIL)])], "it has come back");
    script.batches.lock().unwrap().push_back(messages(&["a", "b", "c", "d", "e"]));
    script.more.notify_waiters();
    let asked = script.asked.lock().unwrap().len();
    running.after(SECOND * 3).await;
    let later: Vec<_> = script.asked.lock().unwrap()[asked - 2..].iter().map(|(_, asked)| *asked).collect();
    assert!(later.windows(4).any(|asked| asked == [1, 1, 1, 10]), "{later:?}");
    assert_eq!(running.stop().await.done, 2 + 5);
}

/// A paused worker fetches nothing; what is in flight finishes.
#[tokio::test(start_paused = true)]
async fn a_paused_worker_fetches_nothing_until_it_is_resumed() {
    let script = Script::new(&[]);
    let running = Running::start(&script, Settings::default(), |_, _| async { Ok(()) });
    let handle = WorkerHandle(running.control.clone());
    handle.pause();
    running.after(SECOND * 30).await;
    script.batches.lock().unwrap().push_back(messages(&["a"]));
    running.after(SECOND * 60).await;
    assert_eq!(handle.status().counts.received, 0);
    handle.resume();
    running.after(SECOND).await;
    assert_eq!(handle.status().counts.done, 1);
    handle.stop();
    handle.stop();
    assert!(running.worker.await.unwrap().drained);
    advance(SECOND).await;
}

/// A rate limit holds over time and lets idle polls keep nothing.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_messages_back() {
    let batches: Vec<&[&'static str]> = vec![&["x"; 10]; 20];
    let script = Script::new(&batches);
    let rate = Rate::try_new(10, SECOND).unwrap();
    let settings = Settings { rate_limit: Some(rate), ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Ok(()) });
    running.after(SECOND * 10).await;
    let received = running.control.counters.report(false).received;
    assert!((95..=115).contains(&received), "{received} in ten seconds");
    running.stop().await;
}

/// Lets a blocked handler go when it is reported as stuck.
struct LetGo(std::sync::mpsc::Sender<()>);

impl Observer for LetGo {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        if let Event::Stuck { .. } = event {
            self.0.send(()).unwrap();
        }
    }
}

/// Invariant 3: a handler that ignores its cancellation is reported, and the prefix in front of it acknowledged without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_is_reported_as_stuck() {
    let script = Script::new(&[&["a", "b"]]);
    let (release, blocked) = std::sync::mpsc::channel();
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let blocked = Arc::new(Mutex::new(blocked));
    let settings = Settings { grace: Duration::ZERO, ordering: Ordering::Batch, ..Settings::default() };
    let running = Running::observed(&script, settings, Some(Arc::new(LetGo(release))), move |name, _| {
        let (begun, blocked) = (begun.clone(), blocked.clone());
        async move {
            if name == "b" {
                begun.send(()).unwrap();
                blocked.lock().unwrap().recv().unwrap();
            }
            Ok(())
        }
    });
    begins.recv().await.unwrap();
    let report = running.stop().await;
    assert_eq!((report.stuck, report.drained), (1, false));
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
}

/// Invariant 3: nothing begins with too little time left, whatever it waited for.
#[tokio::test(start_paused = true)]
async fn a_message_that_waited_for_its_earlier_run_until_the_deadline_does_not_begin() {
    let script = Script::new(&[&["a", "b"]]);
    // The first lease is 30 s; those of polls after a quick run are 15 s: the second ends while the first run of `b` still hangs.
    let settings = Settings {
        unique_attribute: Some("key".into()),
        ack_wait: AckWait::Auto,
        poll_wait: SECOND,
        ..Settings::default()
    };
    let begun = Arc::new(AtomicUsize::new(0));
    let running = Running::start(&script, settings, {
        let begun = begun.clone();
        move |name, _| {
            let begun = begun.clone();
            async move {
                if name == "a" {
                    return Err(HandlerError::retry("no"));
                }
                begun.fetch_add(1, SeqCst);
                std::future::pending().await
            }
        }
    });
    running.after(SECOND * 2).await;
    script.push(&["b"]);
    running.after(SECOND * 40).await;
    assert_eq!(script.acks(), [list(&[("a", FAIL)]), list(&[("b", FAIL)])]);
    assert_eq!(begun.load(SeqCst), 1, "its lease was over when the first run ended");
    assert_eq!(running.stop().await.skipped, 1);
}

/// Invariant 4: finished work is not done again, also while its acknowledgement is still being tried.
#[tokio::test(start_paused = true)]
async fn a_message_redelivered_before_its_acknowledgement_is_answered_is_not_run_again() {
    let script = Script::new(&[&["a"]]);
    *script.ack_takes.lock().unwrap() = SECOND * 10;
    let settings = Settings { unique_attribute: Some("key".into()), ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Ok(()) });
    running.after(SECOND).await;
    script.push(&["a"]);
    running.after(SECOND * 20).await;
    let report = running.stop().await;
    assert_eq!((report.received, report.done, report.remembered), (2, 1, 1));
}
