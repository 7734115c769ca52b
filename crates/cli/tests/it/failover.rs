//! Two real servers on one PostgreSQL, stopped, resumed and killed under traffic: no answered message is lost, none that was
//! acknowledged comes back, and never do both serve.

use std::{
    collections::HashSet,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckStatus, Message},
    queue::{ConsumerGroup, SourcePath},
    retry::RetryPolicy,
};
use dms_worker_postgres_fixture::PgServer;

/// How often the serving server is stopped, and how often it is killed.
const STOPS: usize = 3;
const KILLS: usize = 3;
/// `takeover_after`, and by when the other server serves.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(2);
const SERVES_WITHIN: Duration = Duration::from_secs(5);
const QUEUE: &str = "{name: orders, groups: [billing]}";

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) sent: Mutex<HashSet<u64>>,
    pub(crate) settled: Mutex<HashSet<u64>>,
    /// Numbers whose acknowledgement was sent: it may have counted without an answer.
    pub(crate) unsure: Mutex<HashSet<u64>>,
    pub(crate) came_back: Mutex<HashSet<u64>>,
    pub(crate) next: AtomicU64,
    pub(crate) done: AtomicBool,
}

impl Books {
    /// Ends the traffic, and checks that nothing was lost and nothing came back.
    pub(crate) async fn close(&self, traffic: Vec<tokio::task::JoinHandle<()>>) {
        self.done.store(true, Ordering::SeqCst);
        for task in traffic {
            task.await.unwrap();
        }
        let (sent, settled, unsure) =
            (self.sent.lock().unwrap(), self.settled.lock().unwrap(), self.unsure.lock().unwrap());
        let lost: Vec<_> = sent.iter().filter(|number| !settled.contains(number) && !unsure.contains(number)).collect();
        assert!(sent.len() > 100 && lost.is_empty(), "{} sent, lost: {lost:?}", sent.len());
        assert_eq!(*self.came_back.lock().unwrap(), HashSet::new(), "acknowledged messages that came back");
    }

    /// Whether a message that was answered was never received.
    fn lacks_some(&self) -> bool {
        let (settled, unsure) = (self.settled.lock().unwrap(), self.unsure.lock().unwrap());
        self.sent.lock().unwrap().iter().any(|number| !settled.contains(number) && !unsure.contains(number))
    }

    /// Checks what a group has left and has had.
    pub(crate) fn check(&self, group: &ConsumerGroup) {
        assert_eq!(group.available_messages, 0);
        assert!(group.produced_messages >= u64::try_from(self.sent.lock().unwrap().len()).unwrap());
        assert!(group.consumed_messages >= u64::try_from(self.settled.lock().unwrap().len()).unwrap());
    }
}

pub(crate) struct Node {
    pub(crate) address: String,
    child: Option<Child>,
    config: String,
}

impl Node {
    /// A server with further settings of its cluster and these queues.
    pub(crate) fn new(dir: &Path, name: &str, (postgres, schema): (&str, &str), cluster: &str, queues: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let secret = dir.join(format!("{name}.url"));
        std::fs::write(&secret, postgres).unwrap();
        let config = dir.join(format!("{name}.yaml"));
        let text = format!(
            "server:\n  listen: {address}\n  postgres: {{url_file: {}, schema: {schema}}}\n  cluster: {{takeover_after: {}s{cluster}}}\n  queues: [{queues}]\n",
            secret.display(),
            TAKEOVER.as_secs(),
        );
        std::fs::write(&config, text).unwrap();
        Self { address, child: None, config: config.display().to_string() }
    }

    /// Gives it an admin address, and returns that.
    pub(crate) fn with_admin(&mut self) -> String {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, text.replacen("server:\n", &format!("server:\n  admin: {address}\n"), 1)).unwrap();
        address
    }

    pub(crate) fn start(&mut self) {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_dms-worker"));
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        serve.args(["serve", "--config", &self.config]).stdout(Stdio::null()).stderr(log);
        self.child = Some(serve.spawn().unwrap());
    }

    fn log(&self) -> String {
        format!("{}.log", self.config)
    }

    /// The last lines that it wrote, for a test that fails.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::builder(format!("http://{}", self.address), "local").retry(RetryPolicy::never()).build().unwrap()
    }

    pub(crate) async fn serves(&self) -> bool {
        let asked = tokio::time::timeout(Duration::from_millis(500), self.client().queues()).await;
        asked.is_ok_and(|queues| queues.is_ok())
    }

    pub(crate) async fn await_serving(&self) -> Duration {
        let began = Instant::now();
        while !self.serves().await {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{} does not serve: {}",
                self.address,
                self.last_words()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) async fn produce(clients: Vec<Client>, source: SourcePath, books: Arc<Books>) {
    let mut turn = 0;
    while !books.done.load(Ordering::SeqCst) {
        let numbers: Vec<u64> = (0..3).map(|_| books.next.fetch_add(1, Ordering::SeqCst)).collect();
        let batch: Vec<_> = numbers.iter().map(|number| Message::json(number).unwrap()).collect();
        let sent =
            tokio::time::timeout(Duration::from_secs(2), clients[turn % clients.len()].send(&source.queue, &batch))
                .await;
        match sent {
            Ok(Ok(outcomes)) => {
                let answered =
                    numbers.into_iter().zip(outcomes).filter_map(|(number, sent)| sent.is_ok().then_some(number));
                books.sent.lock().unwrap().extend(answered);
            }
            _ => {
                turn += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

pub(crate) async fn consume(clients: Vec<Client>, source: SourcePath, books: Arc<Books>) {
    let options = ConsumeOptions::new().poll_wait(Duration::from_secs(1));
    let mut turn = 0;
    let mut empty_since_done = 0;
    // What a server leased to a poll whose answer was lost comes back when its lease ends.
    let mut ended = None;
    let lease = Duration::from_secs(45);
    while empty_since_done < 3 || (books.lacks_some() && ended.is_none_or(|at: Instant| at.elapsed() < lease)) {
        if books.done.load(Ordering::SeqCst) {
            ended.get_or_insert_with(Instant::now);
        }
        let polled =
            tokio::time::timeout(Duration::from_secs(3), clients[turn % clients.len()].consume(&source, &options))
                .await;
        let Ok(Ok(messages)) = polled else {
            turn += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let numbers: Vec<u64> = messages.iter().map(|message| message.body.parse().unwrap()).collect();
        if numbers.is_empty() {
            empty_since_done += usize::from(books.done.load(Ordering::SeqCst));
            continue;
        }
        {
            let settled = books.settled.lock().unwrap();
            books.came_back.lock().unwrap().extend(numbers.iter().filter(|number| settled.contains(number)));
        }
        books.unsure.lock().unwrap().extend(&numbers);
        let acks: Vec<_> = messages.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
        let acked =
            tokio::time::timeout(Duration::from_secs(2), clients[turn % clients.len()].acknowledge(&source, &acks))
                .await;
        if acked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.success == acks.len())) {
            books.settled.lock().unwrap().extend(numbers);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_when_the_owner_is_stopped_or_killed() {
    let Some(postgres) = PgServer::start("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = ["a", "b"].map(|name| Node::new(dir.path(), name, (&postgres.url(), "dms"), "", QUEUE));
    nodes[0].start();
    nodes[0].await_serving().await;
    nodes[1].start();
    let first = nodes[0].client();
    let queue = first.queues().await.unwrap().remove(0).id;
    let group = first.groups(&queue).await.unwrap().remove(0).id;
    let source = SourcePath::messages(queue, group);
    let books = Arc::new(Books::default());
    let clients = || nodes.iter().map(Node::client).collect::<Vec<_>>();
    let traffic: Vec<_> = (0..2)
        .flat_map(|_| {
            let produced = tokio::spawn(produce(clients(), source.clone(), books.clone()));
            [produced, tokio::spawn(consume(clients(), source.clone(), books.clone()))]
        })
        .collect();
    let mut owner = 0;
    for turn in 0..STOPS + KILLS {
        let other = 1 - owner;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let is_stop = turn < STOPS;
        if is_stop {
            nodes[owner].signal("STOP")
        } else {
            nodes[owner].kill()
        }
        let took = nodes[other].await_serving().await;
        assert!(took < SERVES_WITHIN, "turn {turn}: {took:?}");
        if is_stop {
            nodes[owner].signal("CONT");
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!nodes[owner].serves().await, "turn {turn}: both serve");
        } else {
            nodes[owner].start();
        }
        owner = other;
    }
    books.close(traffic).await;
    let group = nodes[owner].client().groups(&source.queue).await.unwrap().remove(0);
    books.check(&group);
}

/// An orderly stop lets the other server take over at once, and the one that stands by says who serves.
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_hands_over_at_once() {
    let Some(postgres) = PgServer::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = ["a", "b"].map(|name| Node::new(dir.path(), name, (&postgres.url(), "orderly"), "", QUEUE));
    nodes[0].start();
    nodes[0].await_serving().await;
    nodes[1].start();
    let began = Instant::now();
    let refused = loop {
        match nodes[1].client().queues().await {
            Err(error) if error.status().is_some() => break error,
            _ => assert!(began.elapsed() < Duration::from_secs(20)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(refused.status().map(|status| status.as_u16()), Some(503), "{refused}");
    nodes[0].signal("TERM");
    let took = nodes[1].await_serving().await;
    assert!(took < TAKEOVER, "{took:?}");
}
