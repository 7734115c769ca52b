//! Reading a request's body: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{codes, error::ApiError};

/// How much of a body that is too large is read and dropped, so that its sender gets to read the answer. The service's
/// gateway took 12 MB (API reference 3.2).
const DRAINED: usize = 12 << 20;

/// Reads the whole body.
///
/// # Errors
/// DMS.10540011 above `most` bytes, the gateway's 413 above 12 MiB, 408 when it takes longer than `within`, 400 when the
/// connection breaks.
pub(super) async fn read(body: Body, most: usize, within: Duration) -> Result<Bytes, ApiError> {
    timeout(within, collect(body, most)).await.unwrap_or_else(|_| Err(codes::BODY_TIMEOUT.plain()))
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
