//! JSON bodies: requests in, with documented errors; answers out.

use std::str;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{error::Category, value::RawValue};

use super::{
    codes::{self, Code},
    error::ApiError,
};
use crate::json::Scan;

/// The deepest nesting of a message's JSON: what the usual parsers of consumers can read.
pub(crate) const MAX_DEPTH: usize = 128;

/// An answer whose body is this value as JSON.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => JsonText(text.into()).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as JSON");
                codes::INTERNAL.plain().into_response()
            }
        }
    }
}

/// An answer whose body is this text, which is JSON.
#[derive(Debug)]
pub(crate) struct JsonText(pub(crate) Bytes);

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.0.into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Parses the body of a queue, group or tag request.
///
/// # Errors
/// DMS.00400004 for an empty body, DMS.10240009 for anything that is not the documented JSON.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    parse_with(body, codes::BODY_FORMAT, codes::BODY_FORMAT)
}

/// Reads the body of a message request: by `scan` where it is as usual, without a look at each byte, and else by the parser, which knows
/// what is wrong with it.
///
/// # Errors
/// As [`parse_messages`].
pub(crate) fn read_messages<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    scan: impl FnOnce(&mut Scan<'a>) -> Option<T>,
) -> Result<T, ApiError> {
    Scan::whole(body, scan).map_or_else(|| parse_messages(body), Ok)
}

/// Parses the body of a message request.
///
/// # Errors
/// DMS.00400004 for an empty body, DMS.10540012 for text that is not JSON, DMS.10540010 for JSON of another shape.
pub(crate) fn parse_messages<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    parse_with(body, codes::MESSAGE_JSON, codes::REQUEST_FORMAT)
}

fn parse_with<'a, T: Deserialize<'a>>(body: &'a [u8], syntax: Code, shape: Code) -> Result<T, ApiError> {
    if body.is_empty() {
        return Err(codes::BODY_EMPTY.plain());
    }
    // Of a text that was checked as a whole the parser checks no piece again.
    let parsed = match str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    parsed.map_err(|error| match error.classify() {
        Category::Data => shape.because(format!("The JSON has another shape: {error}.")),
        _ => syntax.because(format!("{error}.")),
    })
}

/// A value as its text.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
    <&RawValue>::deserialize(deserializer).map(|raw| raw.get().as_bytes())
}

/// A value as its text, unless it is null.
pub(crate) fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de [u8]>, D::Error> {
    Ok(<Option<&RawValue>>::deserialize(deserializer)?.map(|raw| raw.get().as_bytes()))
}

/// How many brackets and braces open, those in strings included.
fn openings(text: &[u8]) -> usize {
    // The count of a short piece fits into a byte, so many bytes are counted at a time.
    let of_piece = |piece: &[u8]| piece.iter().map(|byte| u8::from(matches!(byte, b'[' | b'{'))).sum::<u8>();
    text.chunks(128).map(|piece| usize::from(of_piece(piece))).sum()
}

/// Whether valid JSON text nests deeper than [`MAX_DEPTH`].
///
/// The parser skips over raw values without recursion, so depth has to be looked at apart.
pub(crate) fn too_deep(text: &[u8]) -> bool {
    if text.starts_with(b"\"") {
        return false;
    }
    // Counting is much faster than following, and nearly every message passes here.
    if openings(text) <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let too_deep = |text: &str| super::too_deep(text.as_bytes());
        assert!(!too_deep(&nested(128)));
        assert!(too_deep(&nested(129)));
        assert!(!too_deep(&format!("\"{}\\\"{}\"", "[".repeat(200), "{".repeat(200))));
        assert!(!too_deep(&format!("[{}]", vec!["[]"; 500].join(","))));
    }

    #[test]
    fn empty_malformed_and_misshapen_bodies_have_their_own_codes() {
        let code = |body: &[u8]| parse_messages::<Vec<u8>>(body).unwrap_err().code();
        assert_eq!(code(b""), codes::BODY_EMPTY);
        assert_eq!(code(b"[1"), codes::MESSAGE_JSON);
        assert_eq!(code(b"{}"), codes::REQUEST_FORMAT);
        assert_eq!(code(b"\xff"), codes::MESSAGE_JSON);
    }
}
