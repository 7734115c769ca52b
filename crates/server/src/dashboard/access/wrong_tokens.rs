//! [`WrongTokens`]: delays the answers to wrong tokens, so that tokens cannot be guessed quickly.
//!
//! Nobody is locked out, because the right token passes at once.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    auth::{login_throttle::WrongTries, lru::LruMap},
    net::peer::network,
};

/// The number of wrong tokens of a peer that are answered at once.
const FREE_TRIES: u32 = 5;
/// The delay of each further answer.
const DELAY: Duration = Duration::from_secs(5);
/// The maximum number of remembered peers.
const MAX_PEERS: usize = 1_024;

/// Wrong tokens by peer.
#[derive(Debug)]
pub(in crate::dashboard) struct WrongTokens(Mutex<LruMap<Option<IpAddr>, WrongTries>>);

impl WrongTokens {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruMap::new(MAX_PEERS)))
    }

    /// Counts a wrong token and returns the delay of its answer.
    pub(in crate::dashboard) fn refuse(&self, peer: Option<IpAddr>) -> Duration {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = peers.value(peer.map(network)).count(Instant::now());
        if wrong > FREE_TRIES { DELAY } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_wrong_tokens_are_free_and_later_ones_are_slow() {
        let (tokens, peer) = (WrongTokens::new(), |last| Some(IpAddr::from([10, 0, 0, last])));
        let delays: Vec<_> = (0..7).map(|_| tokens.refuse(peer(1)).as_secs()).collect();
        assert_eq!(delays, [0, 0, 0, 0, 0, 5, 5]);
        assert_eq!(tokens.refuse(peer(2)), Duration::ZERO, "another peer");
        tokio::time::advance(Duration::from_secs(10 * 60)).await;
        assert_eq!(tokens.refuse(peer(1)), Duration::ZERO);
    }
}
