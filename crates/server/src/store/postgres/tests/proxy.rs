//! A proxy in front of PostgreSQL that loses what passes through it.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// The bytes that the proxy loses from now on.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The bytes of the client.
    pub(super) requests: AtomicBool,
    /// The bytes of PostgreSQL.
    pub(super) answers: AtomicBool,
    /// How many connections there were.
    pub(super) connections: AtomicUsize,
}

impl Losses {
    pub(super) fn set(&self, requests: bool, answers: bool) {
        self.requests.store(requests, Ordering::SeqCst);
        self.answers.store(answers, Ordering::SeqCst);
    }
}

/// A proxy on a port of this machine.
pub(super) struct Proxy {
    pub(super) port: u16,
    pub(super) losses: Arc<Losses>,
}

impl Proxy {
    pub(super) fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let losses = Arc::new(Losses::default());
        let theirs = losses.clone();
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                theirs.connections.fetch_add(1, Ordering::SeqCst);
                pass(client, server, &theirs);
            }
        });
        Self { port, losses }
    }

    pub(super) fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }
}

fn pass(client: TcpStream, server: UnixStream, losses: &Arc<Losses>) {
    client.set_nodelay(true).unwrap();
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (mut from_server, mut to_client) = (server, client);
    let (of_requests, of_answers) = (losses.clone(), losses.clone());
    thread::spawn(move || {
        copy(&mut from_client, &mut to_server, &of_requests.requests);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        copy(&mut from_server, &mut to_client, &of_answers.answers);
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

fn copy(from: &mut impl Read, to: &mut impl Write, is_lost: &AtomicBool) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !is_lost.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
