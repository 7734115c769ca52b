//! [`RefusedCalls`]: the requests that were answered with 401, by peer and code. They are in memory.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use crate::{auth::lru::LruMap, net::peer::network};

/// The maximum number of remembered pairs of a peer and a code.
const MAX_REMEMBERED: usize = 256;

/// The requests that were answered with 401.
#[derive(Debug)]
pub(crate) struct RefusedCalls(Mutex<Refusals>);

#[derive(Debug)]
struct Refusals {
    total: u64,
    by_peer: LruMap<(Option<IpAddr>, &'static str), Refusal>,
}

/// The refusals of one peer with one code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) count: u64,
    /// When the last one was, in Unix milliseconds.
    pub(crate) last_ms: i64,
}

/// Refusals with their peer (`None` stands for callers in the same process) and their code.
#[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
pub(crate) type RefusalRow = (Option<IpAddr>, &'static str, Refusal);

impl Default for RefusedCalls {
    fn default() -> Self {
        Self(Mutex::new(Refusals { total: 0, by_peer: LruMap::new(MAX_REMEMBERED) }))
    }
}

impl RefusedCalls {
    /// Counts a refusal.
    pub(crate) fn note(&self, peer: Option<IpAddr>, code: &'static str, now_ms: i64) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.total += 1;
        let refusal = refusals.by_peer.value((peer.map(network), code));
        *refusal = Refusal { count: refusal.count + 1, last_ms: now_ms };
    }

    /// The number of all refusals, and those that are remembered, the latest first.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    pub(crate) fn rows(&self) -> (u64, Vec<RefusalRow>) {
        let refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> =
            refusals.by_peer.iter().map(|((peer, code), refusal)| (*peer, *code, *refusal)).collect();
        rows.sort_by_key(|(peer, code, refusal)| (std::cmp::Reverse(refusal.last_ms), *peer, *code));
        (refusals.total, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_peer_and_code_within_bounds() {
        let (calls, peer) = (RefusedCalls::default(), |last: u32| Some(IpAddr::from(last.to_be_bytes())));
        for now in 0..3 {
            calls.note(peer(1), "A", now);
        }
        calls.note(peer(1), "B", 9);
        let (total, rows) = calls.rows();
        assert_eq!(total, 4);
        let refusal = |count, last_ms| Refusal { count, last_ms };
        assert_eq!(rows, [(peer(1), "B", refusal(1, 9)), (peer(1), "A", refusal(3, 2))]);
        (0..1_000).for_each(|number| calls.note(peer(number), "A", 10));
        let (total, rows) = calls.rows();
        assert_eq!((total, rows.len()), (1_004, MAX_REMEMBERED));
    }
}
