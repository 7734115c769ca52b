//! The tokens that the identity service gave out.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{codes, error::ApiError};
use crate::{auth::canonical::hex, queue::ProjectId};

/// Tokens kept at a time. Past it the one that ends first is forgotten, so that a client in a loop cannot fill the memory.
const MOST: usize = 10_000;
/// How long an expired token is remembered, to be called expired and not unknown.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Tokens by their hash: a stolen memory image or a timed lookup gives none of them away.
#[derive(Debug)]
pub(super) struct Tokens {
    lifetime: Duration,
    grants: Mutex<HashMap<[u8; 32], Grant>>,
}

#[derive(Debug)]
struct Grant {
    project: Option<ProjectId>,
    expires: Instant,
}

impl Tokens {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, grants: Mutex::default() }
    }

    /// How long a new token is good.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Makes a token of 256 random bits, for a project or for none.
    ///
    /// # Errors
    /// DMS.10250002 when the system gives no random numbers.
    pub(super) fn grant(&self, project: Option<ProjectId>) -> Result<String, ApiError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "the system gives no random numbers");
            codes::INTERNAL.plain()
        })?;
        let token = hex(&random);
        let now = Instant::now();
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= MOST {
            make_room(&mut grants, now);
        }
        grants.insert(hash(&token), Grant { project, expires: now + self.lifetime });
        Ok(token)
    }

    /// The project that a good token opens, if it opens any.
    ///
    /// # Errors
    /// DMS.10240102 when it has expired, DMS.10240101 when it is unknown.
    pub(super) fn project(&self, token: &str) -> Result<Option<ProjectId>, ApiError> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = grants.get(&hash(token)).ok_or_else(|| codes::TOKEN_INVALID.plain())?;
        if Instant::now() < grant.expires {
            return Ok(grant.project.clone());
        }
        Err(codes::TOKEN_EXPIRED.plain())
    }
}

fn make_room(grants: &mut HashMap<[u8; 32], Grant>, now: Instant) {
    grants.retain(|_, grant| now < grant.expires + REMEMBERED);
    while grants.len() >= MOST {
        let Some(first) = grants.iter().min_by_key(|(_, grant)| grant.expires).map(|(hash, _)| *hash) else { return };
        grants.remove(&first);
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_for_its_lifetime_and_then_called_expired() {
        let tokens = Tokens::new(Duration::from_secs(60));
        let token = tokens.grant(Some(ProjectId::new("p"))).unwrap();
        assert_eq!(tokens.project(&token), Ok(Some(ProjectId::new("p"))));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(tokens.project(&token).unwrap_err().code(), codes::TOKEN_EXPIRED);
        assert_eq!(tokens.project("other").unwrap_err().code(), codes::TOKEN_INVALID);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_tokens_is_bounded() {
        let tokens = Tokens::new(Duration::from_secs(60));
        let first = tokens.grant(Some(ProjectId::new("p"))).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..MOST {
            tokens.grant(Some(ProjectId::new("p"))).unwrap();
        }
        assert_eq!(tokens.grants.lock().unwrap().len(), MOST);
        assert_eq!(tokens.project(&first).unwrap_err().code(), codes::TOKEN_INVALID);
    }
}
