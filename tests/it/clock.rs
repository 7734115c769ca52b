//! Sockets under tokio's paused clock.
//!
//! That clock jumps to the next timer whenever all tasks wait, and does not know of bytes that the system still
//! carries. What passes between two ends of a socket is therefore [`still`], and long silences are counted by [`open_for`].

use std::{
    io::ErrorKind,
    sync::mpsc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    task::{spawn_blocking, yield_now},
    time::advance,
};

/// The most that [`open_for`] waits for.
const LONG: Duration = Duration::from_secs(300);

/// Does this while the clock stands; it moves again after 30 s of the system's time, so that a test that waits for a
/// timer ends.
pub(crate) async fn still<F: Future>(doing: F) -> F::Output {
    let (done, holding) = mpsc::channel::<()>();
    // tokio's clock stands while a blocking task runs.
    let held = spawn_blocking(move || holding.recv_timeout(Duration::from_secs(30)));
    let output = doing.await;
    drop(done);
    let _ = held.await.unwrap();
    output
}

/// How long, to within a few seconds and never less, the other end leaves a connection open that says nothing more;
/// what it sends is passed over.
pub(crate) async fn open_for(stream: &mut TcpStream) -> Duration {
    const STEP: Duration = Duration::from_secs(1);
    still(async {
        let mut open = Duration::ZERO;
        while open < LONG && is_open(stream).await {
            advance(STEP).await;
            open += STEP;
        }
        open
    })
    .await
}

/// Whether the other end has not closed the connection, after some time for it to do so.
async fn is_open(stream: &mut TcpStream) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1) {
        match stream.try_read(&mut [0; 1024]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::yield_now();
                yield_now().await;
            }
            Err(_) => return false,
        }
    }
    true
}
