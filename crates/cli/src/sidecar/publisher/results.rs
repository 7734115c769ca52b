//! The answer to a request: one result per message, and the status that sums them up.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use dms_protocol::internal::text::brief;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublishOutcome {
    /// The service has it, under this id. A duplicate was not stored again, because of its deduplication key.
    Sent { id: Option<String>, duplicate: bool },
    /// It cannot be sent, now or later.
    Refused(StatusCode, String),
    /// It was not taken now.
    Busy(String),
    /// Nobody knows whether the service has it.
    Unsure(String),
}

impl PublishOutcome {
    /// A message that cannot be sent; one that is too large says so in its status.
    pub(super) fn refused(reason: String) -> Self {
        let too_large = reason.contains("bytes are allowed");
        Self::Refused(if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }, reason)
    }

    /// Whether sending it again would double it, or change nothing.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Sent { .. } | Self::Refused(..))
    }

    fn json(&self) -> Value {
        match self {
            Self::Sent { id, duplicate: false } => json!({ "state": "sent", "id": id }),
            Self::Sent { id, duplicate: true } => json!({ "state": "sent", "id": id, "duplicate": true }),
            Self::Refused(_, error) => json!({ "state": "refused", "error": error }),
            Self::Busy(error) => json!({ "state": "not_taken", "error": error }),
            Self::Unsure(error) => json!({ "state": "unsure", "error": error }),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Sent { .. } => StatusCode::OK,
            Self::Refused(status, _) => *status,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsure(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// A whole answer.
#[derive(Debug, PartialEq)]
pub(super) struct PublishAnswer {
    status: StatusCode,
    body: Value,
    /// Whether repeating the request may succeed.
    come_again: bool,
}

impl PublishAnswer {
    /// Sums up the outcomes: of a list as `messages`, of a single message as itself.
    pub(super) fn new(outcomes: &[PublishOutcome], single: bool) -> Self {
        let first = outcomes.first().map_or(StatusCode::OK, PublishOutcome::status);
        let alike = outcomes.iter().all(|outcome| outcome.status() == first);
        let status = if alike { first } else { StatusCode::MULTI_STATUS };
        let body = match outcomes {
            [only] if single => only.json(),
            several => json!({ "messages": several.iter().map(PublishOutcome::json).collect::<Vec<_>>() }),
        };
        let come_again = outcomes.iter().any(|outcome| matches!(outcome, PublishOutcome::Busy(_)));
        Self { status, body, come_again }
    }

    /// A request that is no message.
    pub(super) fn malformed(reason: String) -> Self {
        Self::new(&[PublishOutcome::refused(reason)], true)
    }

    /// A path without a queue.
    pub(super) fn unknown_path(path: &str, paths: &[String]) -> Self {
        let reason = format!("this publisher has no queue at `{}`: POST to {}", path, paths.join(" or "));
        Self::new(&[PublishOutcome::Refused(StatusCode::NOT_FOUND, reason)], true)
    }

    /// Another method than POST.
    pub(super) fn not_posted() -> Self {
        let reason = "messages are sent with POST".to_owned();
        Self::new(&[PublishOutcome::Refused(StatusCode::METHOD_NOT_ALLOWED, reason)], true)
    }

    /// A request that is too large.
    pub(super) fn too_large(reason: String) -> Self {
        Self::new(&[PublishOutcome::Refused(StatusCode::PAYLOAD_TOO_LARGE, reason)], true)
    }

    /// A request that did not arrive in time.
    pub(super) fn too_slow(timeout: Duration) -> Self {
        let reason = format!("the request did not arrive within {}", brief(timeout));
        Self::new(&[PublishOutcome::Refused(StatusCode::REQUEST_TIMEOUT, reason)], true)
    }

    /// A key that stood on a request with another body.
    pub(super) fn reused_key() -> Self {
        let reason = "this Idempotency-Key came with another request: give each request its own".to_owned();
        Self::new(&[PublishOutcome::Refused(StatusCode::UNPROCESSABLE_ENTITY, reason)], true)
    }

    /// Nothing can be taken now.
    pub(super) fn unavailable(reason: &str) -> Self {
        Self::new(&[PublishOutcome::Busy(reason.to_owned())], true)
    }

    /// Nobody knows what became of the request.
    pub(super) fn unknown(reason: &str) -> Self {
        Self::new(&[PublishOutcome::Unsure(reason.to_owned())], true)
    }
}

impl From<PublishAnswer> for Response {
    fn from(answer: PublishAnswer) -> Self {
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (answer.status, content_type, answer.body.to_string()).into_response();
        if answer.come_again {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> PublishOutcome {
        PublishOutcome::Sent { id: Some("id".to_owned()), duplicate: false }
    }

    #[test]
    fn the_status_sums_the_outcomes_up() {
        let status = |outcomes: &[PublishOutcome]| PublishAnswer::new(outcomes, false).status.as_u16();
        assert_eq!(status(&[sent(), sent()]), 200);
        assert_eq!(status(&[sent(), PublishOutcome::Busy(String::new())]), 207);
        assert_eq!(status(&[PublishOutcome::Busy(String::new())]), 503);
        assert_eq!(status(&[PublishOutcome::Unsure(String::new())]), 504);
        assert_eq!(status(&[PublishOutcome::refused("label is \"a b\"".to_owned())]), 400);
        assert_eq!(status(&[PublishOutcome::refused("at most 524288 bytes are allowed".to_owned())]), 413);
    }

    #[test]
    fn a_single_message_is_answered_by_itself() {
        assert_eq!(PublishAnswer::new(&[sent()], true).body, json!({ "state": "sent", "id": "id" }));
        let again = PublishOutcome::Sent { id: None, duplicate: true };
        let body = json!({ "state": "sent", "id": null, "duplicate": true });
        assert_eq!(
            PublishAnswer::new(&[again], true),
            PublishAnswer { status: StatusCode::OK, body, come_again: false }
        );
        assert_eq!(PublishAnswer::new(&[sent()], false).body, json!({ "messages": [{ "state": "sent", "id": "id" }] }));
    }
}
