//! File descriptors of the real server: connections of strangers leave enough for the store and the admin addresses.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

/// A server with a directory on disk, under these limits of open files.
struct Served {
    child: Child,
    api: SocketAddr,
    admin: SocketAddr,
    _stderr: BufReader<ChildStderr>,
    _dir: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(limits: &str) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let command = format!("{limits} && exec \"$0\" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir data");
    let mut child = Command::new("sh")
        .args(["-c", &command, env!("CARGO_BIN_EXE_dms-worker")])
        .current_dir(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    let addresses = loop {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "the server ended: {said}");
        let urls: Vec<_> = said.split("http://").skip(1).collect();
        let address = |text: &&str| {
            let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.' && letter != ':');
            text[..end.unwrap_or(text.len())].parse::<SocketAddr>().unwrap()
        };
        if urls.len() >= 2 {
            break urls.iter().map(address).collect::<Vec<_>>();
        }
    };
    Served { child, api: addresses[0], admin: addresses[1], _stderr: stderr, _dir: dir }
}

/// The answer to a request on a new connection.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn connections_leave_descriptors_to_the_store_and_the_operators() {
    let server = serve("ulimit -n 128");
    let created = exchange(server.api, "POST", "/v2/local/queues", r#"{"name":"q"}"#);
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    let queue = created.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let held: Vec<_> = (0..300).map(|_| TcpStream::connect(server.api).unwrap()).collect();
    let admin: Vec<_> = (0..50).map(|_| TcpStream::connect(server.admin).unwrap()).collect();
    let body = format!(r#"{{"messages":[{{"body":"{}"}}]}}"#, "x".repeat(500_000));
    // More than a file of the log holds: the next one is made, and taken into use.
    for number in 0..80 {
        let sent = exchange(server.api, "POST", &format!("/v2/local/queues/{queue}/messages"), &body);
        assert!(sent.starts_with("HTTP/1.1 201"), "send {number}: {sent}");
    }
    let ready = exchange(server.admin, "GET", "/readyz", "");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let metrics = exchange(server.admin, "GET", "/metrics", "");
    assert!(metrics.contains("dms_connections_closed_total{listener=\"server\""), "{metrics}");
    drop((held, admin));
}

#[cfg(target_os = "linux")]
#[test]
fn the_soft_limit_of_open_files_is_raised_at_the_start() {
    let server = serve("ulimit -Sn 256 && ulimit -Hn 4096");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let open_files: Vec<_> = limits.lines().filter(|line| line.starts_with("Max open files")).collect();
    assert_eq!(open_files[0].split_whitespace().collect::<Vec<_>>()[3..5], ["4096", "4096"], "{limits}");
}
