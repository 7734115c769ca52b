//! Sockets under tokio's paused clock.
//!
//! That clock jumps to the next timer whenever all tasks wait, and does not know of bytes that the system still
//! carries. So exchanges between two ends of a socket run inside [`still`], and [`takes`] moves the clock by hand.

use std::{pin::pin, sync::mpsc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::{spawn_blocking, yield_now},
    time::{Instant, advance},
};

/// How exactly [`takes`] measures.
const MOMENT: Duration = Duration::from_millis(10);

/// Runs a future while the clock stands; it moves again after 30 s of system time, so that a test that waits for a
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

/// Checks that something ends after exactly this time. The time counts from when the other end has received it: that is
/// when `heard`, an exchange begun after it, is over.
pub(crate) async fn takes<F: Future>(limit: Duration, heard: impl Future, doing: F) -> F::Output {
    let (mut doing, mut heard) = (pin!(doing), pin!(heard));
    let begun = Instant::now();
    still(async {
        tokio::select! {
            biased;
            _ = &mut doing => panic!("it is over at once, and not after {limit:?}"),
            _ = &mut heard => {}
        }
        advance(limit - MOMENT).await;
        // Everything that is due would have been handled by then.
        for _ in 0..100 {
            assert!(futures_util::poll!(&mut doing).is_pending(), "it is over before {limit:?}");
            yield_now().await;
        }
        advance(MOMENT * 2).await;
        let output = doing.await;
        assert_eq!(begun.elapsed(), limit + MOMENT, "it is over after {limit:?}");
        output
    })
    .await
}

/// Everything that arrives until a connection ends.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    // A connection that is cut may be reset.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}
