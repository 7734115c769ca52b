//! [`Invitations`]: links that log in once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::time::Instant;

use crate::dashboard::access::session::{Hash, hash};

/// How long a link is valid.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The code of the latest link, as its hash, and when it was made. A new link ends the one before.
#[derive(Debug, Default)]
pub(super) struct Invitations(Mutex<Option<(Hash, Instant)>>);

impl Invitations {
    /// A new code. `None` if the system has no random numbers.
    pub(super) fn issue(&self) -> Option<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        let code = URL_SAFE_NO_PAD.encode(random);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((hash(&code), Instant::now()));
        Some(code)
    }

    /// Whether this is the code of a link that is valid and was not used. It is used then.
    pub(super) fn accept(&self, code: &str) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.take_if(|(own, made)| made.elapsed() >= LIFETIME || *own == hash(code))
            .is_some_and(|(own, made)| made.elapsed() < LIFETIME && own == hash(code))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_code_is_valid_once_and_briefly() {
        let invitations = Invitations::default();
        assert!(!invitations.accept(""));
        let first = invitations.issue().unwrap();
        assert!(!invitations.accept("another"), "a wrong code does not end the link");
        assert!(invitations.accept(&first) && !invitations.accept(&first));
        let (before, second) = (invitations.issue().unwrap(), invitations.issue().unwrap());
        assert!(!invitations.accept(&before), "a later link replaced it");
        tokio::time::advance(LIFETIME).await;
        assert!(!invitations.accept(&second));
    }
}
