//! The extensions of the documented API: their names and headers.
//!
//! A client uses an extension only after it has seen it announced, so that other services never meet one. What each of them
//! does is in `docs/api.md`, "Extensions of this server".

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    broker::FailureCause,
    http::{codes, error::ApiError},
    state::AppState,
};
use dms_protocol::internal::text::cut;

/// The header that announces the extensions in answers, and requests them in some requests.
pub(crate) const EXTENSIONS: HeaderName = HeaderName::from_static("x-dms-extensions");
/// The extensions that every answer of the message API announces.
pub(crate) const ANNOUNCED: HeaderValue = HeaderValue::from_static(
    "end-poll, release, reject, reason, overview, peek, message-id, messages, deduplication, long-delay",
);
/// The header of a consume request with the name of the call, by which it can be ended.
const POLL: HeaderName = HeaderName::from_static("x-dms-poll");
/// The longest name of a consume call, in bytes.
const MAX_POLL_ID: usize = 64;
/// The longest reason of a failure, in bytes.
const MAX_REASON: usize = 64;
/// The maximum length of the text of an error that is kept, in bytes.
const MAX_ERROR: usize = 1024;
/// The maximum length of the name of a worker that is kept, in bytes.
const MAX_WORKER: usize = 128;

/// The name of a consume request, if it has one.
///
/// # Errors
/// DMS.10540010 when the name is not 1 to 64 of A-Z a-z 0-9 _ -.
pub(crate) fn poll_id<'a>(app: &AppState, headers: &'a HeaderMap) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = headers.get(POLL).filter(|_| app.extensions) else { return Ok(None) };
    let id = value.to_str().ok().filter(|id| is_poll_id(id));
    id.map(Some).ok_or_else(|| codes::REQUEST_FORMAT.because(not_a_poll_id("The header x-dms-poll", value.as_bytes())))
}

/// Whether `text` is a valid name of a consume call.
pub(crate) fn is_poll_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MAX_POLL_ID).contains(&text.len()) && text.bytes().all(allowed)
}

/// The text of a refusal of an invalid name.
pub(crate) fn not_a_poll_id(place: &str, text: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(text).chars().take(80).collect();
    format!("{place} is {shown:?}: 1 to {MAX_POLL_ID} of A-Z a-z 0-9 _ - are allowed.")
}

/// The extensions that a request asks for: members of a consume answer beside `message` and `handler`, or what a send may contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The causes of dead letters.
    pub(crate) reasons: bool,
    /// The ids of messages.
    pub(crate) ids: bool,
    /// Delays above the documented limit.
    pub(crate) long_delays: bool,
}

impl Asked {
    /// Reads the header `x-dms-extensions` of a request. Unknown names are ignored.
    pub(crate) fn read(app: &AppState, headers: &HeaderMap) -> Self {
        let asked = headers.get(EXTENSIONS).filter(|_| app.extensions).and_then(|value| value.to_str().ok());
        let asks = |name| asked.is_some_and(|asked| asked.split(',').any(|other| other.trim() == name));
        Self { reasons: asks("reason"), ids: asks("message-id"), long_delays: asks("long-delay") }
    }
}

/// The raw JSON of the members of an acknowledgement that describe a failure.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CauseText<'a> {
    pub(crate) reason: Option<&'a [u8]>,
    pub(crate) error: Option<&'a [u8]>,
    pub(crate) worker: Option<&'a [u8]>,
    pub(crate) first_failure: Option<&'a [u8]>,
    pub(crate) last_failure: Option<&'a [u8]>,
}

impl<'a> CauseText<'a> {
    /// The place for the member with this name; `None` for other members.
    pub(crate) fn member<'t>(text: &'t mut Option<Box<Self>>, name: &[u8]) -> Option<&'t mut Option<&'a [u8]>> {
        let place: fn(&mut Self) -> &mut Option<&'a [u8]> = match name {
            b"reason" => |text| &mut text.reason,
            b"error" => |text| &mut text.error,
            b"worker" => |text| &mut text.worker,
            b"first_failure" => |text| &mut text.first_failure,
            b"last_failure" => |text| &mut text.last_failure,
            _ => return None,
        };
        Some(place(text.get_or_insert_default()))
    }
}

/// Reads the cause of acknowledgement `at`.
///
/// # Errors
/// DMS.10540010 when a member has another type, or a reason is not 1 to 64 of a-z 0-9 _ -.
pub(crate) fn read_cause(at: usize, text: &CauseText<'_>) -> Result<FailureCause, ApiError> {
    let reason = string(at, "reason", text.reason)?;
    if let Some(reason) = reason.as_ref().filter(|reason| !is_reason(reason)) {
        let shown: String = reason.chars().take(80).collect();
        let rule = format!("1 to {MAX_REASON} of a-z 0-9 _ - are allowed.");
        return Err(codes::REQUEST_FORMAT.because(format!("message[{at}].reason is {shown:?}: {rule}")));
    }
    Ok(FailureCause {
        reason,
        error: string(at, "error", text.error)?.map(|error| cut(&error, MAX_ERROR).to_owned()),
        worker: string(at, "worker", text.worker)?.map(|worker| cut(&worker, MAX_WORKER).to_owned()),
        first_failure_ms: time(at, "first_failure", text.first_failure)?,
        last_failure_ms: time(at, "last_failure", text.last_failure)?,
    })
}

fn is_reason(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    (1..=MAX_REASON).contains(&text.len()) && text.bytes().all(allowed)
}

fn string(at: usize, name: &str, text: Option<&[u8]>) -> Result<Option<String>, ApiError> {
    let read = |text| serde_json::from_slice(text).map_err(|_| wrong(at, name, text, "a string is expected."));
    text.map(read).transpose()
}

fn time(at: usize, name: &str, text: Option<&[u8]>) -> Result<Option<i64>, ApiError> {
    let read = |text| {
        let ms = serde_json::from_slice::<u64>(text).ok().and_then(|ms| i64::try_from(ms).ok());
        ms.ok_or_else(|| wrong(at, name, text, "Unix milliseconds are expected, a whole number."))
    };
    text.map(read).transpose()
}

fn wrong(at: usize, name: &str, text: &[u8], expected: &str) -> ApiError {
    let shown: String = String::from_utf8_lossy(text).chars().take(80).collect();
    codes::REQUEST_FORMAT.because(format!("message[{at}].{name} is {shown}: {expected}"))
}
