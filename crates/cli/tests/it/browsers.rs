//! Browsers on the same machine: no listener without credentials serves web pages, under any host name.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::clock::rest;
use crate::listeners::{listening, listening_with};

/// A path of the API, which the other listeners do not know.
const PATH: &str = "/v2/local/queues";

/// Whether a PUT of [`PATH`] was refused for its method or its path, and not for where it came from.
fn is_past_the_check(status: u16) -> bool {
    matches!(status, 404 | 405)
}

/// The status of the answer to a request with these header lines, and all of it.
async fn ask(address: SocketAddr, method: &str, path: &str, lines: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}")), answer)
}

#[tokio::test]
async fn web_pages_and_foreign_names_are_refused_by_every_listener_without_credentials() {
    let listening = listening().await;
    for (name, address) in listening.addresses {
        for method in ["GET", "POST", "DELETE"] {
            for (lines, expected, shown) in [
                (format!("Host: evil.example:{}\r\n", address.port()), 421, "evil.example"),
                ("Host: localhost.evil.example\r\n".to_owned(), 421, "localhost.evil.example"),
                ("Host: localhost\r\nOrigin: http://evil.example\r\n".to_owned(), 403, "http://evil.example"),
                (format!("Host: {address}\r\nSec-Fetch-Site: cross-site\r\n"), 403, "cross-site"),
                (format!("Host: {address}\r\nSec-Fetch-Site: same-site\r\n"), 403, "same-site"),
            ] {
                let (status, answer) = ask(address, method, PATH, &lines).await;
                assert_eq!(status, expected, "{name}: {method} {lines}{answer}");
                assert!(answer.contains(shown), "{name} does not show {shown}: {answer}");
            }
        }
        for lines in [
            format!("Host: {address}\r\n"),
            format!("Host: LocalHost:{}\r\n", address.port()),
            "Host: [::1]\r\nSec-Fetch-Site: none\r\n".to_owned(),
            "Host: localhost\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
        ] {
            let (status, answer) = ask(address, "PUT", PATH, &lines).await;
            assert!(is_past_the_check(status), "{name}: {lines}{answer}");
        }
    }
}

#[tokio::test]
async fn probes_of_the_admin_addresses_follow_the_same_rule() {
    let listening = listening().await;
    for (name, address) in listening.addresses.into_iter().filter(|(name, _)| name.ends_with("admin")) {
        for path in ["/livez", "/metrics", "/nowhere"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 421 "), "{name}{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_host_that_is_missing_double_or_malformed_is_400_everywhere() {
    let credentials = "auth: {access_keys: [{access_key: AK, secret_key: SK}]}, ";
    for listening in [listening().await, listening_with(credentials, ", token: T").await] {
        for (name, address) in listening.addresses {
            for lines in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: a b\r\n", "Host: localhost:x\r\n"] {
                let (status, answer) = ask(address, "GET", PATH, lines).await;
                assert_eq!(status, 400, "{name}: {lines}{answer}");
                assert!(answer.contains("Host"), "{name}: {lines}{answer}");
            }
        }
    }
}

#[tokio::test]
async fn further_names_are_served_where_they_are_configured() {
    let listening = listening_with("hosts: [dms.internal], ", ", hosts: [dms.internal]").await;
    for (name, address) in listening.addresses.into_iter().filter(|(name, _)| *name != "server.admin") {
        let (status, answer) = ask(address, "PUT", PATH, "Host: dms.internal:9400\r\n").await;
        assert!(is_past_the_check(status), "{name}: {answer}");
        assert_eq!(ask(address, "PUT", PATH, "Host: dms.external\r\n").await.0, 421, "{name}");
    }
}

#[tokio::test]
async fn a_listener_with_credentials_asks_for_them_whatever_the_name() {
    let credentials = "auth: {access_keys: [{access_key: AK, secret_key: SK}]}, ";
    let listening = listening_with(credentials, ", token: T").await;
    for (name, address) in listening.addresses {
        let path = match name {
            "publisher" => "/",
            "admin" => "/drain",
            "server.admin" => "/admin/backup",
            _ => PATH,
        };
        let (status, answer) = ask(address, "POST", path, "Host: dms.example\r\nOrigin: http://dms.example\r\n").await;
        assert_eq!(status, 401, "{name}: {answer}");
    }
}
