//! Reading a request's body: bounded in size, in time, and in the memory that all of them take together.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{codes, config::HttpLimits, error::ApiError};

/// How much of a body that is too large is read and dropped, so that its sender gets to read the answer. The service's
/// gateway took 12 MB (API reference 3.2).
const DRAINED: usize = 12 << 20;

/// What one permit of the room for bodies stands for, in bytes.
const UNIT: usize = 1024;

/// The room that all bodies in memory share.
#[derive(Debug)]
pub(crate) struct Room {
    free: Semaphore,
    units: u32,
}

impl Room {
    /// Room for this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Self { free: Semaphore::new(usize::try_from(units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)), units }
    }
}

/// Reads the whole body. The permit holds its room: keep it as long as the body.
///
/// # Errors
/// DMS.10540011 above the limit of a body, the gateway's 413 above 12 MiB, 408 when it takes too long or finds no room
/// for as long, 400 when the connection breaks.
pub(super) async fn read<'a>(
    body: Body,
    room: &'a Room,
    limits: &HttpLimits,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiError> {
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    let most = limits.body_bytes;
    let reading = async {
        let size = body.size_hint().upper().and_then(|size| usize::try_from(size).ok()).unwrap_or(most).min(most);
        // A body that is larger than the whole room gets all of it.
        let permit = match u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX).min(room.units) {
            0 => None,
            units => room.free.acquire_many(units).await.ok(),
        };
        Ok((collect(body, most).await?, permit))
    };
    timeout(limits.body_timeout, reading).await.unwrap_or_else(|_| Err(codes::BODY_TIMEOUT.plain()))
}

async fn collect(mut body: Body, most: usize) -> Result<Bytes, ApiError> {
    let mut chunks = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| codes::REQUEST_FORMAT.because(format!("The body broke off: {error}.")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        size += chunk.len();
        if size > DRAINED {
            return Err(codes::BODY_SIZE.plain());
        }
        if size <= most {
            chunks.push(chunk);
        } else {
            chunks.clear();
        }
    }
    if size > most {
        return Err(codes::MESSAGE_SIZE
            .saying(format!("The message size is {size}, larger than the size limit {most} of a whole request.")));
    }
    Ok(join(chunks, size))
}

/// The chunks as one; most bodies arrive as one and are not copied.
fn join(mut chunks: Vec<Bytes>, size: usize) -> Bytes {
    if chunks.len() == 1 {
        return chunks.swap_remove(0);
    }
    let mut whole = BytesMut::with_capacity(size);
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}
