//! [`Credentials`]: an authenticator with the guard of its key.

use super::key_guard::KeyGuard;
use crate::auth::Authenticator;

/// The current credentials of a client.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) authenticator: Authenticator,
    pub(super) guard: KeyGuard,
}

impl Credentials {
    pub(super) fn new(authenticator: Authenticator) -> Self {
        Self { guard: KeyGuard::new(authenticator.locks()), authenticator }
    }

    /// The credentials that replace these. If these have worked, a refusal of the new ones does not stop the client,
    /// because the service may not know them yet.
    pub(super) fn followed_by(&self, authenticator: Authenticator) -> Self {
        let next = Self::new(authenticator);
        if self.guard.has_worked() {
            next.guard.trust();
        }
        next
    }
}
