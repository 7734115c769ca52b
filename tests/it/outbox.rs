//! Inbox and outbox in a real PostgreSQL, with relays that are killed at each step.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    Client, Delivery, HandlerError, Message, NewQueue, handler_fn,
    postgres::{
        Inbox, Outbox, Postgres, RelayReport,
        tokio_postgres::{self, NoTls},
    },
    testing::{TestGroup, TestServer},
    transport::{InProcess, Transport, TransportError},
    worker::attributes::DEDUPLICATION_KEY,
};
use dms_worker_postgres_fixture::PgServer;
use http::{Method, Request, Response};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A database of a test, and a server with the queue `orders`.
struct World {
    postgres: PgServer,
    server: TestServer,
    orders: TestGroup,
    outbox: Outbox,
}

impl World {
    /// `None` where PostgreSQL is not installed.
    async fn new() -> Option<Self> {
        let postgres = PgServer::start("")?;
        let server = TestServer::start().await;
        let orders = server.group(NewQueue::new("orders"), "billing").await;
        let outbox = Outbox::new(Postgres::builder(postgres.url()).build().unwrap());
        outbox.set_up().await.unwrap();
        Some(Self { postgres, server, orders, outbox })
    }

    async fn database(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn sql(&self, sql: &str) -> Vec<String> {
        self.postgres.psql("postgres", sql).unwrap()
    }

    /// Commits these messages, each in its own transaction.
    async fn commit(&self, bodies: impl IntoIterator<Item = u64>) {
        let mut database = self.database().await;
        for body in bodies {
            let transaction = database.transaction().await.unwrap();
            self.outbox.send(&transaction, "orders", &Message::json(&body).unwrap()).await.unwrap();
            transaction.commit().await.unwrap();
        }
    }

    fn relay(&self, client: Client, stop: Arc<Notify>) -> JoinHandle<RelayReport> {
        let relay = self.outbox.relay(client).poll_interval(Duration::from_millis(1));
        tokio::spawn(relay.run(async move { stop.notified().await }))
    }

    /// Runs a relay until the outbox has no pending messages.
    async fn relay_all(&self) -> RelayReport {
        let stop = Arc::new(Notify::new());
        let running = self.relay(self.server.client(), stop.clone());
        let empty = async {
            while self.sql("SELECT count(*) FROM dms_worker.outbox WHERE refused IS NULL") != ["0"] {
                tokio::task::yield_now().await;
            }
        };
        timeout(TEST_TIMEOUT, empty).await.expect("the outbox is not emptied");
        stop.notify_one();
        timeout(TEST_TIMEOUT, running).await.expect("the relay does not end").unwrap()
    }

    fn client(&self, transport: impl Transport) -> Client {
        Client::builder("http://in.process", "test").transport(Arc::new(transport)).build().unwrap()
    }
}

/// Where a relay is killed.
#[derive(Clone, Copy, Debug)]
enum Step {
    BeforeSend,
    AfterSend,
    BeforeCommit,
}

/// A network that stands still at one step of the first send.
struct Killing {
    inner: InProcess,
    step: Mutex<Option<Step>>,
    reached: Arc<Notify>,
    end_session: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Killing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Killing")
    }
}

#[async_trait]
impl Transport for Killing {
    async fn send(&self, request: Request<Bytes>, limit: Duration) -> Result<Response<Bytes>, TransportError> {
        let is_send = request.method() == Method::POST && request.uri().path().ends_with("/messages");
        let step = if is_send { self.step.lock().unwrap().take() } else { None };
        if let Some(Step::BeforeSend) = step {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
        let answer = self.inner.send(request, limit).await;
        match step {
            Some(Step::AfterSend) => {
                self.reached.notify_one();
                std::future::pending::<()>().await;
            }
            Some(Step::BeforeCommit) => {
                (self.end_session)();
                self.reached.notify_one();
            }
            Some(Step::BeforeSend) | None => {}
        }
        answer
    }
}

/// A worker whose handler has its effect in a transaction with the claim of the message's key.
fn charging(world: &World) -> dms_worker::WorkerBuilder {
    let inbox = Inbox::new(Postgres::builder(world.postgres.url()).build().unwrap()).scope("billing");
    let url = world.postgres.url();
    world.orders.worker(handler_fn(move |delivery: Delivery| {
        let (inbox, url) = (inbox.clone(), url.clone());
        async move {
            let (mut database, connection) = tokio_postgres::connect(&url, NoTls).await?;
            tokio::spawn(connection);
            let key = delivery.attribute(DEDUPLICATION_KEY).ok_or_else(|| HandlerError::reject("no key"))?;
            let transaction = database.transaction().await?;
            if inbox.claim(&transaction, &key).await? {
                let order: i64 = delivery.json()?;
                transaction.execute("INSERT INTO charges (id) VALUES ($1)", &[&order]).await?;
                transaction.commit().await?;
            }
            Ok(())
        }
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_relay_that_is_killed_at_any_step_are_stored_once() {
    for step in [Step::BeforeSend, Step::AfterSend, Step::BeforeCommit] {
        let Some(world) = World::new().await else { return };
        world.sql("CREATE TABLE charges (id bigint NOT NULL)");
        world.commit(1..=3).await;
        let (reached, url) = (Arc::new(Notify::new()), world.postgres.url());
        let ended = Arc::new(PgControl { url });
        let network = Killing {
            inner: InProcess::new(world.server.server().service()),
            step: Mutex::new(Some(step)),
            reached: reached.clone(),
            end_session: Box::new({
                let ended = ended.clone();
                move || ended.end_relay_sessions()
            }),
        };
        let killed = world.relay(world.client(network), Arc::default());
        timeout(TEST_TIMEOUT, reached.notified()).await.expect("the step is not reached");
        if let Step::BeforeSend | Step::AfterSend = step {
            assert_eq!(world.sql("SELECT count(*) FROM dms_worker.outbox"), ["3"], "{step:?}: nothing is committed");
            killed.abort();
            let _ = killed.await;
        } else {
            // The relay survives the end of its session, and so does the outbox.
            drop(killed);
        }
        world.relay_all().await;
        let report = world.orders.run_worker(charging(&world)).await;
        assert_eq!(report.received, 3, "{step:?}: {report:?}");
        assert_eq!(world.sql("SELECT id FROM charges ORDER BY id"), ["1", "2", "3"], "{step:?}");
    }
}

/// Ends the database sessions of relays from outside.
struct PgControl {
    url: String,
}

impl PgControl {
    fn end_relay_sessions(&self) {
        let url = self.url.clone();
        let end = async move {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            let sql =
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE state = 'idle in transaction'";
            client.batch_execute(sql).await.unwrap();
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(end));
    }
}

#[tokio::test]
async fn messages_arrive_in_order_if_their_transaction_is_committed_and_only_then() {
    let Some(world) = World::new().await else { return };
    world.commit(1..=25).await;
    let mut database = world.database().await;
    let transaction = database.transaction().await.unwrap();
    world.outbox.send(&transaction, "orders", &Message::json(&99).unwrap()).await.unwrap();
    transaction.rollback().await.unwrap();
    world.commit([26]).await;
    let report = world.relay_all().await;
    assert_eq!((report.sent, report.refused), (26, 0));
    assert_eq!(world.orders.waiting::<u64>().await, (1..=26).collect::<Vec<_>>());
}

/// A message that was added after another transaction was committed is sent after that one's message. Of transactions that run at the
/// same time, the one that is committed late is sent late, and not lost, although its id is smaller.
#[tokio::test]
async fn the_order_is_that_of_changes_that_follow_each_other() {
    let Some(world) = World::new().await else { return };
    world.sql("CREATE TABLE account (balance int)");
    world.sql("INSERT INTO account VALUES (0)");
    let mut early = world.database().await;
    let early = early.transaction().await.unwrap();
    world.outbox.send(&early, "orders", &Message::json(&0).unwrap()).await.unwrap();

    // Each transaction waits for the one before it, and adds its message under the lock of the row.
    let mut changes = Vec::new();
    for number in 1..=4_u64 {
        let (outbox, mut database) = (world.outbox.clone(), world.database().await);
        changes.push(tokio::spawn(async move {
            for step in 0..10 {
                let transaction = database.transaction().await.unwrap();
                let sql = "UPDATE account SET balance = balance + 1 RETURNING balance";
                let balance: i32 = transaction.query_one(sql, &[]).await.unwrap().get(0);
                outbox.send(&transaction, "orders", &Message::json(&balance).unwrap()).await.unwrap();
                // Others commit meanwhile, so that ids and commits are mixed.
                if (step + number) % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                transaction.commit().await.unwrap();
            }
        }));
    }
    let stop = Arc::new(Notify::new());
    let running = world.relay(world.server.client(), stop.clone());
    for change in changes {
        timeout(TEST_TIMEOUT, change).await.expect("a change hangs").unwrap();
    }
    let sent = async {
        // That of the open transaction is not visible.
        while world.sql("SELECT count(*) FROM dms_worker.outbox") != ["0"] {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, sent).await.expect("a message waits for an open transaction");
    early.commit().await.unwrap();
    stop.notify_one();
    timeout(TEST_TIMEOUT, running).await.expect("the relay does not end").unwrap();
    world.relay_all().await;
    let expected: Vec<u64> = (1..=40).chain([0]).collect();
    assert_eq!(world.orders.waiting::<u64>().await, expected);
}

#[tokio::test]
async fn a_message_keeps_its_attributes_labels_and_deduplication_key() {
    let Some(world) = World::new().await else { return };
    let mut database = world.database().await;
    let transaction = database.transaction().await.unwrap();
    let plain = Message::text("naïve 鍵").attribute("shop", "north").tag("urgent");
    let key = world.outbox.send(&transaction, "orders", &plain).await.unwrap();
    let own = Message::text("own").attribute(DEDUPLICATION_KEY, "order-7");
    assert_eq!(world.outbox.send(&transaction, "orders", &own).await.unwrap(), "order-7");
    transaction.commit().await.unwrap();
    world.relay_all().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = handler_fn({
        let seen = seen.clone();
        move |delivery: Delivery| {
            let of = |name| delivery.attribute(name).map(|value| value.into_owned());
            let line = (delivery.json::<String>(), of("shop"), of(DEDUPLICATION_KEY), delivery.tags().to_vec());
            seen.lock().unwrap().push((line.0.unwrap(), line.1, line.2, line.3));
            async { Ok(()) }
        }
    });
    world.orders.run_worker(world.orders.worker(handler)).await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let first = ("naïve 鍵".to_owned(), Some("north".to_owned()), Some(key), vec!["urgent".to_owned()]);
    assert_eq!(seen, [first, ("own".to_owned(), None, Some("order-7".to_owned()), Vec::new())]);
}

#[tokio::test]
async fn a_message_that_can_never_be_sent_is_set_aside_with_its_reason() {
    let Some(world) = World::new().await else { return };
    let mut database = world.database().await;
    let transaction = database.transaction().await.unwrap();
    let long = Message::text(&"x".repeat(600_000));
    world.outbox.send(&transaction, "orders", &long).await.unwrap_err();
    world.outbox.send(&transaction, "orders", &Message::json(&1).unwrap()).await.unwrap();
    transaction.commit().await.unwrap();
    // As a faulty program would write it.
    world.sql("INSERT INTO dms_worker.outbox (queue, body) VALUES ('orders', 'no JSON')");
    world.sql("INSERT INTO dms_worker.outbox (queue, body, attributes) VALUES ('orders', '3', '{tenant:7}')");
    // What the relay could not even read is refused by the table.
    for column in ["tags) VALUES ('orders', '4', ARRAY['a', NULL])", "available) VALUES ('orders', '4', 'infinity')"] {
        let row = format!("INSERT INTO dms_worker.outbox (queue, body, {column}");
        assert!(database.batch_execute(&row).await.is_err(), "{row}");
    }
    world.commit([2]).await;
    let report = world.relay_all().await;
    assert_eq!((report.sent, report.refused), (2, 2));
    assert_eq!(world.orders.waiting::<u64>().await, [1, 2]);
    assert_eq!(world.sql("SELECT count(*) FROM dms_worker.outbox WHERE refused LIKE '%JSON%'"), ["2"]);
}

#[tokio::test]
async fn of_two_relays_one_is_active_and_the_messages_of_a_missing_queue_wait_for_it() {
    let Some(world) = World::new().await else { return };
    let mut database = world.database().await;
    let transaction = database.transaction().await.unwrap();
    // More messages than a batch holds, so that they would keep others out.
    for body in 0..150 {
        world.outbox.send(&transaction, "later", &Message::json(&body).unwrap()).await.unwrap();
    }
    transaction.commit().await.unwrap();
    world.commit(1..=200).await;
    let stop = Arc::new(Notify::new());
    let relays = [(); 2].map(|()| world.relay(world.server.client(), stop.clone()));
    let others = async {
        while world.sql("SELECT count(*) FROM dms_worker.outbox") != ["150"] {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, others).await.expect("a missing queue holds up the others");
    let later = world.server.group(NewQueue::new("later"), "billing").await;
    let all = async {
        while world.sql("SELECT count(*) FROM dms_worker.outbox") != ["0"] {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, all).await.expect("the queue exists by now");
    stop.notify_waiters();
    for relay in relays {
        timeout(TEST_TIMEOUT, relay).await.expect("the relay does not end").unwrap();
    }
    assert_eq!(later.waiting::<u64>().await, (0..150).collect::<Vec<_>>());
    assert_eq!(world.orders.waiting::<u64>().await, (1..=200).collect::<Vec<_>>(), "in order, and each once");
}

#[tokio::test]
async fn a_key_is_taken_with_its_transaction_and_free_without_it() {
    let Some(world) = World::new().await else { return };
    let inbox = |scope: &str| Inbox::new(Postgres::builder(world.postgres.url()).build().unwrap()).scope(scope);
    let billing = inbox("billing");
    let (mut here, mut there) = (world.database().await, world.database().await);
    let first = here.transaction().await.unwrap();
    assert!(billing.claim(&first, "a").await.unwrap());
    assert!(!billing.claim(&first, "a").await.unwrap(), "in the same transaction, too");
    first.rollback().await.unwrap();

    let second = here.transaction().await.unwrap();
    assert!(billing.claim(&second, "a").await.unwrap(), "a rollback frees the key");
    // A claim of another transaction waits for the end of this one.
    let waiting = tokio::spawn({
        let billing = billing.clone();
        async move {
            let third = there.transaction().await.unwrap();
            billing.claim(&third, "a").await.unwrap()
        }
    });
    let blocked = async {
        while world.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") != ["1"] {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, blocked).await.expect("the claim does not wait");
    second.commit().await.unwrap();
    assert!(!timeout(TEST_TIMEOUT, waiting).await.unwrap().unwrap(), "the key is taken");

    let fourth = here.transaction().await.unwrap();
    assert!(inbox("shipping").claim(&fourth, "a").await.unwrap(), "another scope");
    let short = inbox("short").keep(Duration::ZERO);
    assert!(short.claim(&fourth, "a").await.unwrap() && short.claim(&fourth, "a").await.unwrap(), "its time is over");
}
