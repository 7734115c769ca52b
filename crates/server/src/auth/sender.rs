//! [`Sender`]: the head of a request and the connection that it came on.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    net::IpAddr,
};

use http::request::Parts;

use crate::{
    broker::GroupPath,
    net::{
        connection_state::ConnectionState,
        waiting_poll::{Owner, PollGuard},
    },
};

/// The head of a request and the connection that it came on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    /// The head.
    pub(crate) parts: &'a Parts,
    /// The address at the other end of the connection; `None` for callers in the same process.
    pub(crate) peer: Option<IpAddr>,
    connection: Option<&'a ConnectionState>,
}

impl<'a> Sender<'a> {
    /// The sender of a request. `connection` is `None` for callers in the same process.
    pub(crate) fn new(parts: &'a Parts, connection: Option<&'a ConnectionState>) -> Self {
        Self { parts, peer: connection.map(ConnectionState::peer), connection }
    }

    /// Notes on the connection that the credentials are valid.
    pub(super) fn has_authenticated(self) {
        if let Some(connection) = self.connection {
            connection.has_authenticated();
        }
    }

    /// Notes on the connection whether a consume call had to wait for messages.
    pub(crate) fn has_consumed(self, waited: bool) {
        if let Some(connection) = self.connection {
            connection.has_consumed(waited);
        }
    }

    /// Notes that a consume call of this group begins to wait on the connection; `None` for callers in the same process.
    pub(crate) fn begin_poll(self, path: &GroupPath) -> Option<PollGuard<'a>> {
        let hash = |id: &str| BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        self.connection.map(|connection| {
            let owner = Owner { project: hash(path.project.as_str()), group: hash(path.group.as_str()) };
            connection.waiting_poll.begin(owner)
        })
    }
}
