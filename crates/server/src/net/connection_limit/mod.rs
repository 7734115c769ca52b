//! [`ConnectionLimit`]: the connection slots of a listener, and which connection gives up its slot when all are taken.

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
        waiting_poll::Owner,
    },
};

/// The strangers of one peer may take one of this many parts of the slots.
const SLOT_PARTS: usize = 4;
/// The interval at which a new connection looks again for a slot or a descriptor that another listener freed.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The audience of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Clients that send and consume.
    Callers,
    /// Probes, scrapers and operators. They have their own budget of descriptors.
    Operators,
}

/// The slots of one listener.
#[derive(Debug)]
pub struct ConnectionLimit {
    /// The name of the listener in metrics and logs.
    name: &'static str,
    most: usize,
    /// The descriptors that it shares with other listeners; `None` if it has its own budget.
    shared: Option<usize>,
    table: Mutex<SlotTable>,
    /// Notified when a slot is free, or may be.
    freed: Arc<Notify>,
    metrics: ConnectionMetrics,
    warnings: Warnings,
}

#[derive(Debug, Default)]
struct SlotTable {
    slots: HashMap<u64, Arc<ConnectionState>>,
    next: u64,
    /// The number of slots of each peer.
    peers: HashMap<IpAddr, usize>,
}

/// The slot of a connection. It is free again when this is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    connections: Arc<ConnectionLimit>,
    number: u64,
    connection: Arc<ConnectionState>,
    _descriptor: Option<DescriptorPermit>,
}

impl ConnectionLimit {
    /// The slots of a listener: `most`, or fewer if descriptors are scarce.
    pub fn new(name: &'static str, most: usize, audience: Audience, metrics: ConnectionMetrics) -> Arc<Self> {
        let budget = DescriptorBudget::current();
        let (most, shared) = match audience {
            Audience::Callers => (most.min(budget.service), Some(budget.service)),
            Audience::Operators => (most.min(budget.operators), None),
        };
        let (table, freed) = (Mutex::default(), Arc::default());
        Arc::new(Self { name, most: most.max(1), shared, table, freed, metrics, warnings: Warnings::default() })
    }

    /// Waits for a slot for a new connection.
    ///
    /// # Cancel safety
    /// Dropping the future takes no slot.
    pub async fn take(self: &Arc<Self>, peer: IpAddr) -> ConnectionSlot {
        loop {
            if let Some(slot) = self.try_take(peer) {
                return slot;
            }
            let _ = timeout(RETRY_INTERVAL, self.freed.notified()).await;
        }
    }

    /// A slot for a new connection. If its peer has used its share, or if all slots are taken, the connection that has been
    /// idle the longest gives up its slot. `None` while all connections answer requests.
    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionSlot> {
        let connection = Arc::new(ConnectionState::new(peer, Arc::clone(&self.freed)));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.strangers_of(connection.network(), self.share()) >= self.share() {
            self.displace(&mut table, Some(connection.network()), "peer_share");
        }
        if table.slots.len() >= self.most {
            self.make_room_in(&mut table, "full").then_some(())?;
        }
        let descriptor = match self.shared {
            Some(most) => Some(self.descriptor(&mut table, most)?),
            None => None,
        };
        let number = table.insert(Arc::clone(&connection));
        self.metrics.open(self.name).inc();
        Some(ConnectionSlot { connections: Arc::clone(self), number, connection, _descriptor: descriptor })
    }

    /// A descriptor of the shared budget. The descriptor of a displaced connection is free a moment later.
    fn descriptor(&self, table: &mut SlotTable, most: usize) -> Option<DescriptorPermit> {
        let taken = DescriptorPermit::within(most);
        if taken.is_none() {
            self.make_room_in(table, "descriptors");
        }
        taken
    }

    /// Closes the connection that has been idle the longest, because the process has no descriptor for a new one.
    pub fn make_room(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room_in(&mut table, "descriptors");
    }

    /// Closes an idle connection, or else asks a waiting consume call to end, whose connection closes a moment later. Returns
    /// whether a slot is free now.
    fn make_room_in(&self, table: &mut SlotTable, reason: &'static str) -> bool {
        let is_free = self.displace(table, None, reason);
        if !is_free {
            self.end_poll(table);
        }
        is_free
    }

    fn end_poll(&self, table: &SlotTable) {
        let now = Instant::now();
        let Some(connection) = table.poll_to_end(now) else { return };
        connection.waiting_poll.end(now);
        self.metrics.closed(self.name, "waiting_poll");
        if let Some(suppressed) = self.warnings.admit(now) {
            tracing::warn!(
                listener = self.name,
                peer = %connection.peer(),
                slots = self.most,
                suppressed,
                "all connections are in use: a waiting consume call was answered early and its connection closed to make room for \
                 a new one; raise the limit of connections, or reduce the number of pollers"
            );
        }
    }

    /// The number of slots that the strangers of one peer may take.
    fn share(&self) -> usize {
        (self.most / SLOT_PARTS).max(1)
    }

    fn displace(&self, table: &mut SlotTable, of: Option<IpAddr>, reason: &'static str) -> bool {
        let Some(number) = table.quietest(of) else { return false };
        let Some(connection) = table.remove(number) else { return false };
        connection.displaced.cancel();
        self.metrics.closed(self.name, reason);
        if let Some(suppressed) = self.warnings.admit(Instant::now()) {
            tracing::warn!(
                listener = self.name,
                reason,
                peer = %connection.peer(),
                slots = self.most,
                suppressed,
                "an idle connection was closed to make room for a new one: raise the limit of connections or of open files, \
                 or block the peer if it is a stranger"
            );
        }
        true
    }
}

impl SlotTable {
    fn insert(&mut self, connection: Arc<ConnectionState>) -> u64 {
        let number = self.next;
        self.next += 1;
        *self.peers.entry(connection.network()).or_default() += 1;
        self.slots.insert(number, connection);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Arc<ConnectionState>> {
        let connection = self.slots.remove(&number)?;
        if let Some(slots) = self.peers.get_mut(&connection.network()) {
            *slots -= 1;
            if *slots == 0 {
                self.peers.remove(&connection.network());
            }
        }
        Some(connection)
    }

    /// The number of slots of displaceable strangers of a peer. They are counted only if the peer has at least `from` slots.
    fn strangers_of(&self, network: IpAddr, from: usize) -> usize {
        if self.peers.get(&network).is_none_or(|slots| *slots < from) {
            return 0;
        }
        let strangers = self.slots.values().filter(|connection| !connection.is_known() && connection.is_displaceable());
        strangers.filter(|connection| connection.network() == network).count()
    }

    /// The connection whose waiting consume call is to end. It belongs to the project, then the peer, then the group with the
    /// most waiting calls, and has waited the longest. `None` while the answer of an ended call is being written.
    fn poll_to_end(&self, now: Instant) -> Option<&Arc<ConnectionState>> {
        if self.slots.values().any(|connection| connection.waiting_poll.is_leaving(now)) {
            return None;
        }
        let polls =
            || self.slots.values().filter_map(|connection| Some((connection, connection.waiting_poll.endable(now)?)));
        let (mut projects, mut networks, mut groups) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (connection, (owner, _)) in polls() {
            *projects.entry(owner.project).or_insert(0_usize) += 1;
            *networks.entry(connection.network()).or_insert(0_usize) += 1;
            *groups.entry(owner.group).or_insert(0_usize) += 1;
        }
        let rank = |connection: &ConnectionState, owner: Owner, since| {
            let counts = (projects[&owner.project], networks[&connection.network()], groups[&owner.group]);
            (counts, std::cmp::Reverse(since))
        };
        let (connection, _) = polls().max_by_key(|(connection, (owner, since))| rank(connection, *owner, *since))?;
        Some(connection)
    }

    /// The connection that has been idle the longest, strangers first.
    fn quietest(&self, of: Option<IpAddr>) -> Option<u64> {
        let candidates = self.slots.iter().filter(|(_, connection)| {
            connection.is_displaceable() && of.is_none_or(|network| connection.network() == network)
        });
        let quietest =
            candidates.min_by_key(|(number, connection)| (connection.is_known(), connection.quiet_since(), **number));
        quietest.map(|(number, _)| *number)
    }
}

impl ConnectionSlot {
    /// The state of the connection.
    pub fn connection(&self) -> &Arc<ConnectionState> {
        &self.connection
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
