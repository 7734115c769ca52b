//! Reading the body of a request within limits of size, time and memory.
//!
//! An announced length reserves no memory. [`BodyMemory`] counts bytes that have arrived, and a body that stops arriving gives
//! its memory back.

mod chunks;
mod deadline;
mod memory;

use std::{net::IpAddr, time::Duration};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;

pub use self::memory::BodyMemory;
use self::{chunks::Chunks, deadline::BodyDeadline, memory::MemoryShare};

/// The maximum number of bytes of a refused body that are read and dropped, so that its sender gets to read the answer. The
/// gateway of the service took 12 MB (API reference 3.2).
pub(crate) const DRAINED: usize = 12 << 20;

/// The limits of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The largest body, in bytes.
    pub max_bytes: usize,
    /// The maximum number of bytes of a body that is too large that are read and dropped, so that its sender gets to read the
    /// answer.
    pub max_drained_bytes: usize,
    /// The time within which it has to arrive, including the wait for memory.
    pub timeout: Duration,
    /// The maximum wait for memory. With zero, a body for which there is no memory is refused at once.
    pub memory_timeout: Duration,
}

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is too large; its size in bytes.
    TooLarge(usize),
    /// It is larger than [`max_drained_bytes`](BodyLimits::max_drained_bytes).
    Endless,
    /// It did not arrive in time.
    TooSlow,
    /// There was no memory for it in time.
    NoRoom,
    /// The connection failed before its end.
    Broken(String),
}

/// A body in memory, with its share of the memory.
#[derive(Debug, Default)]
pub struct BufferedBody {
    /// The body.
    pub bytes: Bytes,
    _held: Option<MemoryShare>,
}

/// Reads a whole body from `peer`, which is `None` for a caller in the same process.
///
/// # Errors
/// When the body exceeds a limit, or the connection fails.
pub async fn read(
    mut body: Body,
    room: &BodyMemory,
    peer: Option<IpAddr>,
    bounds: BodyLimits,
) -> Result<BufferedBody, BodyError> {
    if body.is_end_stream() {
        return Ok(BufferedBody::default());
    }
    let announced = body.size_hint().upper().and_then(|size| usize::try_from(size).ok());
    let announced = announced.unwrap_or(bounds.max_bytes).min(bounds.max_bytes);
    let (mut held, mut pace) = (room.hold(peer, announced), BodyDeadline::new(bounds.timeout, announced));
    let (mut gathered, mut size) = (Chunks::default(), 0);
    while let Some(frame) = pace.limit(body.frame()).await? {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(chunk) = frame.into_data() else { continue };
        pace.count(chunk.len());
        size += chunk.len();
        if size > bounds.max_drained_bytes {
            return Err(BodyError::Endless);
        }
        if size > bounds.max_bytes {
            (gathered, held) = (Chunks::default(), room.hold(peer, 0));
            continue;
        }
        if held.bytes() < size {
            pace.wait(bounds.memory_timeout, held.cover(size)).await?;
        }
        gathered.push(chunk, held.bytes().min(announced));
    }
    match size > bounds.max_bytes {
        true => Err(BodyError::TooLarge(size)),
        false => Ok(BufferedBody { bytes: gathered.finish(), _held: Some(held) }),
    }
}

/// Reads and drops the body of a refused request in the background, so that a sender that is still writing gets to read the
/// answer. The deadlines of the connection limit the time.
pub fn discard(head: &HeaderMap, mut body: Body) {
    // A sender that waits for `100 Continue` has not begun to write.
    if body.is_end_stream() || head.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(async move {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    });
}

#[cfg(test)]
mod tests;
