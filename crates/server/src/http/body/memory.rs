//! [`BodyMemory`]: limits the memory that all bodies take together.
//!
//! The first 64 KiB of a body are not counted, because the number of connections bounds them and most bodies are smaller. A
//! larger body takes room in steps, each four times as large as the part that has arrived. Every step has a separate pool, so
//! a body that waits for one step holds nothing of the next, and a body that has reached the last step always finishes. Bodies
//! that have arrived in part therefore cannot block each other.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::net::peer::network;

/// The bytes of each body that are not counted.
pub(super) const UNCOUNTED_BYTES: usize = 64 << 10;
/// The growth of each step.
const STEP: usize = 4;
/// The number of bytes of one permit.
const UNIT: usize = 1024;

/// The memory that all bodies share. Clones share it too.
#[derive(Clone, Debug)]
pub struct BodyMemory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pools: Vec<Pool>,
    /// The pools of each peer that holds memory or waits for it.
    peers: Mutex<HashMap<IpAddr, Arc<[Pool]>>>,
    /// A peer may use one of this many parts of the memory.
    parts: usize,
}

/// The pool of one step.
#[derive(Debug)]
struct Pool {
    /// The size up to which a body may grow with this step and the steps before it.
    upto: usize,
    /// Its size, in units of [`UNIT`] bytes.
    units: u32,
    free: Arc<Semaphore>,
}

impl Pool {
    fn new(upto: usize, units: usize) -> Self {
        let units = u32::try_from(units.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX).max(1);
        Self { upto, units, free: Arc::new(Semaphore::new(usize::try_from(units).unwrap_or(usize::MAX))) }
    }

    /// Takes memory for `bytes` bytes, or all of the pool if it is smaller. First come, first served.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        Arc::clone(&self.free).acquire_many_owned(units).await.ok()
    }
}

impl BodyMemory {
    /// Memory for `bytes` bytes of bodies of at most `most` bytes each, of which one peer may use a part of `parts`.
    pub fn new(bytes: usize, most: usize, parts: usize) -> Self {
        let counted = most.saturating_sub(UNCOUNTED_BYTES).max(1);
        let (mut pools, mut upto) = (Vec::new(), UNCOUNTED_BYTES);
        while upto < most {
            let next = (upto * STEP).min(most);
            // Every pool has room for the same number of bodies.
            let part = (bytes / UNIT).saturating_mul((next - upto) / UNIT) / (counted / UNIT).max(1);
            pools.push(Pool::new(next, part));
            upto = next;
        }
        Self(Arc::new(Inner { pools, peers: Mutex::default(), parts: parts.max(1) }))
    }

    /// The share of a body from `peer` that announces at most `announced` bytes. It holds nothing yet.
    pub(super) fn hold(&self, peer: Option<IpAddr>, announced: usize) -> MemoryShare {
        MemoryShare {
            room: self.clone(),
            peer: peer.map(network),
            announced,
            bytes: UNCOUNTED_BYTES,
            own: None,
            permits: Vec::new(),
        }
    }

    fn of_peer(&self, peer: IpAddr) -> Arc<[Pool]> {
        let mut peers = self.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let part = |pool: &Pool| Pool::new(pool.upto, usize::try_from(pool.units).unwrap_or(1) / self.0.parts);
        Arc::clone(peers.entry(peer).or_insert_with(|| self.0.pools.iter().map(part).collect()))
    }
}

/// The memory that one body holds.
#[derive(Debug)]
pub(super) struct MemoryShare {
    room: BodyMemory,
    peer: Option<IpAddr>,
    /// The maximum size that the request announces.
    announced: usize,
    /// The size up to which it may grow now.
    bytes: usize,
    /// The pools of its peer.
    own: Option<Arc<[Pool]>>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl MemoryShare {
    /// The size up to which the body may grow now.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves memory for all bytes that have arrived, waiting if necessary.
    pub(super) async fn cover(&mut self, arrived: usize) {
        if arrived <= self.bytes {
            return;
        }
        if let (Some(peer), None) = (self.peer, &self.own) {
            self.own = Some(self.room.of_peer(peer));
        }
        let room = Arc::clone(&self.room.0);
        for (step, pool) in room.pools.iter().enumerate() {
            if arrived <= self.bytes {
                return;
            }
            if pool.upto <= self.bytes {
                continue;
            }
            let further = pool.upto.min(self.announced.max(arrived)) - self.bytes;
            // The share of the peer comes first, so a body that waits for it holds nothing that other peers need.
            if let Some(own) = self.own.as_ref().and_then(|own| own.get(step)) {
                self.permits.extend(own.take(further).await);
            }
            self.permits.extend(pool.take(further).await);
            self.bytes = pool.upto;
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.permits.clear();
        let (Some(peer), Some(own)) = (self.peer, self.own.take()) else { return };
        let mut peers = self.room.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        drop(own);
        if peers.get(&peer).is_some_and(|own| Arc::strong_count(own) == 1) {
            peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn peer(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    /// Whether there is memory for this body at once.
    fn finds(held: &mut MemoryShare, arrived: usize) -> bool {
        held.cover(arrived).now_or_never().is_some()
    }

    #[test]
    fn small_bodies_take_no_room() {
        let room = BodyMemory::new(MIB, MIB, 4);
        let mut bodies: Vec<_> = (0..10_000).map(|number| room.hold(peer(number), MIB)).collect();
        assert!(bodies.iter_mut().all(|held| finds(held, UNCOUNTED_BYTES)));
        assert!(room.0.peers.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_taken_follows_what_has_arrived() {
        let room = BodyMemory::new(16 * MIB, MIB, 1);
        // Each has sent 65 KiB and holds 256 KiB, not the 1 MiB that it announced.
        let mut begun: Vec<_> = (0..16).map(|number| room.hold(peer(number), MIB)).collect();
        assert!(begun.iter_mut().all(|held| finds(held, UNCOUNTED_BYTES + 1024)));
        assert!(begun.iter_mut().all(|held| held.bytes() == UNCOUNTED_BYTES * STEP));
        assert!(begun.iter_mut().all(|held| finds(held, MIB)), "they block each other");
    }

    #[test]
    fn a_peer_takes_its_part_and_leaves_the_others_theirs() {
        let room = BodyMemory::new(16 * MIB, MIB, 4);
        let mut greedy: Vec<_> = (0..16).map(|_| room.hold(peer(1), MIB)).collect();
        let served = greedy.iter_mut().filter_map(|held| finds(held, MIB).then_some(())).count();
        assert_eq!(served, 4);
        assert!(finds(&mut room.hold(peer(2), MIB), MIB));
        assert!(finds(&mut room.hold(None, MIB), MIB), "callers in the process have no share of their own");
        drop(greedy);
        assert!(room.0.peers.lock().unwrap().is_empty(), "a peer that holds nothing is forgotten");
        assert!(finds(&mut room.hold(peer(1), MIB), MIB));
    }

    #[test]
    fn a_body_that_is_larger_than_the_room_gets_all_of_it() {
        let room = BodyMemory::new(128 << 10, MIB, 4);
        let mut first = room.hold(peer(1), MIB);
        assert!(finds(&mut first, MIB));
        assert!(!finds(&mut room.hold(peer(1), MIB), MIB));
        drop(first);
        assert!(finds(&mut room.hold(peer(1), MIB), MIB));
    }
}
