//! How a request gets to the service and its answer back: the [`Transport`] trait and its implementations.
//!
//! A transport moves bytes. It neither signs, nor retries, nor reads answers; it says how far a failed request got.

use std::{error::Error as StdError, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::contain::{contained, text_of};

mod answer;
pub(crate) mod http_client;
mod in_process;
mod outgoing;
mod plain;
#[cfg(test)]
mod tests;

pub use http_client::{HttpOptions, HttpTransport};
pub use in_process::InProcess;

/// The largest answer that is read; ten messages of a full consume answer stay well below it.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Sends one request and gives the whole answer, whatever its status.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `request`, whose URI is absolute, and reads the answer within `timeout`.
    ///
    /// Dropping the future abandons the request; the service may process it all the same.
    ///
    /// # Errors
    /// When there is no complete answer in time.
    async fn send(
        &self,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<http::Response<Bytes>, TransportError>;
}

/// Why there is no answer, and whether the request may have reached the service.
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
    /// The request surely did not reach the service: the name was not resolved, or the connection, the proxy's tunnel or TLS failed or
    /// was not set up in time.
    pub fn not_sent(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reach: Reach::NotSent, source: source.into() }
    }

    /// The request may have reached the service, and may have taken effect.
    pub fn unsure(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reach: Reach::Unsure, source: source.into() }
    }

    /// No answer came in time; the request may have taken effect.
    pub fn timed_out(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reach: Reach::TimedOut, source: source.into() }
    }

    /// Whether the request surely did not reach the service.
    pub fn is_not_sent(&self) -> bool {
        self.reach == Reach::NotSent
    }

    /// Whether the time was up.
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
        write!(f, ": {}", innermost.map_or_else(|panic| panic, text_of))
    }
}

/// The layers of an HTTP client say little one by one: the innermost names the cause.
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
