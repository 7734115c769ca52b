//! Signatures that were used: so that a request that was recorded cannot be sent again.
//!
//! A signature is good for 15 minutes around its time, and is remembered for as long. None is forgotten before: beyond the
//! bound further requests are refused for a while, because forgetting would let through what is to be kept out. Only right
//! signatures get here, so strangers cannot fill it. A restart forgets them all.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

use dms_protocol::auth::signer::MAX_SKEW;

/// How many signatures are remembered: about 40 MiB.
const MOST: usize = 1_000_000;

/// The beginning of a signature: it is the output of a keyed hash, so that this much tells two apart.
type Beginning = [u8; 16];

/// The signatures that were used.
#[derive(Debug, Default)]
pub(crate) struct ReplayTable(Mutex<UsedSignatures>);

#[derive(Debug, Default)]
struct UsedSignatures {
    /// By the second that they were made at, as they say themselves.
    seconds: BTreeMap<i64, HashSet<Beginning>>,
    count: usize,
}

/// What a signature comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureUse {
    /// It is the first one.
    First,
    /// It was used before.
    Again,
    /// It may be the first one; there is no room to remember it.
    NoRoom,
}

impl ReplayTable {
    /// Notes the use of a right signature that was made at this time.
    pub(crate) fn note(&self, signature: &[u8], made: Timestamp, now: Timestamp) -> SignatureUse {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.note(signature, made.as_second(), now.as_second(), MOST)
    }
}

impl UsedSignatures {
    fn note(&mut self, signature: &[u8], made: i64, now: i64, most: usize) -> SignatureUse {
        let oldest = now.saturating_sub(i64::try_from(MAX_SKEW.as_secs()).unwrap_or(i64::MAX));
        self.forget_before(oldest);
        // Its time was good when its head came, and ended before its body did: whether it was used before is forgotten.
        if made < oldest {
            return SignatureUse::Again;
        }
        let beginning = signature.first_chunk().copied().unwrap_or_default();
        if self.seconds.get(&made).is_some_and(|second| second.contains(&beginning)) {
            return SignatureUse::Again;
        }
        if self.count >= most {
            return SignatureUse::NoRoom;
        }
        self.seconds.entry(made).or_default().insert(beginning);
        self.count += 1;
        SignatureUse::First
    }

    /// Forgets the signatures that are refused for their time by now.
    fn forget_before(&mut self, oldest: i64) {
        while let Some(second) = self.seconds.first_entry().filter(|second| *second.key() < oldest) {
            self.count -= second.remove().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(number: u8) -> [u8; 32] {
        [number; 32]
    }

    #[test]
    fn a_signature_is_remembered_while_its_time_is_good() {
        let mut used = UsedSignatures::default();
        assert_eq!(used.note(&signature(1), 1_000, 1_000, 10), SignatureUse::First);
        assert_eq!(used.note(&signature(1), 1_000, 1_900, 10), SignatureUse::Again);
        assert_eq!(used.note(&signature(2), 2_500, 1_900, 10), SignatureUse::First, "its clock is ahead");
        assert_eq!(used.note(&signature(3), 1_901, 1_901, 10), SignatureUse::First);
        assert_eq!((used.count, used.seconds.len()), (2, 2), "the first one's time is over");
        assert_eq!(used.note(&signature(1), 1_000, 1_901, 10), SignatureUse::Again, "a body that came late");
        assert_eq!(used.note(&signature(2), 2_500, 3_400, 10), SignatureUse::Again);
    }

    #[test]
    fn none_is_forgotten_for_another() {
        let mut used = UsedSignatures::default();
        assert_eq!(used.note(&signature(1), 1_000, 1_000, 2), SignatureUse::First);
        assert_eq!(used.note(&signature(2), 1_001, 1_001, 2), SignatureUse::First);
        assert_eq!(used.note(&signature(3), 1_001, 1_001, 2), SignatureUse::NoRoom);
        assert_eq!(used.note(&signature(1), 1_000, 1_001, 2), SignatureUse::Again);
        assert_eq!(used.note(&signature(3), 1_901, 1_901, 2), SignatureUse::First);
    }
}
