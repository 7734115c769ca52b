#![allow(clippy::unwrap_used)]

use std::convert::Infallible;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::*;

const BOUNDS: BodyLimits = BodyLimits {
    max_bytes: 1 << 20,
    max_drained_bytes: 4 << 20,
    timeout: Duration::from_secs(30),
    memory_timeout: Duration::from_secs(30),
};

fn room() -> BodyMemory {
    BodyMemory::new(16 << 20, BOUNDS.max_bytes, 4)
}

/// A body of `chunks` chunks of `bytes` bytes, each after a pause.
fn body(chunks: usize, bytes: usize, pause: Duration) -> Body {
    Body::from_stream(stream::iter(0..chunks).then(move |_| async move {
        sleep(pause).await;
        Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes]))
    }))
}

async fn size(body: Body) -> Result<usize, BodyError> {
    read(body, &room(), None, BOUNDS).await.map(|arrived| arrived.bytes.len())
}

#[tokio::test(start_paused = true)]
async fn bodies_are_read_up_to_the_limit_and_drained_beyond_it() {
    assert_eq!(size(Body::empty()).await, Ok(0));
    assert_eq!(size(body(1, 10, Duration::ZERO)).await, Ok(10));
    assert_eq!(size(body(1 << 10, 1 << 10, Duration::ZERO)).await, Ok(1 << 20));
    assert_eq!(size(body(1025, 1 << 10, Duration::ZERO)).await, Err(BodyError::TooLarge(1025 << 10)));
    assert_eq!(size(body(10, 1 << 20, Duration::ZERO)).await, Err(BodyError::Endless));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_size_has_to_keep_up_the_least_rate() {
    let begun = Instant::now();
    assert_eq!(size(body(1000, 1, Duration::from_secs(1))).await, Err(BodyError::TooSlow));
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    let begun = Instant::now();
    assert_eq!(size(body(25, 10 << 10, Duration::from_secs(1))).await, Ok(250 << 10));
    assert_eq!(begun.elapsed(), Duration::from_secs(25));
    let begun = Instant::now();
    assert_eq!(size(body(100, 10 << 10, Duration::from_secs(1))).await, Err(BodyError::TooSlow));
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_gives_its_room_back() {
    let room = BodyMemory::new(1 << 20, BOUNDS.max_bytes, 1);
    let silent = Body::from_stream(
        stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; (1 << 20) - 1]))]).chain(stream::pending()),
    );
    let begun = Instant::now();
    let (first, second) = tokio::join!(
        read(silent, &room, None, BOUNDS),
        read(body(1, 1 << 20, Duration::from_secs(1)), &room, None, BOUNDS)
    );
    assert_eq!(first.map(|_| ()).unwrap_err(), BodyError::TooSlow);
    assert_eq!(second.map(|arrived| arrived.bytes.len()).ok(), Some(1 << 20));
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn room_is_waited_for_no_longer_than_allowed() {
    let room = BodyMemory::new(1 << 20, BOUNDS.max_bytes, 1);
    let held = read(body(1, 1 << 20, Duration::ZERO), &room, None, BOUNDS).await.ok();
    let hurried = BodyLimits { memory_timeout: Duration::ZERO, ..BOUNDS };
    let refused = read(body(1, 1 << 20, Duration::ZERO), &room, None, hurried).await;
    assert_eq!(refused.map(|_| ()).unwrap_err(), BodyError::NoRoom);
    drop(held);
    assert!(read(body(1, 1 << 20, Duration::ZERO), &room, None, hurried).await.is_ok());
}

/// A chunk keeps the buffer alive that it was read into. One byte must not keep 8 KiB.
#[test]
fn small_chunks_do_not_keep_their_buffers() {
    let mut gathered = Chunks::default();
    let buffers: Vec<_> = (0..1000).map(|_| Bytes::from(vec![b'x'; 8 << 10])).collect();
    for buffer in &buffers {
        gathered.push(buffer.slice(..1), 64 << 10);
    }
    assert!(buffers.into_iter().all(|buffer| buffer.try_into_mut().is_ok()), "a buffer is still in use");
    assert_eq!(gathered.finish(), Bytes::from(vec![b'x'; 1000]));
}
