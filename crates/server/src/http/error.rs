//! [`ApiError`]: a refused request, and its body.

use std::{borrow::Cow, fmt::Display};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::{
    broker::{AlreadyLogged, BrokerError},
    http::codes::{self, Code},
};
use dms_protocol::internal::json::quoted;

/// A documented error with the text for this request.
///
/// As a response it is in the extensions. The middleware writes the body, because only the middleware knows the request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: Code,
    message: Cow<'static, str>,
    shape: Shape,
}

/// The documented forms of an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `{"error_code":"DMS.…","error_msg":"…","request_id":"…"}`.
    Service,
    /// `{"code":10540010,"message":"…"}`: the Kafka delay error (API reference 5.3.1, `delay_time`).
    Numeric,
    /// The form of the identity service: `{"error":{"code":401,"title":"Unauthorized","message":"…"}}`, with the text repeated
    /// beside it.
    Identity,
}

impl ApiError {
    fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), shape: Shape::Service }
    }

    /// The same error in the shape of the identity service.
    pub(crate) fn identity(self) -> Self {
        Self { shape: Shape::Identity, ..self }
    }

    /// The code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The text for this request.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The body for the request with this id.
    pub(crate) fn body(&self, request_id: &str) -> Bytes {
        let message = &self.message;
        let value = match self.shape {
            Shape::Service => serde_json::json!({
                "error_code": self.code.name, "error_msg": message, "request_id": request_id,
            }),
            Shape::Numeric => serde_json::json!({ "code": 10_540_010, "message": message }),
            Shape::Identity => serde_json::json!({
                "error": {
                    "code": self.code.status.as_u16(),
                    "title": self.code.status.canonical_reason(),
                    "message": message,
                },
                "error_msg": message, "request_id": request_id,
            }),
        };
        value.to_string().into()
    }
}

impl Code {
    /// The error with its documented text.
    pub(crate) fn plain(self) -> ApiError {
        ApiError::new(self, self.text)
    }

    /// The error with its documented text, followed by `detail` as a sentence.
    pub(crate) fn because(self, detail: impl Display) -> ApiError {
        let detail = detail.to_string();
        // The texts of the gateway end in a colon, and the text after it is documented literally.
        let detail = if self.text.ends_with('.') { sentence(&detail) } else { detail };
        ApiError::new(self, format!("{} {detail}", self.text))
    }

    /// The error with its documented text, followed by a sentence that begins with a place in the request, as in
    /// `messages[3].tags`.
    pub(crate) fn at(self, sentence: impl Display) -> ApiError {
        ApiError::new(self, format!("{} {sentence}", self.text))
    }

    /// The error with another text.
    pub(crate) fn saying(self, message: impl Into<String>) -> ApiError {
        ApiError::new(self, message.into())
    }
}

/// `detail` as a sentence. The name of a parameter at its beginning keeps its spelling: a word with other characters than letters, or
/// one of which the detail says what it is or has, as in `to is missing`.
fn sentence(detail: &str) -> String {
    let mut words = detail.split(' ');
    let first = words.next().unwrap_or_default();
    let is_parameter = matches!(words.next(), Some("is" | "has"));
    let mut text = String::with_capacity(detail.len() + 1);
    let mut letters = detail.chars();
    if !is_parameter && first.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
    }
    text.push_str(letters.as_str());
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

/// The text of the error, for people.
impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.extensions_mut().insert(self);
        response
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::QueueNotFound => codes::QUEUE_NOT_FOUND.plain(),
            BrokerError::GroupNotFound => codes::GROUP_NOT_FOUND.plain(),
            BrokerError::QueueExists(name) => codes::QUEUE_EXISTS.because(format!("Its name is {name:?}")),
            BrokerError::GroupExists(name) => codes::GROUP_EXISTS.because(format!("Its name is {name:?}")),
            BrokerError::QueueQuota(_) => codes::QUEUE_QUOTA.because(error),
            BrokerError::GroupQuota(_) => codes::GROUP_QUOTA.because(error),
            BrokerError::TagQuota(limit) => {
                codes::TAG_QUOTA.saying(format!("A maximum of {limit} tags can be created."))
            }
            BrokerError::TagNotFound(key) => codes::TAG_NOT_FOUND.because(format!("The key is {}", quoted(&key))),
            BrokerError::NoBackup(_)
            | BrokerError::NotOffered(_)
            | BrokerError::NotAvailable(_)
            | BrokerError::Configured(_) => codes::REQUEST_FORMAT.saying(sentence(&error.to_string())),
            BrokerError::NotDamaged => codes::URL_NOT_FOUND.saying(sentence(&error.to_string())),
            BrokerError::BeingCreated => codes::BEING_CREATED.plain(),
            BrokerError::NoDeadLetters => codes::REQUEST_FORMAT.because(error),
            BrokerError::KafkaDelay => Self {
                shape: Shape::Numeric,
                ..codes::REQUEST_FORMAT.saying(format!("Invalid request format: {error}"))
            },
            BrokerError::KafkaLabels => codes::LABEL.because(error),
            BrokerError::FilterChanged(_) => {
                codes::CONSUME_FAILED.saying(format!("Failed to consume messages due to a changed tag rule: {error}."))
            }
            BrokerError::UnknownReceipt(place) => codes::UNKNOWN_HANDLER.at(place),
            BrokerError::NotRejectable(reason) => codes::ACK_STATUS.saying(reason),
            BrokerError::ForeignReceipt(place) => codes::FOREIGN_HANDLER.at(place),
            BrokerError::TooManyPolls(_) | BrokerError::TooMuchLeased(_) | BrokerError::TooManyKeys(_) => {
                codes::TOO_FREQUENT.because(error)
            }
            BrokerError::Store(cause) if cause.is::<AlreadyLogged>() => {
                tracing::debug!(error = %cause, "the store failed; the request was answered with an error");
                codes::INTERNAL.because("The store failed; try again later.")
            }
            BrokerError::Store(cause) => {
                // The cause contains file names, which are for the log and not for callers.
                tracing::error!(error = %cause, "the store failed; the request was answered with an error");
                codes::INTERNAL.because("The store failed; try again later.")
            }
            BrokerError::Unsure(_) => {
                tracing::warn!(%error, "a request was answered with an error");
                codes::INTERNAL.because("It is not known whether the change was made.")
            }
            BrokerError::Unavailable | BrokerError::Standby(_) => codes::NOT_SERVING.plain(),
            BrokerError::Closed => codes::STOPPING.plain(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_sentences() {
        let message = |code: Code, detail: &str| code.because(detail).message.into_owned();
        assert_eq!(message(codes::NAME_CHARS, "queue name is \"a b\""), {
            "The name contains invalid characters. Queue name is \"a b\"."
        });
        for text in ["to is missing.", "tag is given 4 times.", "polls has 0 entries."] {
            assert!(message(codes::URL_PARAMETER, text).ends_with(text), "a parameter keeps its spelling");
        }
        assert!(message(codes::MAX_MSGS, "max_msgs is \"x\".").ends_with("limit. max_msgs is \"x\"."));
        let text = "Incorrect IAM authentication information: AK access failed to reach the limit,forbidden";
        assert_eq!(message(codes::SIGNATURE, "AK access failed to reach the limit,forbidden"), text);
    }

    /// The causes of the broker contain file names, which callers do not get.
    #[test]
    fn a_failing_store_is_not_shown() {
        let cause = std::io::Error::other("/var/lib/dms/messages.db is full");
        let error = ApiError::from(BrokerError::Store(std::sync::Arc::new(cause)));
        assert!(!error.message.contains("messages.db"), "{error:?}");
    }
}
