//! [`LoginThrottle`]: delays the answers to wrong passwords, so that passwords cannot be tried quickly.
//!
//! Nobody is locked out. Every password is checked when it arrives, and a correct one passes at once, because anybody can send
//! wrong passwords in the name of another user.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{auth::lru::LruMap, clock::millis, log_limit::Warnings, net::peer::network};
use dms_protocol::internal::text::cut;

/// The number of wrong passwords that are answered at once, for typing errors and for several machines with the same old
/// password.
const FREE_TRIES: u32 = 3;
/// The delay of the next answer. It doubles with each further wrong password.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The maximum delay. Clients wait longer than this for an answer.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// The time without a wrong password after which earlier ones are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);
/// The maximum number of remembered users, and of remembered peers.
const MAX_REMEMBERED: usize = 4096;
/// The maximum length of a name in the log, in bytes.
const MAX_SHOWN: usize = 64;

/// Wrong passwords, by user and by peer.
#[derive(Debug)]
pub(crate) struct LoginThrottle {
    records: Mutex<LoginTables>,
    warnings: Warnings,
}

#[derive(Debug)]
struct LoginTables {
    /// By a hash of the name and the domain, also for users that do not exist, because the delay must not show whether they do.
    users: LruMap<[u8; 32], WrongTries>,
    /// By network; `None` stands for callers in the same process.
    peers: LruMap<Option<IpAddr>, WrongTries>,
}

/// Wrong passwords or tokens in a row.
#[derive(Debug, Default)]
pub(crate) struct WrongTries {
    wrong: u32,
    latest: Option<Instant>,
}

/// A login with a wrong password.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// The name in the request.
    pub(crate) user: &'a str,
    /// The domain in the request.
    pub(crate) domain: &'a str,
    /// The address at the other end of the connection; `None` for callers in the same process.
    pub(crate) peer: Option<IpAddr>,
}

/// An extension of a response: the time by which the answer is delayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DelayedResponse(pub(crate) Duration);

impl LoginThrottle {
    /// An empty table.
    pub(crate) fn new() -> Self {
        let records = LoginTables { users: LruMap::new(MAX_REMEMBERED), peers: LruMap::new(MAX_REMEMBERED) };
        Self { records: Mutex::new(records), warnings: Warnings::default() }
    }

    /// Counts a wrong password and returns the delay of its answer.
    pub(crate) fn refuse(&self, attempt: Attempt<'_>) -> Duration {
        let now = Instant::now();
        let delay = {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            let of_user = records.users.value(attempt.hash()).count(now);
            let of_peer = records.peers.value(attempt.peer.map(network)).count(now);
            delay_after(of_user.max(of_peer))
        };
        self.warn(attempt, delay, now);
        delay
    }

    /// The number of wrong passwords of a user, and the delay of the answer to the next one, if there is any.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    pub(crate) fn user(&self, user: &str, domain: &str) -> Option<Slowed> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.users.get(&Attempt { user, domain, peer: None }.hash())?.slowed(Instant::now())
    }

    /// The networks whose wrong passwords are answered later, the slowest first; `None` stands for callers in the same process.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    pub(crate) fn peers(&self) -> Vec<(Option<IpAddr>, Slowed)> {
        let (records, now) = (self.records.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let mut slowed: Vec<_> =
            records.peers.iter().filter_map(|(peer, tries)| Some((*peer, tries.slowed(now)?))).collect();
        slowed.sort_by_key(|(peer, slowed)| (std::cmp::Reverse(slowed.wrong), *peer));
        slowed
    }

    /// Forgets the wrong passwords of a user. Returns whether there were any.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard does it"))]
    pub(crate) fn forget_user(&self, user: &str, domain: &str) -> bool {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.users.remove(&Attempt { user, domain, peer: None }.hash()).is_some()
    }

    /// Forgets the wrong passwords of a network. Returns whether there were any.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard does it"))]
    pub(crate) fn forget_peer(&self, peer: Option<IpAddr>) -> bool {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).peers.remove(&peer.map(network)).is_some()
    }

    fn warn(&self, attempt: Attempt<'_>, delay: Duration, now: Instant) {
        let Some(suppressed) = self.warnings.admit(now) else { return };
        tracing::warn!(
            user = cut(attempt.user, MAX_SHOWN),
            domain = cut(attempt.domain, MAX_SHOWN),
            peer = attempt.peer.map(tracing::field::display),
            delay_ms = millis(delay),
            suppressed,
            "a login was refused: the user, the domain, the password or the project is wrong; answers to further wrong \
             logins are delayed, a correct one passes at once; if the peer is a stranger, block it"
        );
    }
}

impl Attempt<'_> {
    /// A key for the user of bounded size, because a name may be as long as a request.
    fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.user.len().to_le_bytes());
        hash.update(self.user);
        hash.update(self.domain);
        hash.finalize().into()
    }
}

/// Wrong passwords that delay the answer to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slowed {
    /// The number of wrong passwords.
    pub(crate) wrong: u32,
    /// The delay of the answer to the next one.
    pub(crate) delay: Duration,
}

impl WrongTries {
    /// The delay for the next wrong password; `None` if its answer is not delayed.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    fn slowed(&self, now: Instant) -> Option<Slowed> {
        let is_recent = self.latest.is_some_and(|latest| now.duration_since(latest) < FORGET_AFTER);
        let delay = delay_after(self.wrong.saturating_add(1));
        (is_recent && !delay.is_zero()).then_some(Slowed { wrong: self.wrong, delay })
    }

    /// Counts one more and returns the new count. Earlier ones are forgotten after ten minutes without any.
    pub(crate) fn count(&mut self, now: Instant) -> u32 {
        if self.latest.is_some_and(|latest| now.duration_since(latest) >= FORGET_AFTER) {
            self.wrong = 0;
        }
        self.latest = Some(now);
        self.wrong = self.wrong.saturating_add(1);
        self.wrong
    }
}

/// The delay of the answer to the last of `wrong` wrong passwords.
fn delay_after(wrong: u32) -> Duration {
    match wrong.saturating_sub(FREE_TRIES) {
        0 => Duration::ZERO,
        further => FIRST_DELAY.saturating_mul(2_u32.saturating_pow(further - 1)).min(MAX_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(user: &str, peer: u8) -> Attempt<'_> {
        Attempt { user, domain: "d", peer: Some(IpAddr::from([10, 0, 0, peer])) }
    }

    fn delays(logins: &LoginThrottle, user: &str, peer: u8, count: usize) -> Vec<u128> {
        (0..count).map(|_| logins.refuse(attempt(user, peer)).as_millis()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_held_back_longer_and_longer_up_to_a_bound() {
        let logins = LoginThrottle::new();
        let expected = [0, 0, 0, 250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000];
        assert_eq!(delays(&logins, "u", 1, 11), expected);
        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!(delays(&logins, "u", 1, 1), [0]);
    }

    /// Many peers try one user, and one peer tries many users.
    #[tokio::test(start_paused = true)]
    async fn users_and_peers_are_counted_each() {
        let logins = LoginThrottle::new();
        assert_eq!(delays(&logins, "u", 1, 4), [0, 0, 0, 250]);
        assert_eq!(delays(&logins, "u", 2, 1), [500]);
        assert_eq!(delays(&logins, "other", 1, 1), [500]);
        assert_eq!(delays(&logins, "other", 2, 1), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_shown_and_can_be_lifted() {
        let logins = LoginThrottle::new();
        delays(&logins, "u", 1, 2);
        assert_eq!((logins.user("u", "d"), logins.peers().len()), (None, 0));
        delays(&logins, "u", 1, 2);
        let slowed = Slowed { wrong: 4, delay: Duration::from_millis(500) };
        assert_eq!(logins.user("u", "d"), Some(slowed));
        assert_eq!(logins.peers(), [(attempt("u", 1).peer, slowed)]);
        assert!(logins.forget_user("u", "d") && !logins.forget_user("u", "d") && !logins.forget_user("x", "d"));
        assert_eq!(logins.user("u", "d"), None);
        assert!(logins.forget_peer(attempt("u", 1).peer) && logins.peers().is_empty());
        assert_eq!(delays(&logins, "u", 1, 4), [0, 0, 0, 250]);
        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!((logins.user("u", "d"), logins.peers().len()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let logins = LoginThrottle::new();
        delays(&logins, "u", 1, 4);
        for number in 0..MAX_REMEMBERED {
            logins.refuse(attempt(&number.to_string(), 2));
        }
        assert_eq!(delays(&logins, "u", 3, 1), [0]);
    }
}
