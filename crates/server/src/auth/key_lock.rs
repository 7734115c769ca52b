//! [`KeyLock`]: counts wrong signatures of a key by peer. After several in a row, further wrong ones get the answer of a locked
//! key.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The number of wrong signatures in a row after which further ones get the answer of a locked key.
const MAX_STRIKES: u32 = 5;
/// The duration of the lock.
const LOCKED: Duration = Duration::from_secs(5 * 60);
/// The maximum number of remembered peers per key. Beyond it, the peer that has been quiet the longest is forgotten.
const MAX_PEERS: usize = 1024;

/// The wrong signatures made with one key, by peer. They never cause a correct signature to be refused, because anybody who
/// knows the name of a key can send wrong ones.
#[derive(Debug, Default)]
pub(crate) struct KeyLock(Mutex<HashMap<Option<IpAddr>, WrongSignatures>>);

/// The latest wrong signatures of one peer.
#[derive(Debug)]
struct WrongSignatures {
    strikes: u32,
    latest: Instant,
    locked_until: Option<Instant>,
}

/// The consequence of a wrong signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// The first wrong signature of this peer.
    First,
    /// A further one.
    Further,
    /// It locks the key for this peer.
    Locks,
    /// The key is locked for this peer.
    Locked,
}

impl KeyLock {
    /// Clears the count of a peer, after a correct signature.
    pub(crate) fn clear(&self, peer: Option<IpAddr>) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !peers.is_empty() {
            peers.remove(&peer);
        }
    }

    /// The peers for which the key is locked, with the time that is left.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    pub(crate) fn locked(&self, now: Instant) -> Vec<(Option<IpAddr>, Duration)> {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left =
            |record: &WrongSignatures| record.locked_until?.checked_duration_since(now).filter(|left| !left.is_zero());
        peers.iter().filter_map(|(peer, record)| Some((*peer, left(record)?))).collect()
    }

    /// Counts a wrong signature.
    pub(crate) fn strike(&self, peer: Option<IpAddr>, now: Instant) -> Strike {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !peers.contains_key(&peer) {
            make_room(&mut peers);
        }
        let new = || WrongSignatures { strikes: 0, latest: now, locked_until: None };
        let record = peers.entry(peer).or_insert_with(new);
        record.latest = now;
        match record.locked_until {
            Some(until) if now < until => return Strike::Locked,
            Some(_) => *record = new(),
            None => {}
        }
        record.strikes += 1;
        match record.strikes {
            1 => Strike::First,
            MAX_STRIKES => {
                record.locked_until = Some(now + LOCKED);
                Strike::Locks
            }
            _ => Strike::Further,
        }
    }
}

/// Forgets the peer that has been quiet the longest if the table is full.
fn make_room(peers: &mut HashMap<Option<IpAddr>, WrongSignatures>) {
    if peers.len() < MAX_PEERS {
        return;
    }
    let quietest = peers.iter().min_by_key(|(_, record)| record.latest).map(|(peer, _)| *peer);
    if let Some(peer) = quietest {
        peers.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn strikes(lock: &KeyLock, peer: Option<IpAddr>, count: usize) -> Vec<Strike> {
        (0..count).map(|_| lock.strike(peer, Instant::now())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn peers_are_counted_apart_and_a_right_signature_clears_its_own() {
        use Strike::{First, Further, Locked, Locks};
        let lock = KeyLock::default();
        assert_eq!(strikes(&lock, peer(1), 6), [First, Further, Further, Further, Locks, Locked]);
        assert_eq!(strikes(&lock, None, 4), [First, Further, Further, Further]);
        lock.clear(None);
        assert_eq!(strikes(&lock, None, 1), [First]);
        assert_eq!(strikes(&lock, peer(1), 1), [Locked]);
        assert_eq!(lock.locked(Instant::now()), [(peer(1), LOCKED)]);
        tokio::time::advance(LOCKED).await;
        assert!(lock.locked(Instant::now()).is_empty());
        assert_eq!(strikes(&lock, peer(1), 2), [First, Further]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_peers_remembered_are_bounded() {
        let lock = KeyLock::default();
        for number in 0..5_000 {
            lock.strike(peer(number), Instant::now());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(lock.0.lock().unwrap_or_else(PoisonError::into_inner).len(), MAX_PEERS);
        assert_eq!(strikes(&lock, peer(4_999), 1), [Strike::Further]);
        assert_eq!(strikes(&lock, peer(0), 1), [Strike::First]);
    }
}
