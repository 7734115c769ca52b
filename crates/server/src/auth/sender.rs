//! [`Sender`]: the head of a request and the connection that it came on.

use std::net::IpAddr;

use http::request::Parts;

use crate::net::connection_state::ConnectionState;

/// The head of a request, and the address that sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    /// The head.
    pub(crate) parts: &'a Parts,
    /// The address at the other end of the connection; `None` for callers in the same process.
    pub(crate) peer: Option<IpAddr>,
    visitor: Option<&'a ConnectionState>,
}

impl<'a> Sender<'a> {
    /// The sender of a request on a connection; `None` for callers in the same process.
    pub(crate) fn new(parts: &'a Parts, visitor: Option<&'a ConnectionState>) -> Self {
        Self { parts, peer: visitor.map(ConnectionState::peer), visitor }
    }

    /// Its credentials are right.
    pub(super) fn has_authenticated(self) {
        if let Some(visitor) = self.visitor {
            visitor.has_authenticated();
        }
    }
}
