//! [`RunningPublisher`], and the [`PublisherKey`] by which a reload finds it again.

use std::{net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    config,
    sidecar::publisher::{idempotency::IdempotencyMemories, producers::Producers},
};
use dms_server::internal::{bearer::BearerAuth, listener::Listener};

/// A publisher that answers.
#[derive(Debug)]
pub(crate) struct RunningPublisher {
    pub(crate) key: PublisherKey,
    /// Keeps the socket for a successor. Connections are accepted by another listener of the same socket.
    pub(crate) listener: Listener,
    pub(crate) guard: BearerAuth,
    pub(crate) memories: IdempotencyMemories,
    /// The queues that it sends to, by their names or ids.
    #[cfg(feature = "dashboard")]
    pub(crate) queues: Vec<String>,
    /// Its producers.
    pub(crate) producers: Arc<Producers>,
    /// Cancelled when it is to end.
    pub(crate) stop: CancellationToken,
}

/// Identifies a publisher in another configuration, by its address. The number distinguishes publishers with the same address, which
/// port 0 makes possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublisherKey {
    listen: SocketAddr,
    number: usize,
}

impl PublisherKey {
    /// The keys of publishers, in their order.
    pub(crate) fn all(publishers: &[config::Publisher]) -> Vec<Self> {
        let number = |place: usize, listen| publishers[..place].iter().filter(|other| other.listen == listen).count();
        let keys = publishers.iter().enumerate();
        keys.map(|(place, publisher)| Self { listen: publisher.listen, number: number(place, publisher.listen) })
            .collect()
    }

    /// The publisher with this key.
    pub(crate) fn find(self, publishers: &[config::Publisher]) -> Option<&config::Publisher> {
        Self::all(publishers).iter().position(|key| *key == self).and_then(|place| publishers.get(place))
    }
}
