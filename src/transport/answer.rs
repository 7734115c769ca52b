//! Reads whole answers up to a maximum size.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

use super::{MAX_ANSWER_BYTES, TransportError};

/// Reads the rest of an answer.
///
/// # Errors
/// When the answer is truncated, or larger than [`MAX_ANSWER_BYTES`].
pub(super) async fn whole<B>(
    answer: http::Response<B>,
    failure: impl Fn(B::Error) -> TransportError,
) -> Result<http::Response<Bytes>, TransportError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = || TransportError::unsure(format!("the answer exceeds {MAX_ANSWER_BYTES} bytes"));
    let (head, mut body) = answer.into_parts();
    let announced = usize::try_from(body.size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
    if announced > MAX_ANSWER_BYTES {
        return Err(too_large());
    }
    // Most bodies arrive in one frame, which needs no copy.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(&failure)?.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.reserve(announced.max(first.len() + piece.len()));
            all.extend_from_slice(&first);
        }
        if all.len() + piece.len() > MAX_ANSWER_BYTES {
            return Err(too_large());
        }
        all.extend_from_slice(&piece);
    }
    let body = if all.is_empty() { first } else { all.freeze() };
    Ok(http::Response::from_parts(head, body))
}
