//! [`ApiError`]: a refused request, and how it looks on the wire.

use std::{borrow::Cow, fmt::Display};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};

use super::{
    broker::BrokerError,
    codes::{self, Code},
};

/// A documented error with the text for this request.
///
/// As a response it travels in the extensions; the rim writes the body, because only the rim knows the request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: Code,
    message: Cow<'static, str>,
    shape: Shape,
}

/// Which of the documented bodies an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `{"error_code":"DMS.…","error_msg":"…","request_id":"…"}`.
    Service,
    /// `{"code":10540010,"message":"…"}`: the Kafka delay error (API reference 5.3.1, `delay_time`).
    Numeric,
    /// The identity service's: `{"error":{"code":401,"title":"Unauthorized","message":"…"}}`, the text once more
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

    /// The body for a request of this id.
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
    /// This error with its documented text alone.
    pub(crate) fn plain(self) -> ApiError {
        ApiError::new(self, self.text)
    }

    /// This error, its text followed by what was wrong with this request.
    pub(crate) fn because(self, detail: impl Display) -> ApiError {
        ApiError::new(self, format!("{} {detail}", self.text))
    }

    /// This error with a text of its own.
    pub(crate) fn saying(self, message: impl Into<String>) -> ApiError {
        ApiError::new(self, message.into())
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
            BrokerError::QueueExists(_) => codes::QUEUE_EXISTS.because(error),
            BrokerError::GroupExists(_) => codes::GROUP_EXISTS.because(error),
            BrokerError::QueueQuota(_) => codes::QUEUE_QUOTA.because(error),
            BrokerError::GroupQuota(_) => codes::GROUP_QUOTA.because(error),
            BrokerError::TagQuota(limit) => {
                codes::TAG_QUOTA.saying(format!("A maximum of {limit} tags can be created."))
            }
            BrokerError::TagNotFound(_) => codes::TAG_NOT_FOUND.because(error),
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
            BrokerError::UnknownHandle => codes::UNKNOWN_HANDLER.plain(),
            BrokerError::ForeignHandle => codes::FOREIGN_HANDLER.plain(),
            BrokerError::TooManyPolls(_) => codes::TOO_FREQUENT.because(error),
            BrokerError::Store(cause) => {
                // The cause names files and disks: it is for the log, not for callers.
                tracing::error!(error = %cause, "the store failed; the request was answered with an error");
                codes::INTERNAL.because("Nothing was changed; try again later.")
            }
            BrokerError::Closed => codes::STOPPING.plain(),
        }
    }
}
