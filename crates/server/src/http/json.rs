//! JSON bodies: reading requests with documented errors, and writing answers.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use crate::http::{
    codes::{self, Code},
    error::ApiError,
};
use dms_protocol::internal::json::{Fault, Scan};

/// An answer with a value as its JSON body.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => JsonText(text.into()).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer could not be encoded as JSON; the request was answered with 500");
                codes::INTERNAL.plain().into_response()
            }
        }
    }
}

/// An answer with a text as its body, which is JSON already.
#[derive(Debug)]
pub(crate) struct JsonText(pub(crate) Bytes);

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.0.into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Parses the body of a request to the identity service.
///
/// # Errors
/// DMS.00400004 for an empty body, DMS.10240009 for anything that is not the documented JSON.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Err(codes::BODY_EMPTY.plain());
    }
    serde_json::from_slice(body).map_err(|error| codes::BODY_FORMAT.because(error))
}

/// Reads the body of a queue, group or tag request.
///
/// # Errors
/// DMS.00400004 for an empty body, DMS.10240009 for anything that is not the documented JSON.
pub(crate) fn read<'a, T>(body: &'a [u8], read: impl FnOnce(&mut Scan<'a>) -> Result<T, Fault>) -> Result<T, ApiError> {
    read_with(body, codes::BODY_FORMAT, codes::BODY_FORMAT, read)
}

/// Reads the body of a message request.
///
/// # Errors
/// DMS.00400004 for an empty body, DMS.10540012 for text that is not JSON or that strict JSON parsers could not read in an
/// answer, DMS.10540010 for JSON of another shape.
pub(crate) fn read_messages<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Scan<'a>) -> Result<T, Fault>,
) -> Result<T, ApiError> {
    read_with(body, codes::MESSAGE_JSON, codes::REQUEST_FORMAT, read)
}

fn read_with<'a, T>(
    body: &'a [u8],
    syntax: Code,
    shape: Code,
    read: impl FnOnce(&mut Scan<'a>) -> Result<T, Fault>,
) -> Result<T, ApiError> {
    if body.is_empty() {
        return Err(codes::BODY_EMPTY.plain());
    }
    Scan::whole(body, read).map_err(|fault| {
        let code = if fault.is_shape() { shape } else { syntax };
        code.at(fault.explain(body))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn empty_malformed_and_misshapen_bodies_have_their_own_codes() {
        let code = |body: &[u8]| read_messages(body, |scan| scan.items(Scan::number)).unwrap_err().code();
        assert_eq!(code(b""), codes::BODY_EMPTY);
        assert_eq!(code(b"[1"), codes::MESSAGE_JSON);
        assert_eq!(code(b"{}"), codes::REQUEST_FORMAT);
        assert_eq!(code(b"\xff"), codes::MESSAGE_JSON);
        assert_eq!(code(b"[\"\xff\"]"), codes::MESSAGE_JSON);
    }
}
