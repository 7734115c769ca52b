//! The listeners, of a server's API, its admin address, a sidecar's and a publisher: how long and how large a request's head may be,
//! how long a connection may be silent, and how many there may be.

use std::{net::SocketAddr, time::Duration};

use dms_server::{Server, ServerConfig};
use dms_worker_cli::{
    config::{Request, load},
    sidecar::Sidecar,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use crate::clock::{rest, still, takes};

/// Every kind of listener on a free port; they end when the guards are dropped.
pub(crate) struct Listening {
    pub(crate) addresses: [(&'static str, SocketAddr); 4],
    _server: oneshot::Sender<()>,
    _sidecar: tokio_util::sync::DropGuard,
}

pub(crate) async fn listening() -> Listening {
    listening_with("", "").await
}

/// The same, with these keys in front of the server's others, and these behind the small listeners'.
pub(crate) async fn listening_with(server_keys: &str, keys: &str) -> Listening {
    let any = Some(([127, 0, 0, 1], 0).into());
    let admin_token = keys.contains("token: T").then(|| "T".into());
    let server = Server::bind(ServerConfig::default().admin(any).admin_token(admin_token)).await.unwrap();
    let server_admin = server.admin_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(server.run(async { drop(stopped.await) }));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let auth = if server_keys.contains("auth") { "dms: {auth: {access_key: AK, secret_key: SK}}\n" } else { "" };
    let yaml = format!(
        "{auth}server: {{{server_keys}listen: '127.0.0.1:0', queues: [{{name: q}}]}}\n\
         publishers: [{{queue: q, listen: '127.0.0.1:0'{keys}}}]\nadmin: {{listen: '127.0.0.1:0'{keys}}}\n"
    );
    std::fs::write(&file, yaml).unwrap();
    let config = load(&Request::new().file(file)).unwrap_or_else(|error| panic!("{error}")).config;
    let sidecar = Sidecar::start(config).await.unwrap();
    let addresses = [
        ("server.admin", server_admin),
        ("admin", sidecar.admin_addr().unwrap()),
        ("publisher", sidecar.publisher_addrs()[0]),
        ("server", sidecar.server_addr().unwrap()),
    ];
    let ending = CancellationToken::new();
    tokio::spawn(sidecar.run(ending.clone()));
    Listening { addresses, _server: stop, _sidecar: ending.drop_guard() }
}

/// Asks for something and reads the head of the answer.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8_lossy(&head).into_owned()
}

#[tokio::test(start_paused = true)]
async fn slow_heads_are_cut_off_everywhere() {
    let listening = listening().await;
    for (name, address) in listening.addresses {
        for begun in ["", "GET /livez HTTP/1.1\r\nHo"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            println!("{name}, after {begun:?}");
            let heard = async { ask(&mut TcpStream::connect(address).await.unwrap()).await };
            takes(Duration::from_secs(10), heard, rest(&mut stream)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_closed_everywhere() {
    let listening = listening().await;
    for (name, address) in listening.addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(still(ask(&mut stream)).await.starts_with("HTTP/1.1 "), "{name}");
        println!("{name}");
        takes(Duration::from_secs(75), async {}, rest(&mut stream)).await;
    }
}

#[tokio::test]
async fn callers_that_close_their_sending_side_are_answered_everywhere() {
    let listening = listening().await;
    for (name, address) in listening.addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn large_heads_are_refused_everywhere() {
    let listening = listening().await;
    for (name, address) in listening.addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let line = format!("X-Large: {}\r\n", "x".repeat(1_000));
        let head = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", line.repeat(200));
        // It may be refused before all of it is written.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{name}: {answer}");
    }
}

/// Connections of strangers that stay do not keep probes out, with a token and without.
#[tokio::test]
async fn probes_get_through_when_all_connections_are_used() {
    for keys in ["", ", token: T"] {
        let listening = listening_with("", keys).await;
        for (name, address) in listening.addresses.into_iter().filter(|(name, _)| name.ends_with("admin")) {
            let mut held = Vec::new();
            for number in 0..300 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                match number % 3 {
                    0 => {}
                    1 => stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap(),
                    _ => drop(ask(&mut stream).await),
                }
                held.push(stream);
            }
            for _ in 0..10 {
                let mut probe = TcpStream::connect(address).await.unwrap();
                assert_eq!(ask(&mut probe).await, "HTTP/1.1 200", "{name}");
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(
                    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer T\r\nConnection: close\r\n\r\n",
                )
                .await
                .unwrap();
            let metrics = rest(&mut stream).await;
            let closed: usize = metrics
                .lines()
                .filter(|line| line.starts_with(&format!("dms_connections_closed_total{{listener=\"{name}\"")))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
                .sum();
            assert!(closed >= 44, "{name}: {closed} were closed: {metrics}");
        }
    }
}
