//! Callers without credentials: bodies they announce and connections they hold do not keep others from being served.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use dms_server::{HttpLimits, Server, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    time::Instant,
};

use super::{PROJECT, guarded};
use crate::clock::still;

/// A running server; it stops when this is dropped.
struct Running {
    address: SocketAddr,
    token: String,
    _stop: oneshot::Sender<()>,
}

/// Serves with room for 16 MiB of bodies.
async fn serve(config: ServerConfig) -> Running {
    let limits = config.limits.clone().total_body_bytes(16 << 20);
    let config = config.listen(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).limits(limits);
    let server = Server::bind(config).await.unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(server.run(async { drop(stopped.await) }));
    let mut running = Running { address, token: String::new(), _stop: stop };
    running.token = running.log_in().await;
    running
}

impl Running {
    async fn log_in(&self) -> String {
        let user = r#"{"name":"u","password":"pass","domain":{"name":"d"}}"#;
        let body = format!(
            r#"{{"auth":{{"identity":{{"methods":["password"],"password":{{"user":{user}}}}},"scope":{{"project":{{"id":"{PROJECT}"}}}}}}}}"#
        );
        let length = body.len();
        let head = format!("POST /v3/auth/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = self.connect("127.0.0.1").await;
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let answer = head_of_answer(&mut stream).await;
        let token = answer.lines().find_map(|line| line.strip_prefix("x-subject-token: "));
        token.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn connect(&self, source: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Begins a request on a new connection: this part of a body of 1 MiB.
    async fn begin(&self, source: &str, authorization: &str, sent: usize) -> TcpStream {
        let mut stream = self.connect(source).await;
        let head = format!(
            "POST /v2/{PROJECT}/queues HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: 1048576\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; sent]).await.unwrap();
        stream
    }

    /// Creates a queue with a request of this many bytes, and gives the status.
    async fn create(&self, source: &str, name: &str, bytes: usize) -> String {
        let mut stream = self.connect(source).await;
        let mut body = format!(r#"{{"name":"{name}"}}"#);
        body.push_str(&" ".repeat(bytes - body.len()));
        let (token, length) = (&self.token, body.len());
        let head = format!(
            "POST /v2/{PROJECT}/queues HTTP/1.1\r\nHost: localhost\r\nX-Auth-Token: {token}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        head_of_answer(&mut stream).await[..12].to_owned()
    }
}

async fn head_of_answer(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads the bytes that have arrived, and returns whether more may arrive.
fn is_open(stream: &TcpStream) -> bool {
    let mut arrived = [0; 1024];
    loop {
        match stream.try_read(&mut arrived) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// The name of the server's key with a signature that is wrong, which only the body could show.
const PLAUSIBLE: &str = "X-Sdk-Date: 20261122T203300Z\r\nAuthorization: SDK-HMAC-SHA256 Access=CONFORMANCEAK0000001, \
                         SignedHeaders=host;x-sdk-date, Signature=00\r\n";
const UNKNOWN: &str = "X-Sdk-Date: 20261122T203300Z\r\nAuthorization: SDK-HMAC-SHA256 Access=NOBODY, \
                       SignedHeaders=host;x-sdk-date, Signature=00\r\n";
const OLD: &str = "X-Sdk-Date: 20261122T203300Z\r\nAuthorization: SDK-HMAC-SHA256 Access=CONFORMANCEAK0000001, \
                   SignedHeaders=host, Signature=00\r\n";
const BAD_TOKEN: &str = "X-Auth-Token: 0123\r\n";

/// Announced bodies that do not arrive reserve nothing, whatever caller they claim.
#[tokio::test(start_paused = true)]
async fn announced_bodies_that_never_arrive_delay_nobody() {
    still(async {
        let server = serve(guarded()).await;
        let begun = Instant::now();
        let mut held = Vec::new();
        for _ in 0..300 {
            held.push(server.begin("127.0.0.1", PLAUSIBLE, 1).await);
        }
        assert_eq!(server.create("127.0.0.1", "small", 100).await, "HTTP/1.1 201");
        assert_eq!(server.create("127.0.0.1", "large", 1 << 20).await, "HTTP/1.1 201");
        assert!(begun.elapsed() < Duration::from_secs(1), "they waited for {:?}", begun.elapsed());
    })
    .await;
}

/// A peer that sends large bodies halfway takes its own share of the room, and leaves the others theirs.
#[tokio::test(start_paused = true)]
async fn incomplete_bodies_use_at_most_the_share_of_their_peer() {
    still(async {
        let server = serve(guarded()).await;
        let begun = Instant::now();
        let mut held = Vec::new();
        for _ in 0..64 {
            held.push(server.begin("127.0.0.2", PLAUSIBLE, 300 << 10).await);
        }
        assert_eq!(server.create("127.0.0.2", "small", 100).await, "HTTP/1.1 201");
        assert_eq!(server.create("127.0.0.1", "large", 1 << 20).await, "HTTP/1.1 201");
        assert!(begun.elapsed() < Duration::from_secs(1), "they waited for {:?}", begun.elapsed());
    })
    .await;
}

/// Connections that a stranger holds take its own share of the places: others are served, and those who have shown
/// credentials keep their idle connections.
#[tokio::test]
async fn connections_of_strangers_replace_each_other() {
    let limits = HttpLimits::default().connections(64);
    let server = serve(guarded().limits(limits)).await;
    let mut known = server.connect("127.0.0.1").await;
    let list =
        format!("GET /v2/{PROJECT}/queues HTTP/1.1\r\nHost: localhost\r\nX-Auth-Token: {}\r\n\r\n", server.token);
    let mut asks = async || {
        known.write_all(list.as_bytes()).await.unwrap();
        let head = head_of_answer(&mut known).await;
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        known.read_exact(&mut vec![0; length]).await.unwrap();
        head[..12].to_owned()
    };
    assert_eq!(asks().await, "HTTP/1.1 200");
    let mut held = Vec::new();
    for number in 0..200 {
        let authorization = if number % 2 == 0 { PLAUSIBLE } else { UNKNOWN };
        held.push(server.begin("127.0.0.2", authorization, 1).await);
    }
    for number in 0..20 {
        assert_eq!(server.create("127.0.0.1", &format!("q{number}"), 100).await, "HTTP/1.1 201");
    }
    assert_eq!(asks().await, "HTTP/1.1 200");
    // Its share is 16; a few more are being answered at any time. A busy machine takes a moment to close the others.
    let begun = Instant::now();
    while held.len() > 20 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} connections of the stranger are open", held.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
        held.retain(is_open);
    }
}

/// What the head alone refuses is refused before the body is there; a sender who goes on writing reads the answer and may
/// use the connection again.
#[tokio::test]
async fn strangers_are_refused_before_their_body_is_read() {
    let server = serve(guarded()).await;
    for authorization in ["", UNKNOWN, OLD, BAD_TOKEN] {
        let mut stream = server.begin("127.0.0.1", authorization, 1000).await;
        let answer = head_of_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{authorization}: {answer}");
        let length: usize =
            answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        stream.write_all(&vec![b' '; (1 << 20) - 1000]).await.unwrap();
        stream.write_all(b"GET /v3 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let answer = head_of_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{authorization}: {answer}");
    }
}

/// A request for a token is the one body that strangers may send; it is small.
#[tokio::test]
async fn requests_for_tokens_have_a_small_limit() {
    let server = serve(guarded()).await;
    let mut stream = server.connect("127.0.0.1").await;
    let head = "POST /v3/auth/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b' '; 65537]).await.unwrap();
    let answer = head_of_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
