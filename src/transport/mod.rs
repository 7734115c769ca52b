//! [`Transport`]: sends requests and returns answers. [`HttpTransport`] uses sockets, [`InProcess`] calls a service in
//! the same process.
//!
//! A transport does not sign, retry or read JSON. It tells how far a failed request got.

use std::{error::Error as StdError, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::contain::{contained, text_of};

mod answer;
pub(crate) mod certificate_error;
mod direct;
pub(crate) mod http_client;
mod in_process;
mod outgoing;
pub(crate) mod pool;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

pub use http_client::{HttpOptions, HttpTransport};
pub use in_process::{InProcess, InProcessBody};

/// The largest answer that is accepted. A consume answer with ten messages is well below it.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Sends requests of a [`Client`](crate::Client).
///
/// Implement it to use an HTTP client of your own, or to look at the requests:
///
/// ```
/// use std::{sync::Arc, time::Duration};
///
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use dms_worker::{Client, transport::{HttpOptions, HttpTransport, Transport, TransportError}};
/// use http::{Request, Response};
///
/// #[derive(Debug)]
/// struct Logged(HttpTransport);
///
/// #[async_trait]
/// impl Transport for Logged {
///     async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
///         println!("{} {}", request.method(), request.uri().path());
///         self.0.send(request, timeout).await
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let transport = Logged(HttpTransport::new(&HttpOptions::new().tls(false))?);
///     let client = Client::builder("http://127.0.0.1:9400", "local").transport(Arc::new(transport)).build()?;
///     println!("{client:?}");
///     Ok(())
/// }
/// ```
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `request`, which has an absolute URI, and returns the whole answer, whatever its status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the request, which the service may still process.
    ///
    /// # Errors
    /// When there is no complete answer within `timeout`.
    async fn send(
        &self,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<http::Response<Bytes>, TransportError>;
}

/// A request without an answer. Tells whether the request may have reached the service.
#[derive(Debug)]
pub struct TransportError {
    reach: Reach,
    source: Box<dyn StdError + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    NotSent,
    Unsure,
    TimedOut,
}

impl TransportError {
    /// An error of a request that did not reach the service: the name was not resolved, or the connection, the proxy's
    /// tunnel or TLS was not set up.
    pub fn not_sent(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reach: Reach::NotSent, source: source.into() }
    }

    /// An error of a request that may have reached the service and taken effect.
    pub fn unsure(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reach: Reach::Unsure, source: source.into() }
    }

    /// A timeout of a request that may have reached the service and taken effect.
    pub fn timed_out(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reach: Reach::TimedOut, source: source.into() }
    }

    /// Returns whether the request did not reach the service.
    pub fn is_not_sent(&self) -> bool {
        self.reach == Reach::NotSent
    }

    /// Returns whether the timeout passed after the request was sent.
    pub fn is_timeout(&self) -> bool {
        self.reach == Reach::TimedOut
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reach {
            Reach::NotSent => "the service cannot be reached",
            Reach::Unsure => "the connection broke before the answer",
            Reach::TimedOut => "no answer came in time",
        })?;
        let innermost = contained(|| innermost(self.source.as_ref()));
        write!(f, ": {}", certificate_error::in_words(&innermost.map_or_else(|panic| panic, text_of)))
    }
}

/// The innermost error names the cause; the layers around it add little.
fn innermost<'a>(mut cause: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}
