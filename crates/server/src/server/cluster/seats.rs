//! [`Seats`]: the server that answers for each shard now.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;

use crate::{
    broker::embedded::EmbeddedBroker,
    store::postgres::{PeerUrl, cluster_view::ClusterView},
};

/// The server that answers for a shard.
#[derive(Clone, Debug)]
pub(super) enum Seat {
    /// This server.
    Local(Arc<EmbeddedBroker>),
    /// The server that is reached at this address, in this period of its ownership.
    Remote { address: Arc<str>, epoch: i64 },
    /// No server at the moment. The text is the reason.
    Nobody(Arc<str>),
}

impl Seat {
    /// Whether a call that goes to one of them would not go to the other.
    pub(super) fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(two)) => !Arc::ptr_eq(one, two),
            (Self::Remote { address, epoch }, Self::Remote { address: to, epoch: of }) => (address, epoch) != (to, of),
            (Self::Nobody(_), Self::Nobody(_)) => false,
            _ => true,
        }
    }
}

/// The seats of all shards.
#[derive(Debug)]
pub(super) struct Seats {
    seats: RwLock<HashMap<i32, Seat>>,
    changes: watch::Sender<u64>,
}

impl Seats {
    pub(super) fn new() -> Self {
        Self { seats: RwLock::default(), changes: watch::Sender::new(0) }
    }

    /// The server that answers for a shard.
    pub(super) fn of(&self, shard: i32) -> Seat {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        seats.get(&shard).cloned().unwrap_or_else(|| Seat::Nobody("it has just started".into()))
    }

    /// The broker of a shard that this server owns.
    pub(super) fn local(&self, shard: i32) -> Option<Arc<EmbeddedBroker>> {
        match self.of(shard) {
            Seat::Local(broker) => Some(broker),
            _ => None,
        }
    }

    /// The brokers of all shards that this server owns.
    pub(super) fn own(&self) -> Vec<Arc<EmbeddedBroker>> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        let mut own: Vec<_> = seats
            .iter()
            .filter_map(|(shard, seat)| match seat {
                Seat::Local(broker) => Some((*shard, broker.clone())),
                _ => None,
            })
            .collect();
        own.sort_unstable_by_key(|(shard, _)| *shard);
        own.into_iter().map(|(_, broker)| broker).collect()
    }

    /// Sets the server that answers for a shard, and wakes waiting calls if it is another one.
    pub(super) fn set(&self, shard: i32, seat: Seat) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = seats.get(&shard).is_none_or(|before| before.differs(&seat));
        seats.insert(shard, seat);
        // Released first, so that woken calls can read the seats.
        drop(seats);
        if is_new {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// Sets the seats of the shards that this server does not hold, as their owners are in `cluster`.
    pub(super) fn observe(&self, me: &str, cluster: &ClusterView, holds: impl Fn(i32) -> bool) {
        for view in cluster.shards.iter().filter(|view| !holds(view.shard)) {
            let owner = view.owner.id.as_deref().filter(|id| *id != me).and_then(|id| cluster.member(id));
            let seat = match owner {
                Some(owner) => match PeerUrl::normal(&owner.url) {
                    Some(address) => Seat::Remote { address: address.into(), epoch: view.owner.epoch },
                    None => Seat::Nobody(format!("{} owns the messages", owner.name).into()),
                },
                None => Seat::Nobody("no server owns the messages yet".into()),
            };
            self.set(view.shard, seat);
        }
    }

    /// A receiver that is notified when a seat has changed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
