//! The HTTP transport against a scripted peer: how far a request without an answer got.

#![allow(clippy::unwrap_used)]

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::{JoinHandle, yield_now},
    time::{advance, pause, resume},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer},
};

use super::{
    HttpOptions, HttpTransport, MAX_ANSWER_BYTES, Transport, TransportError,
    pool::{NoExchange, Pool, PoolLimits},
};
use crate::{client::Client, message::Message, queue::QueueId, retry::RetryPolicy};

/// What the peer writes when it has read a request whole; a `\0` at the end closes the connection.
type Answer = &'static str;

/// Accepts connections and answers each request with the next of `answers`. Gives the address and the requests as
/// they come, each with the number of its connection.
async fn peer(answers: &'static [Answer]) -> (String, mpsc::UnboundedReceiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (report, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answers = answers.iter();
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            while let Some(request) = read_request(&mut stream).await {
                report.send((connection, request)).unwrap();
                let Some(answer) = answers.next() else { break };
                stream.write_all(answer.trim_end_matches('\0').as_bytes()).await.unwrap();
                if answer.ends_with('\0') {
                    break;
                }
            }
        }
    });
    (address, requests)
}

/// Reads a request whose body, if any, is announced by `Content-Length`.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => text.extend_from_slice(&chunk[..read]),
        }
        let shown = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = shown.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(shown);
            }
        }
    }
}

/// The transport as it is by default, which needs no TLS here, and one that goes through the path for TLS and proxies.
fn transports() -> [HttpTransport; 2] {
    let own = HttpTransport::new(&HttpOptions::new().tls(false)).unwrap();
    let theirs = reqwest::Client::builder().user_agent("dms-worker/theirs").redirect(reqwest::redirect::Policy::none());
    [own, HttpTransport::over(theirs.build().unwrap())]
}

fn client(address: &str, transport: HttpTransport) -> Client {
    Client::builder(address, "p1").transport(Arc::new(transport)).retry(RetryPolicy::never()).build().unwrap()
}

async fn get(address: &str, transport: &HttpTransport) -> Result<http::Response<Bytes>, TransportError> {
    transport.send(Request::get(address).body(Bytes::new()).unwrap(), Duration::from_secs(5)).await
}

#[tokio::test]
async fn requests_share_a_connection_and_bear_the_host_and_the_body() {
    for transport in transports() {
        let sent = "HTTP/1.1 201 Created\r\nContent-Length: 26\r\n\r\n{\"messages\":[{\"state\":0}]}";
        let listed = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"queues\r\n5\r\n\":[]}\r\n0\r\n\r\n";
        let (address, mut requests) = peer(Box::leak(Box::new([sent, listed]))).await;
        let client = client(&address, transport.clone());
        client.send(&QueueId::from("q1"), &[Message::text("x")]).await.unwrap();
        client.queues().await.unwrap();

        let (first, request) = requests.recv().await.unwrap();
        assert!(request.starts_with("POST /v2/p1/queues/q1/messages HTTP/1.1\r\n"), "{request}");
        let lower = request.to_ascii_lowercase();
        assert!(lower.contains(&format!("host: {}\r\n", address.trim_start_matches("http://"))), "{request}");
        assert!(lower.contains("user-agent: dms-worker/"), "{request}");
        assert!(request.ends_with(r#"{"messages":[{"body":"x"}]}"#), "{request}");
        let (second, request) = requests.recv().await.unwrap();
        assert!(request.starts_with("GET /v2/p1/queues?include_deadletter=true HTTP/1.1\r\n"), "{request}");
        assert_eq!(first, second);
    }
}

/// A kept connection that its peer has closed carries no request, so nothing is unsure.
#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_not_used() {
    for transport in transports() {
        let closed: Answer = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"queues\":[]}\0";
        let announced: Answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{\"queues\":[]}\0";
        let (address, mut requests) = peer(Box::leak(Box::new([closed, closed, announced, closed]))).await;
        let client = client(&address, transport.clone());
        let mut connections = Vec::new();
        for _ in 0..2 {
            client.queues().await.unwrap();
            // The peer accepts connections one after the other, so the last one is closed by now.
            let mut other = TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
            other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert!(other.read(&mut [0; 256]).await.unwrap() > 0);
            connections.extend([requests.recv().await.unwrap().0, requests.recv().await.unwrap().0]);
        }
        assert_eq!(connections, [0, 1, 2, 3]);
    }
}

/// A peer that answers each connection once, and tells when the connection is closed.
async fn counts_closed(answer: Answer) -> (Request<Bytes>, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = Request::get(format!("http://{}/app", listener.local_addr().unwrap())).body(Bytes::new()).unwrap();
    let (report, closed) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let report = report.clone();
            tokio::spawn(async move {
                read_request(&mut stream).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                assert!(read_request(&mut stream).await.is_none());
                report.send(()).unwrap();
            });
        }
    });
    (request, closed)
}

fn pool(idle_per_host: usize) -> Pool {
    let second = Duration::from_secs(1);
    Pool::new(PoolLimits { idle_per_host, idle_timeout: second, connect_timeout: second * 5 })
}

#[tokio::test]
async fn idle_connections_are_bounded_and_closed_after_a_while() {
    let (request, mut closed) = counts_closed("HTTP/1.1 204 No Content\r\n\r\n").await;
    let pool = pool(1);
    let post = || pool.exchange_leniently(request.clone(), Duration::from_secs(5), 100);
    let (first, second) = tokio::join!(post(), post());
    assert_eq!([first, second].map(|answer| answer.unwrap().status().as_u16()), [204, 204]);
    closed.recv().await.unwrap();
    assert!(closed.try_recv().is_err(), "one is kept");
    pause();
    advance(Duration::from_secs(1)).await;
    resume();
    closed.recv().await.unwrap();
}

/// What came of the answer before it broke off, or before the time was over, is the answer.
#[tokio::test]
async fn a_lenient_reader_takes_the_head_for_the_answer() {
    for (answer, within) in [("ab", Duration::from_millis(200)), ("ab\0", Duration::from_secs(5))] {
        let answer: Answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{answer}").leak();
        let (address, _requests) = peer(Box::leak(Box::new([answer]))).await;
        let request = Request::get(address).body(Bytes::new()).unwrap();
        let answer = pool(1).exchange_leniently(request, within, 100).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_slice()), (200, &b"ab"[..]));
    }
    let (address, _requests) = peer(&["\0"]).await;
    let request = Request::get(address).body(Bytes::new()).unwrap();
    let broken = pool(1).exchange_leniently(request, Duration::from_secs(5), 100).await.unwrap_err();
    assert!(matches!(broken, NoExchange::Broken { sent: true, .. }), "{broken:?}");
}

#[tokio::test]
async fn a_refused_connection_is_surely_not_sent() {
    for transport in transports() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error =
            client(&address, transport.clone()).send(&QueueId::from("q1"), &[Message::text("x")]).await.unwrap_err();
        assert!(error.is_connect() && !error.is_unsure(), "{error}");
        assert!(error.to_string().contains("the service cannot be reached"), "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_leaves_a_send_unsure() {
    for transport in transports() {
        let (address, _requests) = peer(&["\0"]).await;
        let error =
            client(&address, transport.clone()).send(&QueueId::from("q1"), &[Message::text("x")]).await.unwrap_err();
        assert!(error.is_unsure() && !error.is_connect() && !error.is_timeout(), "{error}");
    }
}

#[tokio::test]
async fn an_answer_cut_off_leaves_a_send_unsure() {
    for transport in transports() {
        let (address, _requests) = peer(&["HTTP/1.1 201 Created\r\nContent-Length: 90\r\n\r\n{\"mess\0"]).await;
        let error =
            client(&address, transport.clone()).send(&QueueId::from("q1"), &[Message::text("x")]).await.unwrap_err();
        assert!(error.is_unsure(), "{error}");
    }
}

#[tokio::test]
async fn no_answer_in_time_leaves_a_send_unsure() {
    for transport in transports() {
        let (address, _requests) = peer(&["HTTP/1.1 201 Created\r\n"]).await;
        let client = Client::builder(address, "p1")
            .transport(Arc::new(transport))
            .retry(RetryPolicy::never())
            .timeout(Duration::from_millis(50))
            .build()
            .unwrap();
        let error = client.send(&QueueId::from("q1"), &[Message::text("x")]).await.unwrap_err();
        assert!(error.is_unsure() && error.is_timeout(), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_error_and_not_followed() {
    for transport in transports() {
        let (address, mut requests) =
            peer(&["HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"]).await;
        let error = client(&address, transport.clone()).queues().await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), 307);
        assert!(requests.recv().await.is_some() && requests.try_recv().is_err());
    }
}

#[tokio::test]
async fn an_answer_without_bounds_is_not_read() {
    for transport in transports() {
        let announced: Answer = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        let (address, _requests) = peer(Box::leak(Box::new([announced]))).await;
        assert!(get(&address, &transport).await.unwrap_err().to_string().contains("exceeds"));

        let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
            + &format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(MAX_ANSWER_BYTES / 0x10000 + 1);
        let endless: Answer = endless.leak();
        let (address, _requests) = peer(Box::leak(Box::new([endless]))).await;
        assert!(get(&address, &transport).await.unwrap_err().to_string().contains("exceeds"));
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_an_error() {
    for transport in transports() {
        let (address, _requests) = peer(&["SSH-2.0-OpenSSH_9\r\n\r\n"]).await;
        let error = client(&address, transport.clone()).queues().await.unwrap_err();
        assert!(error.is_retryable() && error.status().is_none(), "{error}");
        let (address, _requests) = peer(&["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"]).await;
        let error = client(&address, transport.clone()).queues().await.unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }
}

/// A listener whose queue is full, so the system drops new connections.
#[cfg(target_os = "linux")]
async fn full() -> (TcpListener, Vec<JoinHandle<io::Result<TcpStream>>>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..8).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    // A paused clock would jump to the next timer while the system connects.
    resume();
    for _ in 0..100 {
        yield_now().await;
    }
    pause();
    (listener, waiting)
}

/// A connection that is not established in time carried no request, whether the connect timeout or the timeout of the call ended it.
#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn what_could_not_connect_in_time_was_surely_not_sent() {
    let (listener, _waiting) = full().await;
    let address = format!("http://{}", listener.local_addr().unwrap());
    for connect_timeout in [Duration::from_secs(1), Duration::from_secs(60)] {
        let options = HttpOptions::new().tls(false).connect_timeout(connect_timeout);
        let builder = reqwest::Client::builder().connect_timeout(connect_timeout);
        for transport in [HttpTransport::new(&options).unwrap(), HttpTransport::over(builder.build().unwrap())] {
            let error = get(&address, &transport).await.unwrap_err();
            assert!(error.is_not_sent() && !error.is_timeout(), "{connect_timeout:?}: {error}");
            let error =
                client(&address, transport).send(&QueueId::from("q1"), &[Message::text("x")]).await.unwrap_err();
            assert!(error.is_connect() && !error.is_unsure(), "{connect_timeout:?}: {error}");
        }
    }
}

/// The peer takes the connection, and says nothing: neither TLS nor the tunnel of a proxy comes about.
#[tokio::test(start_paused = true)]
async fn what_waits_for_tls_or_a_tunnel_was_surely_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    for connect_timeout in [Duration::from_secs(1), Duration::from_secs(60)] {
        let builder = || reqwest::Client::builder().connect_timeout(connect_timeout).tls_certs_only([]);
        let proxy = reqwest::Proxy::all(format!("http://{silent}")).unwrap();
        let own = HttpTransport::new(&HttpOptions::new().tls(false).connect_timeout(connect_timeout)).unwrap();
        let direct = HttpTransport::over(builder().no_proxy().build().unwrap());
        let tunnelled = HttpTransport::over(builder().proxy(proxy).build().unwrap());
        for (transport, address) in [
            (own, format!("https://{silent}")),
            (direct, format!("https://{silent}")),
            (tunnelled, "https://dms.example.com".to_owned()),
        ] {
            let error = get(&address, &transport).await.unwrap_err();
            assert!(error.is_not_sent(), "{address} {connect_timeout:?}: {error}");
        }
    }
}

/// A peer with a certificate for `localhost`, and for no address, from an authority of its own. Gives its port, the authority's file,
/// and the number of the connection of each request.
async fn encrypted_peer(folder: &Path) -> (u16, PathBuf, mpsc::UnboundedReceiver<usize>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new([]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let own_key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&own_key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivatePkcs8KeyDer::from(own_key.serialize_der()).into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (report, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await else { continue };
            let report = report.clone();
            tokio::spawn(async move {
                // Larger than one record of TLS, and than one read.
                let body = "x".repeat(100_000);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                while read_request(&mut stream).await.is_some() {
                    report.send(connection).unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (port, file, requests)
}

#[tokio::test]
async fn encrypted_requests_share_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (port, authority, mut requests) = encrypted_peer(folder.path()).await;
    let transport = HttpTransport::new(&HttpOptions::new().proxies(false).ca_file(authority)).unwrap();
    for connection in [0, 0, 0] {
        let answer = get(&format!("https://localhost:{port}/"), &transport).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 100_000));
        assert_eq!(requests.recv().await.unwrap(), connection);
    }
    // The same host without TLS is another connection.
    let error = get(&format!("http://localhost:{port}/"), &transport).await.unwrap_err();
    assert!(!error.is_not_sent(), "{error}");
}

#[tokio::test]
async fn a_certificate_is_accepted_only_if_it_is_trusted_and_has_the_name() {
    let (folder, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (port, authority, _requests) = encrypted_peer(folder.path()).await;
    let (_, other, _others) = encrypted_peer(foreign.path()).await;
    let options = HttpOptions::new().proxies(false);
    let refused = [
        (options.clone().ca_file(other), "localhost", "certificate is not accepted"),
        (options.clone().tls(false), "localhost", "no trusted authority signed it"),
        (options.clone().ca_file(authority), "127.0.0.1", "use one of its names"),
    ];
    for (options, host, expected) in refused {
        let error = get(&format!("https://{host}:{port}/"), &HttpTransport::new(&options).unwrap()).await.unwrap_err();
        assert!(error.is_not_sent() && error.to_string().contains(expected), "{error}");
    }
    let any = HttpTransport::new(&options.insecure_skip_verify(true)).unwrap();
    assert_eq!(get(&format!("https://127.0.0.1:{port}/"), &any).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_file_without_usable_authorities_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
    for (content, expected) in
        [("", "it has no certificate"), (broken, "it is not PEM"), (empty, "certificate number 1")]
    {
        std::fs::write(&file, content).unwrap();
        let error = HttpTransport::new(&HttpOptions::new().ca_file(file.clone())).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("ca.pem") && text.contains(expected), "{text}");
    }
}
