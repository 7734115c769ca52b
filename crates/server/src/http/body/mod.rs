//! Reading a request's body: bounded in size, in time, and in the memory that all bodies take together.
//!
//! Nothing is reserved on the word of a caller: [`BodyMemory`] counts what has arrived, and a body that stops arriving gives its
//! room back.

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

/// How much of a body that is refused or too large is read and dropped, in bytes, so that its sender gets to read the answer. The
/// service's gateway took 12 MB (API reference 3.2).
pub(crate) const DRAINED: usize = 12 << 20;

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The largest body, in bytes.
    pub most: usize,
    /// How much of a body that is too large is read and dropped, so that its sender gets to read the answer.
    pub drained: usize,
    /// How long it may take to arrive, waiting for room included.
    pub patience: Duration,
    /// How long it may wait for room.
    pub room_patience: Duration,
}

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Its size in bytes is above the limit.
    TooLarge(usize),
    /// It goes on beyond what is drained.
    Endless,
    /// It did not arrive in time.
    TooSlow,
    /// There was no room for it in time.
    NoRoom,
    /// It broke off.
    Broken(String),
}

/// A body in memory, with its share of the room.
#[derive(Debug, Default)]
pub struct BufferedBody {
    /// The body.
    pub bytes: Bytes,
    _held: Option<MemoryShare>,
}

/// Reads a whole body that comes from `peer`; `None` is a caller in the same process.
///
/// # Errors
/// When it is beyond one of its bounds, or breaks off.
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
    let announced = announced.unwrap_or(bounds.most).min(bounds.most);
    let (mut held, mut pace) = (room.hold(peer, announced), BodyDeadline::new(bounds.patience, announced));
    let (mut gathered, mut size) = (Chunks::default(), 0);
    while let Some(frame) = pace.limit(body.frame()).await? {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(chunk) = frame.into_data() else { continue };
        pace.count(chunk.len());
        size += chunk.len();
        if size > bounds.drained {
            return Err(BodyError::Endless);
        }
        if size > bounds.most {
            (gathered, held) = (Chunks::default(), room.hold(peer, 0));
            continue;
        }
        if held.bytes() < size {
            pace.wait(bounds.room_patience, held.cover(size)).await?;
        }
        gathered.push(chunk, held.bytes().min(announced));
    }
    match size > bounds.most {
        true => Err(BodyError::TooLarge(size)),
        false => Ok(BufferedBody { bytes: gathered.finish(), _held: Some(held) }),
    }
}

/// Reads and drops the body of a refused request beside its answer, so that a sender who is still writing gets to read it.
/// The connection's deadlines bound how long that takes.
pub fn discard(head: &HeaderMap, mut body: Body) {
    // A sender who expects to be asked for the body has not begun to write it.
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
