//! [`LastUses`]: when each key and each user was let in last. It is in memory.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

/// When a caller was let in last, in Unix milliseconds; zero if it was not. Clones share it, so that a request writes it without a lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastUse(Arc<AtomicI64>);

impl LastUse {
    /// The caller is let in.
    pub(crate) fn note(&self, now_ms: i64) {
        self.0.store(now_ms, Relaxed);
    }

    /// When it was let in last, in Unix milliseconds.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    pub(crate) fn at_ms(&self) -> Option<i64> {
        Some(self.0.load(Relaxed)).filter(|at| *at > 0)
    }
}

/// The last uses of all keys and users, by their names. Clones share them, so that a reload of the accounts keeps them.
#[derive(Clone, Debug)]
pub(crate) struct LastUses<N>(Arc<Mutex<HashMap<N, LastUse>>>);

impl<N> Default for LastUses<N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<N: Clone + Eq + Hash> LastUses<N> {
    /// The last use of a caller that the configuration has.
    pub(crate) fn of(&self, caller: &N) -> LastUse {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.entry(caller.clone()).or_default().clone()
    }

    /// Forgets callers that the configuration no longer has.
    pub(crate) fn retain(&self, is_known: impl Fn(&N) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_known(name));
    }
}
