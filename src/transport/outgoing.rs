//! [`Outgoing`]: a request's body that records when a connection takes the request, so that errors can tell whether it
//! was sent.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::TransportError;

/// The body of a request. The connection asks whether the body is empty right before it writes the request's head, and
/// nothing asks earlier, while the name is looked up or the connection, the proxy's tunnel or TLS is set up.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Full<Bytes>,
    departure: Departure,
}

/// Whether a connection has taken the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Departure(Arc<AtomicBool>);

impl Outgoing {
    pub(super) fn new(bytes: Bytes) -> (Self, Departure) {
        let departure = Departure::default();
        (Self { bytes: Full::new(bytes), departure: departure.clone() }, departure)
    }
}

impl Departure {
    /// The error of an exchange that failed.
    pub(super) fn failed(&self, error: impl Into<Box<dyn StdError + Send + Sync>>) -> TransportError {
        failed(self.has_left(), error)
    }

    /// The error of an exchange whose timeout passed.
    pub(super) fn timed_out(&self, error: impl Into<Box<dyn StdError + Send + Sync>>) -> TransportError {
        timed_out(self.has_left(), error)
    }

    /// Whether a connection has taken the request.
    pub(super) fn has_left(&self) -> bool {
        self.0.load(Relaxed)
    }

    fn leave(&self) {
        self.0.store(true, Relaxed);
    }
}

/// The error of an exchange that failed. If no connection had taken the request (`sent`), the service has not seen it, whatever
/// failed.
pub(super) fn failed(sent: bool, error: impl Into<Box<dyn StdError + Send + Sync>>) -> TransportError {
    if sent { TransportError::unsure(error) } else { TransportError::not_sent(error) }
}

/// The error of an exchange whose timeout passed, by the same rule.
pub(super) fn timed_out(sent: bool, error: impl Into<Box<dyn StdError + Send + Sync>>) -> TransportError {
    if sent { TransportError::timed_out(error) } else { TransportError::not_sent(error) }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.departure.leave();
        Pin::new(&mut self.bytes).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.departure.leave();
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Not a sign that the request was sent: layers above the connection ask for it, too.
        self.bytes.size_hint()
    }
}
