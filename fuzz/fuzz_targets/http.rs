//! Bytes on a connection of the server: each request is answered or the connection closed, and others are served all the time.
#![no_main]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::LazyLock,
    time::Duration,
};

use dms_server::{Project, Server, ServerConfig};
use libfuzzer_sys::fuzz_target;

/// Longer than any request here takes, shorter than the limits of the server.
const PATIENCE: Duration = Duration::from_secs(5);

static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let config = ServerConfig::default().listen("127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address")).projects(vec![Project::new("p")]);
    let server = runtime.block_on(Server::bind(config)).expect("a server");
    let address = server.local_addr().expect("it listens");
    std::thread::spawn(move || runtime.block_on(server.run(std::future::pending())));
    address
});

/// Sends only these bytes, and returns everything that the server sends until it closes the connection.
fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(*SERVER).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    // The server may close before it has read everything.
    drop(stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            panic!("no end of the answer to {:?}", String::from_utf8_lossy(bytes))
        }
        _ => answer,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let answer = exchange(bytes);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{:?}", String::from_utf8_lossy(&answer));
});
