//! Wrong signatures per peer: when one is answered with the gateway's text for a locked key, and which of them are logged.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Wrong signatures in a row after which further ones are answered as by a locked key.
const STRIKES: u32 = 5;
/// How long that lasts.
const LOCKED: Duration = Duration::from_secs(5 * 60);
/// How many peers are remembered per key. Beyond that, the one that has been quiet the longest is forgotten.
const MAX_PEERS: usize = 1024;

/// The wrong signatures made with one key, per peer. They never keep a right signature out: anybody who knows the name
/// of a key can send wrong ones.
#[derive(Debug, Default)]
pub(crate) struct KeyLock(Mutex<HashMap<Option<IpAddr>, WrongSignatures>>);

/// The latest wrong signatures of one peer.
#[derive(Debug)]
struct WrongSignatures {
    strikes: u32,
    latest: Instant,
    locked_until: Option<Instant>,
}

/// What a wrong signature comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// The first one of this peer.
    First,
    /// One more.
    Further,
    /// The one that locks the key for this peer.
    Locks,
    /// One while the key is locked for this peer.
    Locked,
}

impl KeyLock {
    /// A right signature clears the count of its peer.
    pub(crate) fn clear(&self, peer: Option<IpAddr>) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !peers.is_empty() {
            peers.remove(&peer);
        }
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
            STRIKES => {
                record.locked_until = Some(now + LOCKED);
                Strike::Locks
            }
            _ => Strike::Further,
        }
    }
}

/// Forgets the peer that has been quiet the longest when there are as many as may be.
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
        tokio::time::advance(LOCKED).await;
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
