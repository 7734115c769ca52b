//! [`TestServer`]: tests of handlers against a real server in the same process, where leases and delays of days take
//! milliseconds.
//!
//! [`TestServer`] is the embedded server in memory, without sockets, on tokio's clock. Under
//! `#[tokio::test(start_paused = true)]` time jumps to the next thing that is due, so a test of a handler that takes
//! longer than its lease runs at once, and in the same way every time. Needs tokio's feature `test-util` in the
//! dev-dependencies.
//!
//! ```
//! use dms_worker::{
//!     queue::NewQueue,
//!     testing::TestServer,
//!     worker::{Delivery, HandlerError, handler_fn},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # tokio::time::pause();
//! let server = TestServer::start().await;
//! let orders = server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await;
//! orders.send(["good", "bad"]).await;
//!
//! let report = orders
//!     .run(handler_fn(|delivery: Delivery| async move {
//!         match delivery.json::<String>()?.as_str() {
//!             "bad" => Err(HandlerError::retry("no such account")),
//!             _ => Ok(()),
//!         }
//!     }))
//!     .await;
//!
//! assert_eq!((report.done, report.failed), (1, 3));
//! orders.assert_acked_count(1).await;
//! orders.assert_dead_lettered(["bad"]).await;
//! # }
//! ```
//!
//! [`TestServer::faults`] switches failures on; see [`Faults`].
//!
//! With a paused clock, time jumps ahead whenever the runtime waits for anything but time. A handler under test should
//! therefore not wait for other processes or sockets; stub those.

mod history;

use std::{fmt, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use self::history::{History, Recorded};
use crate::{
    client::Client,
    message::{DeadLetterInfo, Message},
    queue::{GroupId, NewQueue, ProjectId, QueueId, Stream},
    transport::InProcess,
    worker::{BatchHandler, Handler, Worker, WorkerBuilder, WorkerReport},
};
use dms_server::{
    Server, ServerConfig, ServerError,
    broker::{Broker, GroupOverview, GroupPath, PeekState, Peeked},
    clock::Clock,
    faults::Faults,
};

/// The project of a test server.
const PROJECT: &str = "test";
/// The start of a test server's clock: 2027-01-15T08:00:00Z.
const START: Duration = Duration::from_secs(1_800_000_000);
/// How long [`TestGroup::run`] waits until the group is idle: longer than the longest delay with its retries.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8 * 24 * 3600);
/// How often an awaited state is checked, on tokio's clock.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The most messages to peek at.
const MAX_PEEKED: usize = 1000;

/// A server for tests: in memory, in this process, without authentication, on tokio's clock.
///
/// ```
/// use dms_worker::{Message, queue::NewQueue, testing::TestServer};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     let billing = server.group(NewQueue::new("orders"), "billing").await;
///     let mailing = server.further_group(billing.queue_id(), "mailing").await;
///     // The client of the code under test.
///     server.client().send(billing.queue_id(), &[Message::json(&7)?]).await?;
///     assert_eq!((billing.counts().await.available, mailing.counts().await.available), (1, 1));
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct TestServer {
    server: Server,
    client: Client,
}

impl TestServer {
    /// Starts a server with default settings. Its wall clock follows tokio's clock, also if that is paused.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start() -> Self {
        let started = Self::with(ServerConfig::default()).await;
        started.unwrap_or_else(|error| panic!("the test server did not start: {error}"))
    }

    /// Starts a server with settings of your own. Its clock is replaced, as in [`start`](Self::start).
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn with(config: ServerConfig) -> Result<Self, ServerError> {
        let clock = Clock::following_tokio(std::time::UNIX_EPOCH + START);
        let server = Server::bind(config.clock(clock)).await?;
        let transport = Arc::new(InProcess::new(server.service()));
        let built = Client::builder("http://in.process", PROJECT).transport(transport).build();
        let client = built.unwrap_or_else(|error| panic!("no client for the test server: {error}"));
        Ok(Self { server, client })
    }

    /// A client of the server, for the project `test`.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The server itself, for its router and its broker.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The faults to inject from now on. They also affect the helpers that use the client.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// Creates a queue with one group.
    ///
    /// # Panics
    /// When the server refuses either.
    pub async fn group(&self, queue: NewQueue, group: &str) -> TestGroup {
        let name = queue.name.clone();
        let created = self.client.create_queue(queue).await;
        let queue = created.unwrap_or_else(|error| panic!("the queue {name} was not created: {error}")).id;
        self.further_group(&queue, group).await
    }

    /// Creates a further group of a queue.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn further_group(&self, queue: &QueueId, group: &str) -> TestGroup {
        let project = ProjectId::new(PROJECT);
        let created = self.server.broker().create_groups(&project, queue, &[group.to_owned()]).await;
        let ids = created.unwrap_or_else(|error| panic!("the group {group} was not created: {error}"));
        let group = ids.into_iter().next().unwrap_or_else(|| panic!("the group {group} got no id"));
        let path = GroupPath { project, queue: queue.clone(), group };
        TestGroup {
            broker: Arc::clone(self.server.broker()),
            client: self.client.clone(),
            path,
            history: History::new(),
        }
    }
}

/// A consumer group of a [`TestServer`]: sends messages, runs workers, and checks the results.
///
/// ```
/// use std::time::Duration;
///
/// use dms_worker::{
///     Delivery, HandlerError, handler_fn,
///     queue::NewQueue,
///     testing::TestServer,
///     worker::{OnFailure, Republish},
/// };
///
/// #[tokio::main(flavor = "current_thread", start_paused = true)]
/// async fn main() {
///     let server = TestServer::start().await;
///     let orders = server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await;
///     orders.send(["order"]).await;
///
///     // Fails once, and is sent again with a delay of a minute, which the paused clock skips.
///     let charge = handler_fn(|delivery: Delivery| async move {
///         if delivery.attempt() == 1 { Err(HandlerError::retry("the bank is closed")) } else { Ok(()) }
///     });
///     let republish = Republish::new().first_delay(Duration::from_secs(60));
///     let worker = orders.worker(charge).on_failure(OnFailure::Republish(republish));
///     let report = orders.run_worker(worker).await;
///
///     assert_eq!((report.done, report.failed), (1, 1));
///     orders.assert_acked(["order"]).await;
/// }
/// ```
#[derive(Clone)]
pub struct TestGroup {
    broker: Arc<dyn Broker>,
    client: Client,
    path: GroupPath,
    history: History,
}

/// The messages of a group, counted by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Messages that are available now.
    pub available: u64,
    /// Messages that are leased.
    pub leased: u64,
    /// Messages whose delay is not over.
    pub delayed: u64,
    /// Dead letters, the acknowledged ones included.
    pub dead_lettered: u64,
    /// Dead letters that were not acknowledged.
    pub dead_letters: u64,
}

impl Counts {
    /// Returns whether no message is left to consume, now or later.
    pub fn is_idle(&self) -> bool {
        self.available + self.leased + self.delayed == 0
    }
}

impl TestGroup {
    /// The queue's id.
    pub fn queue_id(&self) -> &QueueId {
        &self.path.queue
    }

    /// The group's id.
    pub fn group_id(&self) -> &GroupId {
        &self.path.group
    }

    /// Sends a message for each body.
    ///
    /// # Panics
    /// When a body cannot be serialized, or the server refuses one.
    pub async fn send<T: Serialize>(&self, bodies: impl IntoIterator<Item = T>) {
        let message = |body: T| Message::json(&body).unwrap_or_else(|error| panic!("a body is no JSON: {error}"));
        self.send_messages(bodies.into_iter().map(message)).await;
    }

    /// Sends messages, ten in a request.
    ///
    /// # Panics
    /// When the server refuses one.
    pub async fn send_messages(&self, messages: impl IntoIterator<Item = Message>) {
        let messages: Vec<Message> = messages.into_iter().collect();
        for batch in messages.chunks(10) {
            let sent = self.client.send(&self.path.queue, batch).await;
            let sent = sent.and_then(|outcomes| outcomes.into_iter().collect::<Result<Vec<_>, _>>());
            sent.unwrap_or_else(|error| panic!("the messages were not sent: {error}"));
        }
    }

    /// A builder of workers for this group, to set options before [`run_worker`](Self::run_worker).
    pub fn worker(&self, handler: impl Handler) -> WorkerBuilder {
        let handler = Recorded { handler, history: self.history.clone() };
        Worker::builder(self.client.clone())
            .queue(self.path.queue.as_str())
            .group(self.path.group.as_str())
            .handler(handler)
    }

    /// A builder of workers for this group whose handler takes several messages in one call.
    pub fn batch_worker(&self, handler: impl BatchHandler) -> WorkerBuilder {
        let handler = Recorded { handler, history: self.history.clone() };
        Worker::builder(self.client.clone())
            .queue(self.path.queue.as_str())
            .group(self.path.group.as_str())
            .batch_handler(handler)
    }

    /// Runs a worker with default settings until the group is idle, and returns its report.
    ///
    /// # Panics
    /// As [`run_worker`](Self::run_worker).
    pub async fn run(&self, handler: impl Handler) -> WorkerReport {
        self.run_worker(self.worker(handler)).await
    }

    /// Runs a worker until the group is idle, and returns its report.
    ///
    /// # Panics
    /// When the settings contradict each other, the worker ends early, or the group is not idle after eight days.
    pub async fn run_worker(&self, worker: WorkerBuilder) -> WorkerReport {
        let worker = worker.build().unwrap_or_else(|error| panic!("the worker cannot be built: {error}"));
        let (stop, stopped) = oneshot::channel::<()>();
        let running = worker.run(async { drop(stopped.await) });
        let watching = async {
            self.until_idle(IDLE_TIMEOUT).await;
            // A worker that has ended early is reported below.
            let _ = stop.send(());
        };
        tokio::pin!(running, watching);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = &mut watching => running.await,
        };
        ended.unwrap_or_else(|error| panic!("the worker ended: {error}"))
    }

    /// Waits until no message is left to consume, now or later.
    ///
    /// # Panics
    /// When that takes longer than `within`.
    pub async fn until_idle(&self, within: Duration) {
        let begun = Instant::now();
        loop {
            let counts = self.counts().await;
            if counts.is_idle() {
                return;
            }
            assert!(begun.elapsed() < within, "the group is not idle after {within:?}: {counts:?}");
            // If only delayed messages are left, nothing happens before the first one is due.
            let asleep = counts.available + counts.leased == 0;
            let due = if asleep { self.next_due().await } else { None };
            sleep(due.unwrap_or(POLL_INTERVAL).clamp(POLL_INTERVAL, within.max(POLL_INTERVAL))).await;
        }
    }

    /// The current counts of the group.
    ///
    /// # Panics
    /// When the queue or the group is deleted.
    pub async fn counts(&self) -> Counts {
        // Read in one step, because a lease may end between two and its message would be missing in both.
        let queue = self.broker.overview().into_iter().find(|queue| queue.queue.id == self.path.queue);
        let queue = queue.unwrap_or_else(|| panic!("the queue {} is deleted", self.path.queue));
        let group = queue.groups.into_iter().find(|group| group.group.id == self.path.group);
        let GroupOverview { group, in_flight, .. } =
            group.unwrap_or_else(|| panic!("the group {} is deleted", self.path.group));
        Counts {
            acknowledged: group.consumed_messages,
            available: group.available_messages,
            leased: in_flight,
            delayed: queue.delayed,
            dead_lettered: group.produced_dead_letters.unwrap_or(0),
            dead_letters: group.available_dead_letters.unwrap_or(0),
        }
    }

    /// The bodies of at most 1000 messages that are not settled. Does not lease them.
    ///
    /// # Panics
    /// When a body is not of the type asked for.
    pub async fn waiting<T: DeserializeOwned>(&self) -> Vec<T> {
        self.peek(Stream::Messages).await.iter().map(parse).collect()
    }

    /// The bodies of at most 1000 dead letters that are not settled. Does not lease them.
    ///
    /// # Panics
    /// When a body is not of the type asked for.
    pub async fn dead_letters<T: DeserializeOwned>(&self) -> Vec<T> {
        self.peek(Stream::DeadLetters).await.iter().map(parse).collect()
    }

    /// The bodies of at most 1000 dead letters that are not settled, with the reasons. Does not lease them.
    ///
    /// # Panics
    /// When a body is not of the type asked for.
    pub async fn deaths<T: DeserializeOwned>(&self) -> Vec<(T, DeadLetterInfo)> {
        let died = |peeked: &Peeked| (parse(peeked), peeked.dead_letter.as_deref().cloned().unwrap_or_default());
        self.peek(Stream::DeadLetters).await.iter().map(died).collect()
    }

    /// Asserts that exactly `messages` messages were acknowledged and none is left.
    ///
    /// # Panics
    /// When that is not so, with all counts and the handlers' calls.
    pub async fn assert_acked_count(&self, messages: u64) {
        let counts = self.counts().await;
        assert!(
            counts.acknowledged == messages && counts.is_idle(),
            "{messages} messages should be acknowledged and none left: {counts:?}; {}; {}",
            ShownDeadLetters(self.deaths().await),
            self.history
        );
    }

    /// Asserts that a handler succeeded with each of these bodies, and that none of them is left or dead-lettered. Only
    /// handlers of workers from [`worker`](Self::worker) and [`batch_worker`](Self::batch_worker) are recorded.
    ///
    /// # Panics
    /// When it is otherwise, with the handlers' calls.
    pub async fn assert_acked<T: Serialize>(&self, bodies: impl IntoIterator<Item = T>) {
        let mut left: Vec<serde_json::Value> = self.waiting().await;
        left.extend(self.dead_letters::<serde_json::Value>().await);
        for body in values(bodies) {
            let acked = self.history.has_succeeded(&body) && !left.contains(&body);
            assert!(acked, "{body} should be acknowledged; left are {left:?}; {}", self.history);
        }
    }

    /// Asserts that the message with this body was redelivered `times` times. Retries within a lease do not count. Only
    /// handlers of workers from [`worker`](Self::worker) and [`batch_worker`](Self::batch_worker) are recorded.
    ///
    /// # Panics
    /// When it is otherwise, with the handlers' calls.
    #[track_caller]
    pub fn assert_redelivered<T: Serialize>(&self, body: T, times: usize) {
        let body = value(&body);
        let found = self.history.deliveries(&body);
        assert!(
            found == times + 1,
            "{body} should be redelivered {times} times, and was delivered {found} times in all; {}",
            self.history
        );
    }

    /// Asserts that exactly these bodies are dead letters, in this order.
    ///
    /// # Panics
    /// When that is not so, with the dead letters and the handlers' calls.
    pub async fn assert_dead_lettered<T: Serialize>(&self, bodies: impl IntoIterator<Item = T>) {
        let wanted = values(bodies);
        let found: Vec<(serde_json::Value, DeadLetterInfo)> = self.deaths().await;
        let bodies: Vec<_> = found.iter().map(|(body, _)| body.clone()).collect();
        assert!(
            bodies == wanted,
            "the dead letters should be {wanted:?}, and are {bodies:?}; {}; {}",
            ShownDeadLetters(found),
            self.history
        );
    }

    /// Asserts that a message with this body is a dead letter with this reason: `failed`, `rejected`, `timed_out`,
    /// `lease_expired` or another value of [`DeadLetterInfo::reason`].
    ///
    /// # Panics
    /// When that is not so, with the dead letters and the handlers' calls.
    pub async fn assert_dead_letter<T: Serialize>(&self, body: T, reason: &str) {
        let body = value(&body);
        let found: Vec<(serde_json::Value, DeadLetterInfo)> = self.deaths().await;
        let died = found.iter().any(|(dead, info)| *dead == body && info.reason == reason);
        assert!(died, "{body} should have died as {reason:?}; {}; {}", ShownDeadLetters(found), self.history);
    }

    /// How long until the first delayed message is due.
    async fn next_due(&self) -> Option<Duration> {
        let left = |peeked: &Peeked| match peeked.state {
            PeekState::Delayed(left) => Some(left),
            _ => None,
        };
        self.peek(Stream::Messages).await.iter().filter_map(left).min()
    }

    async fn peek(&self, stream: Stream) -> Vec<Peeked> {
        let peeked = self.broker.peek(&self.path, stream, 0, MAX_PEEKED).await;
        peeked.unwrap_or_else(|error| panic!("the group cannot be looked at: {error}"))
    }
}

impl fmt::Debug for TestGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestGroup").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Dead letters with their reasons, as text for assertions.
struct ShownDeadLetters(Vec<(serde_json::Value, DeadLetterInfo)>);

impl fmt::Display for ShownDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there are no dead letters");
        }
        f.write_str("the dead letters are")?;
        self.0.iter().try_for_each(|(body, info)| write!(f, "\n  {body}: {info}"))
    }
}

fn values<T: Serialize>(bodies: impl IntoIterator<Item = T>) -> Vec<serde_json::Value> {
    bodies.into_iter().map(|body| value(&body)).collect()
}

fn value<T: Serialize>(body: &T) -> serde_json::Value {
    serde_json::to_value(body).unwrap_or_else(|error| panic!("a body is no JSON: {error}"))
}

/// The body of a stored message as a `T`.
fn parse<T: DeserializeOwned>(peeked: &Peeked) -> T {
    #[derive(serde::Deserialize)]
    struct Stored<'a> {
        #[serde(borrow)]
        body: &'a RawValue,
    }
    let body =
        serde_json::from_slice::<Stored<'_>>(&peeked.json).and_then(|stored| serde_json::from_str(stored.body.get()));
    body.unwrap_or_else(|error| panic!("a body is of another type: {error}"))
}
