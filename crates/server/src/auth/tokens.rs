//! [`TokenStore`]: the tokens that the identity service issued.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    auth::caller::{CallerName, Principal},
    http::{codes, error::ApiError},
};
use dms_protocol::auth::canonical::hex;

/// The maximum number of tokens of one user. Beyond it the oldest is forgotten, so that a client in a loop can neither fill the
/// memory nor end the tokens of others.
const MAX_TOKENS: usize = 1_000;
/// How long an expired token is remembered, so that it is reported as expired and not as unknown.
const EXPIRED_TTL: Duration = Duration::from_secs(3600);

/// The issued tokens, by their hash, so that neither a memory dump nor a timed lookup reveals one.
#[derive(Debug)]
pub(crate) struct TokenStore {
    lifetime: Duration,
    table: Mutex<TokenTable>,
}

type Hash = [u8; 32];

#[derive(Debug, Default)]
struct TokenTable {
    grants: HashMap<Hash, Grant>,
    /// The tokens of each user, oldest first.
    users: HashMap<CallerName, VecDeque<Hash>>,
}

#[derive(Debug)]
struct Grant {
    owner: Arc<Principal>,
    expires: Instant,
}

impl TokenStore {
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { lifetime, table: Mutex::default() }
    }

    /// The lifetime of a new token.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Issues a token of 256 random bits. A token without an owner is not stored: it is for open servers, which check no
    /// tokens.
    ///
    /// # Errors
    /// DMS.10250002 when the system provides no random numbers.
    pub(crate) fn grant(&self, owner: Option<Arc<Principal>>) -> Result<String, ApiError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "the system provides no random numbers; a token was not issued");
            codes::INTERNAL.plain()
        })?;
        let token = hex(&random);
        if let Some(owner) = owner {
            let now = Instant::now();
            self.table().insert(hash(&token), Grant { owner, expires: now + self.lifetime }, now);
        }
        Ok(token)
    }

    /// Remembers a token that another server with the same secret may have issued.
    #[cfg(feature = "postgres")]
    pub(crate) fn remember(&self, token: &str, owner: Arc<Principal>, left: Duration) {
        let now = Instant::now();
        self.table().insert(hash(token), Grant { owner, expires: now + left.min(self.lifetime) }, now);
    }

    /// The owner of a valid token.
    ///
    /// # Errors
    /// DMS.10240102 when it has expired, DMS.10240101 when it is unknown.
    pub(crate) fn owner(&self, token: &str) -> Result<Arc<Principal>, ApiError> {
        let table = self.table();
        let grant = table.grants.get(&hash(token)).ok_or_else(|| codes::TOKEN_INVALID.plain())?;
        if Instant::now() < grant.expires {
            return Ok(Arc::clone(&grant.owner));
        }
        Err(codes::TOKEN_EXPIRED.plain())
    }

    /// Replaces the owner of every token by the result of `current`, and forgets the tokens for which it returns `None`.
    pub(crate) fn revise(&self, current: impl Fn(&Principal) -> Option<Arc<Principal>>) {
        let mut table = self.table();
        let TokenTable { grants, users } = &mut *table;
        grants.retain(|_, grant| match current(&grant.owner) {
            Some(owner) => {
                grant.owner = owner;
                true
            }
            None => false,
        });
        users.retain(|_, hashes| {
            hashes.retain(|hash| grants.contains_key(hash));
            !hashes.is_empty()
        });
    }

    fn table(&self) -> MutexGuard<'_, TokenTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenTable {
    /// Stores a token and forgets expired ones of its user. All tokens have the same lifetime, so they expire in the order of
    /// their creation.
    fn insert(&mut self, hash: Hash, grant: Grant, now: Instant) {
        let own = self.users.entry(grant.owner.name.clone()).or_default();
        let over = |hash: &Hash| self.grants.get(hash).is_none_or(|grant| now >= grant.expires + EXPIRED_TTL);
        let mut forgotten = Vec::new();
        while own.front().is_some_and(|first| own.len() >= MAX_TOKENS || over(first)) {
            forgotten.extend(own.pop_front());
        }
        own.push_back(hash);
        for hash in forgotten {
            self.grants.remove(&hash);
        }
        self.grants.insert(hash, grant);
    }
}

fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::auth::last_use::LastUse;

    fn user(name: &str) -> Option<Arc<Principal>> {
        let name = CallerName::User { user: name.to_owned(), domain: "d".to_owned() };
        Some(Arc::new(Principal { name, projects: Vec::new(), last_use: LastUse::default() }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_for_its_lifetime_and_then_called_expired() {
        let tokens = TokenStore::new(Duration::from_secs(60));
        let token = tokens.grant(user("u")).unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(tokens.owner(&token).unwrap().name, user("u").unwrap().name);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tokens.owner(&token).unwrap_err().code(), codes::TOKEN_EXPIRED);
        assert_eq!(tokens.owner("x").unwrap_err().code(), codes::TOKEN_INVALID);
    }

    /// The tokens of one user cannot displace tokens of another user.
    #[tokio::test(start_paused = true)]
    async fn the_tokens_of_each_user_are_bounded_and_end_nobody_elses() {
        let tokens = TokenStore::new(Duration::from_secs(60));
        let other = tokens.grant(user("other")).unwrap();
        let first = tokens.grant(user("u")).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..20 * MAX_TOKENS {
            tokens.grant(user("u")).unwrap();
        }
        assert_eq!(tokens.table().grants.len(), MAX_TOKENS + 1);
        assert_eq!(tokens.owner(&first).unwrap_err().code(), codes::TOKEN_INVALID);
        assert!(tokens.owner(&other).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_nobody_asks_for_any_more_are_forgotten() {
        let tokens = TokenStore::new(Duration::from_secs(60));
        for _ in 0..10 {
            tokens.grant(user("u")).unwrap();
        }
        tokio::time::advance(Duration::from_secs(60) + EXPIRED_TTL).await;
        tokens.grant(user("u")).unwrap();
        assert_eq!(tokens.table().grants.len(), 1);
    }

    #[test]
    fn a_revision_changes_the_users_of_tokens_or_forgets_them() {
        let tokens = TokenStore::new(Duration::from_secs(60));
        let (kept, gone) = (tokens.grant(user("u")).unwrap(), tokens.grant(user("v")).unwrap());
        tokens.revise(|owner| if owner.name == user("u")?.name { user("w") } else { None });
        assert_eq!(tokens.owner(&kept).unwrap().name, user("w").unwrap().name);
        assert_eq!(tokens.owner(&gone).unwrap_err().code(), codes::TOKEN_INVALID);
        assert_eq!(tokens.table().users.len(), 1);
    }
}
