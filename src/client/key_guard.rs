//! Keeps a key from being locked: after five bad signatures in a row the gateway refuses the good ones too.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::Error;

/// How many requests may be on their way before the first one was accepted.
const UNPROVEN: usize = 3;

/// Whether a key may be used. The first refusal stops it for good; until the service has accepted it once, only a few
/// requests go out at a time, so that many callers beginning together do not all bear a wrong signature.
#[derive(Debug)]
pub(super) struct KeyGuard {
    /// Whether refusals count at all.
    armed: bool,
    refusal: OnceLock<Error>,
    proven: AtomicBool,
    trial: Semaphore,
}

impl KeyGuard {
    /// A guard; one that is not `armed` lets everything pass.
    pub(super) fn new(armed: bool) -> Self {
        Self { armed, refusal: OnceLock::new(), proven: AtomicBool::new(!armed), trial: Semaphore::new(UNPROVEN) }
    }

    /// Waits until the key may be used; what is given is kept until the answer was judged.
    ///
    /// # Errors
    /// Gives the refusal after which nothing is sent any more.
    pub(super) async fn enter(&self) -> Result<Option<SemaphorePermit<'_>>, Error> {
        let permit = match self.proven.load(Ordering::Acquire) {
            true => None,
            // Closed: the key was proven or refused meanwhile.
            false => self.trial.acquire().await.ok(),
        };
        match self.refusal.get() {
            Some(error) => Err(error.clone()),
            None => Ok(permit),
        }
    }

    /// Hears that the service has accepted the key, whatever it said besides.
    pub(super) fn accepted(&self) {
        // Looked at first: to write what all calls share costs them all.
        if !self.proven.load(Ordering::Acquire) && !self.proven.swap(true, Ordering::AcqRel) {
            self.trial.close();
        }
    }

    /// Hears of a refusal. True for the first one.
    pub(super) fn refused(&self, error: &Error) -> bool {
        let first = self.armed && self.refusal.set(error.clone()).is_ok();
        if first {
            self.trial.close();
        }
        first
    }
}
