//! The extensions of this server to the documented API: their names, and the headers that speak of them.
//!
//! A client uses an extension only after it has seen it announced, so that other services never meet one. What each of them
//! does is in `docs/api.md`, "Extensions of this server".

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{app::App, codes, error::ApiError};

/// The header of answers that announces the extensions.
pub(super) const EXTENSIONS: HeaderName = HeaderName::from_static("x-dms-extensions");
/// What every answer of the message API announces.
pub(super) const ANNOUNCED: HeaderValue = HeaderValue::from_static("end-poll");
/// The header of a consume request that names the call, so that it can be ended.
const POLL: HeaderName = HeaderName::from_static("x-dms-poll");
/// The longest name of a consume call, in bytes.
const MAX_POLL_ID: usize = 64;

/// The name that a consume request gives itself, if any.
///
/// # Errors
/// DMS.10540010 when it is not 1 to 64 of A-Z a-z 0-9 _ -.
pub(super) fn poll_id<'a>(app: &App, headers: &'a HeaderMap) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = headers.get(POLL).filter(|_| app.extensions) else { return Ok(None) };
    let id = value.to_str().ok().filter(|id| is_poll_id(id));
    id.map(Some).ok_or_else(|| codes::REQUEST_FORMAT.because(not_a_poll_id("The header x-dms-poll", value.as_bytes())))
}

/// Whether this can be the name of a consume call.
pub(super) fn is_poll_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MAX_POLL_ID).contains(&text.len()) && text.bytes().all(allowed)
}

/// What to say of a text that cannot be the name of a consume call.
pub(super) fn not_a_poll_id(place: &str, text: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(text).chars().take(80).collect();
    format!("{place} is {shown:?}: 1 to {MAX_POLL_ID} of A-Z a-z 0-9 _ - are allowed.")
}
