//! The limits of a publisher's requests, and the answers to requests that exceed them.

use std::{net::IpAddr, time::Duration};

use axum::body::Body;

use crate::sidecar::publisher::results::PublishAnswer;
use dms_server::internal::body::{self, BodyError, BodyLimits, BodyMemory, BufferedBody};

/// The largest request, in bytes: sixteen full messages.
const MAX_REQUEST: usize = 16 * dms_protocol::limits::MAX_BYTES;
/// The most memory that requests take together, in bytes.
const MAX_MEMORY_BYTES: usize = 8 * MAX_REQUEST;
/// Into how many parts the room is divided: one peer may take one of them.
const MEMORY_PARTS: usize = 2;
/// The bounds. An application would rather try again than wait for room.
const BOUNDS: BodyLimits = BodyLimits {
    max_bytes: MAX_REQUEST,
    max_drained_bytes: 4 * MAX_REQUEST,
    timeout: Duration::from_secs(30),
    memory_timeout: Duration::ZERO,
};

/// The room that all requests in memory share.
pub(super) fn room() -> BodyMemory {
    BodyMemory::new(MAX_MEMORY_BYTES, MAX_REQUEST, MEMORY_PARTS)
}

/// Reads a whole body that comes from `peer`.
///
/// # Errors
/// 413 above the limit, which is named; 503 where there is no room for it now; 408 when it takes too long, 400 when it
/// breaks off.
pub(super) async fn read(body: Body, room: &BodyMemory, peer: Option<IpAddr>) -> Result<BufferedBody, PublishAnswer> {
    body::read(body, room, peer, BOUNDS).await.map_err(|error| match error {
        BodyError::TooLarge(_) | BodyError::Endless => PublishAnswer::too_large(format!(
            "the request is too large: at most {MAX_REQUEST} bytes are allowed in one, send fewer messages at once"
        )),
        BodyError::TooSlow => PublishAnswer::too_slow(BOUNDS.timeout),
        BodyError::NoRoom => PublishAnswer::unavailable("too many requests are being read"),
        BodyError::Broken(reason) => PublishAnswer::malformed(format!("the request broke off: {reason}")),
    })
}
