//! [`Suspects`]: messages that may have ended or stopped a program have it for themselves, so that they take no others with them.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::sidecar::backpressure::blame::{LazyKey, MessageKey};
use dms_worker::internal::TtlMap;

/// How many messages are remembered, and for how long.
const MAX_RECORDS: usize = 1_000;
const RECORD_TTL: Duration = Duration::from_secs(600);
/// How often a message may end the program before it has failed, also where every other message ends it too.
const MAX_ENDS: u32 = 5;

/// Which messages are to be given to a program alone, and whose turn it is.
#[derive(Debug)]
pub(super) struct Suspects {
    /// Every message that the program has holds a read lock. A suspect holds the write lock.
    in_program: RwLock<()>,
    known: Mutex<SuspectRecords>,
}

#[derive(Debug)]
struct SuspectRecords {
    /// By content: how often such a message ended the program, alone.
    suspects: TtlMap<u64, u32>,
    /// Messages that ended the program, alone, since it last answered one.
    unanswered: HashSet<MessageKey>,
}

/// The permission to give a message to the program, held until it is answered.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(super) enum ProgramPermit<'a> {
    Shared(RwLockReadGuard<'a, ()>),
    Exclusive(RwLockWriteGuard<'a, ()>),
}

impl Suspects {
    pub(super) fn new() -> Self {
        Self {
            in_program: RwLock::new(()),
            known: Mutex::new(SuspectRecords { suspects: TtlMap::new(MAX_RECORDS), unanswered: HashSet::new() }),
        }
    }

    /// Waits for the turn of a message. Cancel-safe.
    pub(super) async fn turn(&self, key: &LazyKey<'_>) -> ProgramPermit<'_> {
        let suspected = self.has_suspects() && self.known().suspects.get(&key.get().content()).is_some();
        match suspected {
            true => ProgramPermit::Exclusive(self.in_program.write().await),
            false => ProgramPermit::Shared(self.in_program.read().await),
        }
    }

    /// The message may be what ended or stopped the program.
    pub(super) fn suspect(&self, key: MessageKey) {
        let mut known = self.known();
        if known.suspects.get(&key.content()).is_none() {
            known.suspects.insert(key.content(), 0, RECORD_TTL);
        }
    }

    /// The message ended the program, alone. Says whether it has failed: a program that ends over different messages, and answers none
    /// between them, is rather ill itself.
    pub(super) fn ended(&self, key: MessageKey) -> bool {
        let mut known = self.known();
        known.unanswered.insert(key);
        let times = known.suspects.get(&key.content()).copied().unwrap_or_default() + 1;
        let failed = known.unanswered.len() == 1 || times >= MAX_ENDS;
        known.suspects.insert(key.content(), if failed { 0 } else { times }, RECORD_TTL);
        failed
    }

    /// The program answered it.
    pub(super) fn acquit(&self, key: &LazyKey<'_>) {
        let suspects = self.has_suspects();
        let content = suspects.then(|| key.get().content());
        let mut known = self.known();
        known.unanswered.clear();
        if let Some(content) = content {
            known.suspects.remove(&content);
        }
    }

    /// Whether any message is suspected: otherwise no body has to be hashed.
    fn has_suspects(&self) -> bool {
        !self.known().suspects.is_empty()
    }

    fn known(&self) -> MutexGuard<'_, SuspectRecords> {
        // No code that can panic runs under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> MessageKey {
        MessageKey::numbered(number)
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_has_the_program_for_itself_until_it_is_answered() {
        let suspects = Suspects::new();
        suspects.suspect(key(1));
        let (suspect, innocent) = (LazyKey::numbered(1), LazyKey::numbered(2));
        let other = suspects.turn(&innocent).await;
        assert!(matches!(other, ProgramPermit::Shared(_)));
        let waits = async || tokio::time::timeout(Duration::from_secs(1), suspects.turn(&suspect)).await;
        assert!(waits().await.is_err(), "another is open");
        drop(other);
        assert!(matches!(waits().await, Ok(ProgramPermit::Exclusive(_))));
        suspects.acquit(&LazyKey::numbered(1));
        assert!(matches!(suspects.turn(&LazyKey::numbered(1)).await, ProgramPermit::Shared(_)));
    }

    #[test]
    fn a_program_that_ends_over_every_message_is_ill_itself() {
        let suspects = Suspects::new();
        assert!(suspects.ended(key(1)) && suspects.ended(key(1)), "one message alone");
        assert!(!suspects.ended(key(2)) && !suspects.ended(key(1)), "two, and no answer between them");
        let ends: Vec<bool> = (0..5).map(|_| suspects.ended(key(3))).collect();
        assert_eq!(ends, [false, false, false, false, true], "but not without end");
        suspects.acquit(&LazyKey::numbered(4));
        assert!(suspects.ended(key(2)), "others are answered");
    }
}
