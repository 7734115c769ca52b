//! Sockets: deadlines, limits, refusals at the start, the order of a shutdown.

use std::{sync::Arc, time::Duration};

use dms_protocol::{queue::NewQueue, secret::Secret, settings::InvalidSetting};
use dms_server::{HttpLimits, Project, Rights, Server, ServerConfig, ServerError, StartQueue, broker::Broker};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, advance, timeout},
};

use super::{PROJECT, guarded};
use crate::clock::{rest, still, takes};

pub(super) struct Running {
    pub(super) address: std::net::SocketAddr,
    broker: Arc<dyn Broker>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServerError>>,
}

pub(super) async fn serve(config: ServerConfig) -> Running {
    let config = config.listen(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = Server::bind(config).await.unwrap();
    let address = server.local_addr().unwrap();
    let broker = Arc::clone(server.broker());
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(server.run(async { drop(stopped.await) }));
    Running { address, broker, stop, ended }
}

impl Running {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn waiting_polls(&self) -> u64 {
        let queues = self.broker.overview();
        queues.iter().flat_map(|queue| &queue.groups).map(|group| group.polls).sum()
    }

    async fn wait_for_polls(&self, count: u64) {
        while self.waiting_polls() < count {
            tokio::task::yield_now().await;
        }
    }

    /// Sends a request on a new connection.
    pub(super) async fn exchange(&self) {
        request(&mut self.connect().await, "GET", "/queues", "").await;
    }
}

/// One answer: head and body as text.
pub(super) async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        text.extend_from_slice(&chunk[..read]);
        let shown = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = shown.split_once("\r\n\r\n") else {
            assert_ne!(read, 0, "the connection ended in the head: {shown}");
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() || read == 0 {
            return shown;
        }
    }
}

pub(super) async fn request(stream: &mut TcpStream, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let head =
        format!("{method} /v2/{PROJECT}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).await.unwrap();
    answer(stream).await
}

fn id(answer: &str) -> String {
    let start = answer.find("\"id\":\"").unwrap() + 6;
    answer[start..].split('"').next().unwrap().to_owned()
}

/// Creates a queue and a group over the socket and gives the consume path.
pub(super) async fn consume_path(stream: &mut TcpStream) -> String {
    let queue = id(&request(stream, "POST", "/queues", r#"{"name":"q"}"#).await);
    let group = id(&request(stream, "POST", &format!("/queues/{queue}/groups"), r#"{"groups":[{"name":"g"}]}"#).await);
    format!("/queues/{queue}/groups/{group}/messages?time_wait=60")
}

/// A head that never ends is cut off after its time, byte by byte or not at all; a served connection may idle longer.
#[tokio::test(start_paused = true)]
async fn slow_heads_are_cut_off() {
    let server = serve(ServerConfig::default()).await;
    let mut silent = server.connect().await;
    assert_eq!(takes(Duration::from_secs(10), server.exchange(), rest(&mut silent)).await, "");

    let mut begun = server.connect().await;
    still(request(&mut begun, "GET", "/queues", "")).await;
    begun.write_all(b"GET /v2/p/queues HTTP/1.1\r\nHo").await.unwrap();
    assert_eq!(takes(Duration::from_secs(10), server.exchange(), rest(&mut begun)).await, "");

    let mut idle = server.connect().await;
    still(request(&mut idle, "GET", "/queues", "")).await;
    assert_eq!(takes(Duration::from_secs(75), async {}, rest(&mut idle)).await, "");
}

/// A body that does not arrive is answered with 408.
#[tokio::test(start_paused = true)]
async fn slow_bodies_are_refused() {
    let server = serve(ServerConfig::default()).await;
    let mut stream = server.connect().await;
    let head = format!("POST /v2/{PROJECT}/queues HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 408"));
}

/// Bodies share a room: a large one that finds none waits, and is read when another gives its room back.
#[tokio::test(start_paused = true)]
async fn request_bodies_share_a_limit_of_memory() {
    let limits = HttpLimits::default().total_body_bytes(1 << 20);
    let server = serve(ServerConfig::default().limits(limits)).await;
    let (mut slow, mut waiting) = (server.connect().await, server.connect().await);
    let head = format!("POST /v2/{PROJECT}/queues HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{{");
    still(async {
        slow.write_all(head.as_bytes()).await.unwrap();
        slow.write_all(&[b' '; 500_000]).await.unwrap();
        // It is answered later, so everything written before has arrived too.
        server.exchange().await;
    })
    .await;
    let body = format!(r#"{{"name":"q"}}{}"#, " ".repeat(999_000));
    let answered = request(&mut waiting, "POST", "/queues", &body).await;
    assert!(answered.starts_with("HTTP/1.1 201"), "{answered}");
    assert!(answer(&mut slow).await.starts_with("HTTP/1.1 408"), "the client that sent nothing more");
}

/// A long poll outlasts the deadline of heads: the silence of a waiting caller is its right.
#[tokio::test(start_paused = true)]
async fn long_polls_are_not_cut_off() {
    let server = serve(ServerConfig::default()).await;
    let mut stream = server.connect().await;
    let path = still(consume_path(&mut stream)).await;
    let polling = request(&mut stream, "GET", &path, "");
    let polled = takes(Duration::from_secs(60), server.exchange(), polling).await;
    assert!(polled.starts_with("HTTP/1.1 200") && polled.ends_with("[]"), "{polled}");
}

/// On a stop, waiting consume calls are answered empty at once, and the server ends.
#[tokio::test(start_paused = true)]
async fn a_shutdown_answers_long_polls() {
    let server = serve(ServerConfig::default()).await;
    let (mut first, mut idle) = (server.connect().await, server.connect().await);
    still(request(&mut idle, "GET", "/queues", "")).await;
    let path = still(consume_path(&mut first)).await;
    let begun = Instant::now();
    let polling = tokio::spawn(async move { request(&mut first, "GET", &path, "").await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.stop.send(()).unwrap();
    let polled = still(polling).await.unwrap();
    assert!(polled.starts_with("HTTP/1.1 200") && polled.ends_with("[]"), "{polled}");
    still(server.ended).await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert!(TcpStream::connect(server.address).await.is_err());
}

/// More connections than the limit wait to be accepted, and are served when one ends. A request that is worked on is never cut.
#[tokio::test(start_paused = true)]
async fn connections_are_limited() {
    let limits = HttpLimits::default().connections(1);
    let faults = "latency=20s:1".parse().unwrap();
    let server = serve(ServerConfig::default().limits(limits).faults(faults)).await;
    let mut first = server.connect().await;
    let working = tokio::spawn(async move { (request(&mut first, "GET", "/queues", "").await, first) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut second = server.connect().await;
    let waiting = timeout(Duration::from_secs(5), request(&mut second, "GET", "/queues", "")).await;
    assert!(waiting.is_err(), "{waiting:?}");
    // The first one is answered, its connection is idle, and gives up its slot.
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200"));
    let (answered, mut first) = working.await.unwrap();
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert_eq!(still(rest(&mut first)).await, "");
}

/// An old connection is closed after an answer, never within one.
#[tokio::test(start_paused = true)]
async fn old_connections_are_closed_after_an_answer() {
    let limits = HttpLimits::default().connection_age(Duration::from_secs(5));
    let server = serve(ServerConfig::default().limits(limits)).await;
    let mut stream = server.connect().await;
    let path = consume_path(&mut stream).await;
    let polled = request(&mut stream, "GET", &path, "").await;
    assert!(polled.contains("connection: close") && polled.ends_with("[]"), "{polled}");
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// Without keys and users the server is for its own machine; the admin address always is.
#[tokio::test]
async fn other_addresses_than_loopback_need_credentials() {
    let anywhere = Some(([0, 0, 0, 0], 0).into());
    let refused = Server::bind(ServerConfig::default().listen(anywhere)).await.unwrap_err();
    assert!(
        refused.to_string().contains("listen: `0.0.0.0:0` can be reached from outside and no project has access keys"),
        "{refused}"
    );
    Server::bind(guarded().listen(anywhere)).await.unwrap();
    let refused = Server::bind(guarded().admin(anywhere)).await.unwrap_err();
    assert!(refused.to_string().contains("admin: `0.0.0.0:0` can be reached from outside"), "{refused}");
}

/// A project with temporary credentials.
fn with_token(security_token: &str) -> Project {
    let mut project = Project::new("p").access_key("AK", "SK");
    project.access_keys[0].security_token = Some(security_token.into());
    project
}

/// Settings that contradict each other are refused with a sentence.
#[tokio::test]
async fn contradicting_projects_are_refused() {
    for (projects, text) in [
        (vec![Project::new("a b")], "projects[0].id: `a b` is not allowed: 1 to 64 of"),
        (vec![Project::new("p"), Project::new("p")], "projects[1].id: there is another project `p`"),
        (
            vec![Project::new("p").access_key("AK", "SK"), Project::new("q")],
            "projects[1]: has neither access keys nor users",
        ),
        (vec![Project::new("p").access_key("AK", "")], "projects[0].access_keys[0].secret_key: is empty"),
        (vec![Project::new("p").access_key(" ", "SK")], "projects[0].access_keys[0].access_key: is empty"),
        (vec![with_token("")], "projects[0].access_keys[0].security_token: is empty"),
        (vec![Project::new("p").user("u", "", "d")], "projects[0].users[0].password: is empty"),
        (vec![Project::new("p").user("u", " \t", "d")], "projects[0].users[0].password: is empty"),
        (vec![Project::new("p").user("", "pass", "d")], "projects[0].users[0].user: is empty"),
        (
            vec![Project::new("p").access_key("AK", "1"), Project::new("q").access_key("AK", "2")],
            "projects[1].access_keys[0].access_key: the access key AK is listed twice with different secrets",
        ),
        (
            vec![Project::new("p").access_key("AK", "1").access_key("AK", "1")],
            "projects[0].access_keys[1].access_key: the access key AK is listed twice",
        ),
        (
            vec![with_token("t"), Project::new("q").access_key("AK", "SK")],
            "projects[1].access_keys[0].access_key: the access key AK is listed twice with different security",
        ),
    ] {
        let refused = Server::bind(ServerConfig::default().projects(projects)).await.unwrap_err();
        assert!(refused.to_string().starts_with(text), "{refused}");
    }
}

/// All mistakes are named at once, each with its setting.
#[test]
fn all_mistakes_of_a_configuration_are_found() {
    let queue = StartQueue::new(NewQueue::new("a b")).group("g").group("g");
    let mut project = Project::new("p").access_key("A K", "SK").queue(queue);
    project.access_keys[0].rights = Rights::none().send(vec!["x y".to_owned()]);
    let mut config = ServerConfig::default()
        .projects(vec![project, Project::new("q")])
        .limits(HttpLimits::default().connections(0).total_body_bytes(9))
        .hosts(vec!["dms:9400".to_owned()])
        .admin_read_token(Secret::from("R"));
    config.broker.retention = Duration::from_millis(999);
    config.broker.max_leased_bytes = 9;
    let found = config.check().unwrap_err();
    let settings: Vec<_> = found.all().iter().map(InvalidSetting::setting).collect();
    let expected = [
        "projects[1]",
        "projects[0].access_keys[0].access_key",
        "projects[0].access_keys[0].rights.send[0]",
        "projects[0].queues[0].name",
        "projects[0].queues[0].groups[1]",
        "broker.retention",
        "limits.connections",
        "limits.total_body_bytes",
        "broker.max_leased_bytes",
        "hosts[0]",
        "admin_read_token",
    ];
    assert_eq!(settings, expected, "{found}");
}

/// A port that is taken is named.
#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = serve(ServerConfig::default()).await;
    let refused = Server::bind(ServerConfig::default().listen(taken.address)).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("cannot listen on {}", taken.address));
}

/// Several servers live in one process and know nothing of each other.
#[tokio::test(start_paused = true)]
async fn servers_are_separate() {
    let (one, two) = (super::Api::start().await, super::Api::start().await);
    one.queue(r#"{"name":"q"}"#).await;
    assert_eq!(two.get("/queues").await.expect(200)["total"], 0);
}

/// A server that is dropped releases its directory: another one can open it, and finds the answered messages.
#[tokio::test]
async fn a_dropped_server_releases_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let config = || ServerConfig::default().data_dir(directory.path().to_owned());
    let first = super::Api::with(config()).await;
    let (queue, _) = first.queue_and_group("q").await;
    first.send(&queue, r#"{"body":1}"#).await;
    let refused = Server::bind(config()).await.unwrap_err();
    assert!(refused.to_string().contains(&directory.path().display().to_string()), "{refused}");
    drop(first);
    // What the server had running ends with the runtime's next turns, not within the drop.
    let second = timeout(Duration::from_secs(10), async {
        loop {
            match Server::bind(config()).await {
                Ok(server) => return super::Api::of(server),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let second = second.await.unwrap();
    assert_eq!(second.get(&queue).await.expect(200)["produced_messages"], 1);
}

/// Consume calls that wait take no connection from callers who come later: one of them is answered early.
#[tokio::test(start_paused = true)]
async fn waiting_consume_calls_keep_nobody_out() {
    let limits = HttpLimits::default().connections(2);
    let server = serve(ServerConfig::default().limits(limits)).await;
    let mut first = server.connect().await;
    let path = still(consume_path(&mut first)).await;
    let head = format!("GET /v2/{PROJECT}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    still(async {
        first.write_all(head.as_bytes()).await.unwrap();
        server.wait_for_polls(1).await;
    })
    .await;
    advance(Duration::from_millis(1)).await;
    let mut second = server.connect().await;
    still(async {
        second.write_all(head.as_bytes()).await.unwrap();
        server.wait_for_polls(2).await;
    })
    .await;
    advance(Duration::from_secs(2)).await;
    still(server.exchange()).await;
    let ended = answer(&mut first).await;
    assert!(ended.starts_with("HTTP/1.1 200") && ended.ends_with("\r\n\r\n[]"), "{ended}");
    assert!(ended.contains("connection: close"), "{ended}");
    assert_eq!(server.waiting_polls(), 1, "the other call goes on");
}
