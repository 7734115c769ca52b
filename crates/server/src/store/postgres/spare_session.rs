//! [`SpareSession`]: the session of the last [guard](super::guard), kept for the next one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::store::postgres::{connect::Session, duty::Moment};

/// How long a session is kept for the next guard. A new one costs PostgreSQL a process, some milliseconds of CPU.
const KEPT: Duration = Duration::from_secs(10);

/// The session of the last guard, and when it was put here.
#[derive(Debug, Default)]
pub(super) struct SpareSession(Mutex<Option<(Arc<Session>, Moment)>>);

impl SpareSession {
    /// Puts a session here, or nothing, and returns the one that was here.
    pub(super) fn swap(&self, session: Option<Arc<Session>>) -> Option<Arc<Session>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *held, session.map(|session| (session, Moment::now())));
        before.map(|(session, _)| session)
    }

    /// Closes the session if no guard has used it for a while.
    pub(super) fn close_unused(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.take_if(|(_, since)| Moment::now().since(*since) >= KEPT);
    }
}
