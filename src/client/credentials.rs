//! [`Credentials`]: who calls, and whether the service accepts it.

use super::key_guard::KeyGuard;
use crate::auth::Authenticator;

/// What a client authorizes its calls with, until it is given others.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) authenticator: Authenticator,
    pub(super) guard: KeyGuard,
}

impl Credentials {
    pub(super) fn new(authenticator: Authenticator) -> Self {
        Self { guard: KeyGuard::new(authenticator.locks()), authenticator }
    }

    /// Others in the place of these. Where these have worked, a refusal of the new ones is waited out: it may be that the service is
    /// yet to learn of them.
    pub(super) fn followed_by(&self, authenticator: Authenticator) -> Self {
        let next = Self::new(authenticator);
        if self.guard.has_worked() {
            next.guard.trust();
        }
        next
    }
}
