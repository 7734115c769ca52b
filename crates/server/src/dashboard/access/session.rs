//! [`Sessions`]: browsers that have logged in.
//!
//! A session is a random id in a cookie. The server keeps the hash of the id alone, in memory, so sessions end with the process.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::dashboard::access::visitor::Role;

/// How long a session lasts.
pub(in crate::dashboard) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// The maximum number of sessions. A further one ends the oldest.
const MAX_SESSIONS: usize = 1_000;

/// A hash of a session's id or of a token.
pub(in crate::dashboard) type Hash = [u8; 32];

/// The sessions of a dashboard.
#[derive(Debug, Default)]
pub(in crate::dashboard) struct Sessions(Mutex<HashMap<Hash, Session>>);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(in crate::dashboard) struct Session {
    pub(super) role: Role,
    /// The hash of the token it began with. The session ends when the token is replaced.
    pub(super) token: Hash,
    pub(super) number: u32,
    began: Instant,
}

impl Sessions {
    /// Begins a session and returns its id. `None` if the system has no random numbers.
    pub(in crate::dashboard) fn begin(&self, role: Role, token: Hash) -> Option<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        let id = URL_SAFE_NO_PAD.encode(random);
        let (now, hash) = (Instant::now(), hash(&id));
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| now.duration_since(session.began) < LIFETIME);
        if sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.began).map(|(id, _)| *id)
        {
            sessions.remove(&oldest);
        }
        // A number for the log and the page of activities. It cannot be turned into the id.
        let number = u32::from_le_bytes([hash[0], hash[1], hash[2], 0]);
        sessions.insert(hash, Session { role, token, number, began: now });
        Some(id)
    }

    /// The session with this id, if it has not ended.
    pub(super) fn find(&self, id: &str) -> Option<Session> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&hash(id)).filter(|session| session.began.elapsed() < LIFETIME).copied()
    }

    /// Ends a session.
    pub(in crate::dashboard) fn end(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash(id));
    }
}

/// The hash of a text that is random enough.
pub(in crate::dashboard) fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_end_by_time_by_logout_and_by_number() {
        let sessions = Sessions::default();
        let first = sessions.begin(Role::Operator, [1; 32]).unwrap();
        assert_eq!(first.len(), 43);
        assert!(sessions.find(&first).is_some_and(|found| found.role == Role::Operator));
        assert!(sessions.find("another").is_none());
        sessions.end(&first);
        assert!(sessions.find(&first).is_none());

        let second = sessions.begin(Role::Reader, [1; 32]).unwrap();
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        assert!(sessions.find(&second).is_some());
        for _ in 0..MAX_SESSIONS {
            sessions.begin(Role::Reader, [1; 32]).unwrap();
        }
        assert!(sessions.find(&second).is_none(), "the oldest one made room");
        let last = sessions.begin(Role::Reader, [1; 32]).unwrap();
        tokio::time::advance(LIFETIME).await;
        assert!(sessions.find(&last).is_none());
    }
}
