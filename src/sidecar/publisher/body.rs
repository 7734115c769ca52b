//! Reading a request's body: bounded in size, in time, and in the memory that all of them take together.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, timeout},
};

use super::results::Answer;

/// The largest request, in bytes: sixteen full messages.
const MAX_REQUEST: usize = 16 * crate::limits::MAX_BYTES;
/// How much of a request that is too large is read and dropped, so that its sender gets to read the answer.
const DRAINED: usize = 4 * MAX_REQUEST;
/// The most memory that requests take together, in bytes.
const ROOM: usize = 8 * MAX_REQUEST;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// The room that all requests in memory share.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

/// A request in memory, with its share of the room.
pub(super) struct Request {
    pub(super) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl Room {
    /// Reads a whole body.
    ///
    /// # Errors
    /// 413 above the limit, which is named; 503 where there is no room for it now; 408 when it takes too long, 400 when it
    /// breaks off.
    pub(super) async fn read(&self, body: Body) -> Result<Request, Answer> {
        let size = body.size_hint().upper().and_then(|size| usize::try_from(size).ok());
        let share = u32::try_from(size.unwrap_or(MAX_REQUEST).min(MAX_REQUEST)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.0).try_acquire_many_owned(share);
        let share = share.map_err(|_| Answer::unavailable("too many requests are being read"))?;
        let bytes = timeout(PATIENCE, collect(body)).await;
        let bytes = bytes.unwrap_or_else(|_| Err(Answer::too_slow(PATIENCE)))?;
        Ok(Request { bytes, _share: share })
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Answer> {
    let (mut whole, mut size) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Answer::malformed(format!("the request broke off: {error}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        size += chunk.len();
        if size > DRAINED {
            break;
        }
        if size <= MAX_REQUEST {
            whole.extend_from_slice(&chunk);
        }
    }
    match size > MAX_REQUEST {
        true => Err(Answer::too_large(format!(
            "the request is too large: at most {MAX_REQUEST} bytes are allowed in one, send fewer messages at once"
        ))),
        false => Ok(whole.freeze()),
    }
}
