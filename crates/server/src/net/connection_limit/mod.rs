//! [`ConnectionLimit`]: the places of a listener, and who has to give up one when all are taken.

mod metrics;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Duration, Instant, timeout},
};

pub use self::metrics::ConnectionMetrics;
use crate::{
    log_limit::Warnings,
    net::{
        connection_state::ConnectionState,
        descriptors::{DescriptorBudget, DescriptorPermit},
    },
};

/// Into how many parts the places are divided: one peer's strangers may take one of them.
const PARTS: usize = 4;
/// How often a place is looked for again that another listener may have freed.
const AGAIN: Duration = Duration::from_millis(100);

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Those who send and consume.
    Callers,
    /// Probes, scrapers and operators: their descriptors are set apart.
    Operators,
}

/// The places of one listener.
#[derive(Debug)]
pub struct ConnectionLimit {
    /// What the listener is called in metrics and logs.
    name: &'static str,
    most: usize,
    /// The descriptors that it shares with others; `None` where they are set apart.
    shared: Option<usize>,
    table: Mutex<SlotTable>,
    /// Hears when a place is free, or may be.
    freed: Arc<Notify>,
    metrics: ConnectionMetrics,
    warnings: Warnings,
}

#[derive(Debug, Default)]
struct SlotTable {
    places: HashMap<u64, Arc<ConnectionState>>,
    next: u64,
    /// How many places each peer has.
    peers: HashMap<IpAddr, usize>,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    connections: Arc<ConnectionLimit>,
    number: u64,
    visitor: Arc<ConnectionState>,
    _descriptor: Option<DescriptorPermit>,
}

impl ConnectionLimit {
    /// Places of the listener of this name: `most` of them, or fewer if descriptors are short.
    pub fn new(name: &'static str, most: usize, audience: Audience, metrics: ConnectionMetrics) -> Arc<Self> {
        let budget = DescriptorBudget::current();
        let (most, shared) = match audience {
            Audience::Callers => (most.min(budget.service), Some(budget.service)),
            Audience::Operators => (most.min(budget.operators), None),
        };
        let (table, freed) = (Mutex::default(), Arc::default());
        Arc::new(Self { name, most: most.max(1), shared, table, freed, metrics, warnings: Warnings::default() })
    }

    /// A place for a new connection, as soon as there is one.
    pub async fn take(self: &Arc<Self>, peer: IpAddr) -> ConnectionSlot {
        loop {
            if let Some(place) = self.try_take(peer) {
                return place;
            }
            let _ = timeout(AGAIN, self.freed.notified()).await;
        }
    }

    /// A place for a new connection. Where its peer has its share, or all places are taken, the connection that has been
    /// quiet the longest gives up its own. `None` while all are at work.
    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionSlot> {
        let visitor = Arc::new(ConnectionState::new(peer, Arc::clone(&self.freed)));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.strangers_of(visitor.network(), self.share()) >= self.share() {
            self.displace(&mut table, Some(visitor.network()), "peer_share");
        }
        if table.places.len() >= self.most {
            self.displace(&mut table, None, "full").then_some(())?;
        }
        let descriptor = match self.shared {
            Some(most) => Some(self.descriptor(&mut table, most)?),
            None => None,
        };
        let number = table.insert(Arc::clone(&visitor));
        self.metrics.open(self.name).inc();
        Some(ConnectionSlot { connections: Arc::clone(self), number, visitor, _descriptor: descriptor })
    }

    /// A descriptor of those that listeners share. What is displaced for it is free a moment later.
    fn descriptor(&self, table: &mut SlotTable, most: usize) -> Option<DescriptorPermit> {
        let taken = DescriptorPermit::within(most);
        if taken.is_none() {
            self.displace(table, None, "descriptors");
        }
        taken
    }

    /// Closes the connection that has been quiet the longest, because the process has no descriptor for a new one.
    pub fn make_room(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.displace(&mut table, None, "descriptors");
    }

    /// The places that the strangers of one peer may take.
    fn share(&self) -> usize {
        (self.most / PARTS).max(1)
    }

    fn displace(&self, table: &mut SlotTable, of: Option<IpAddr>, reason: &'static str) -> bool {
        let Some(number) = table.quietest(of) else { return false };
        let Some(visitor) = table.remove(number) else { return false };
        visitor.displaced.cancel();
        self.metrics.closed(self.name, reason);
        if let Some(suppressed) = self.warnings.admit(Instant::now()) {
            tracing::warn!(
                listener = self.name,
                reason,
                peer = %visitor.peer(),
                places = self.most,
                suppressed,
                "an idle connection was closed to make room for a new one: raise the limit of connections or of open files, \
                 or block the peer if it is a stranger"
            );
        }
        true
    }
}

impl SlotTable {
    fn insert(&mut self, visitor: Arc<ConnectionState>) -> u64 {
        let number = self.next;
        self.next += 1;
        *self.peers.entry(visitor.network()).or_default() += 1;
        self.places.insert(number, visitor);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Arc<ConnectionState>> {
        let visitor = self.places.remove(&number)?;
        if let Some(places) = self.peers.get_mut(&visitor.network()) {
            *places -= 1;
            if *places == 0 {
                self.peers.remove(&visitor.network());
            }
        }
        Some(visitor)
    }

    /// How many places displaceable strangers of a peer have. They are counted only where it has so many places at all.
    fn strangers_of(&self, network: IpAddr, from: usize) -> usize {
        if self.peers.get(&network).is_none_or(|places| *places < from) {
            return 0;
        }
        let strangers = self.places.values().filter(|visitor| !visitor.is_known() && visitor.is_displaceable());
        strangers.filter(|visitor| visitor.network() == network).count()
    }

    /// The connection that has been quiet the longest, strangers first.
    fn quietest(&self, of: Option<IpAddr>) -> Option<u64> {
        let candidates = self
            .places
            .iter()
            .filter(|(_, visitor)| visitor.is_displaceable() && of.is_none_or(|network| visitor.network() == network));
        let quietest = candidates.min_by_key(|(number, visitor)| (visitor.is_known(), visitor.quiet_since(), **number));
        quietest.map(|(number, _)| *number)
    }
}

impl ConnectionSlot {
    /// Who has it.
    pub fn visitor(&self) -> &Arc<ConnectionState> {
        &self.visitor
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let connections = &self.connections;
        connections.table.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number);
        connections.metrics.open(connections.name).dec();
        connections.freed.notify_one();
    }
}
