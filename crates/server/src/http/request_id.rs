//! The id of a request, which is in its answer and in the body of an error.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of the request id, in requests and answers.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is echoed, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The request id of the caller if it is short and visible, otherwise a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers
        .get(REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    given.cloned().unwrap_or_else(|| {
        let mut text = uuid::Uuid::encode_buffer();
        // A fast random number, because the id has to be unique and not secret.
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let text = id.hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_echoed_only_if_it_is_short_and_visible() {
        let echoed = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("")));
            request_id(&headers) == text
        };
        assert!(echoed("req-1"));
        assert!(!echoed("a b"));
        assert!(!echoed(""));
        assert!(!echoed(&"x".repeat(129)));
    }
}
