//! [`ReplayTable`]: the signatures that were used, so that a recorded request cannot be sent again.
//!
//! A signature is valid for 15 minutes around its time, and the table remembers it for as long. It never forgets one earlier, because
//! that would let a replay through. When the table is full, further requests are refused for a while. Each key has a share of the
//! table, so one caller cannot cause the requests of others to be refused. Strangers cannot fill it, because only valid signatures
//! get here. A restart empties it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;

use dms_protocol::auth::signer::MAX_SKEW;

/// The maximum number of signatures in the table: about 50 MiB.
const MAX_SIGNATURES: usize = 1_000_000;
/// A key may have this many times as many signatures as are free. A single busy key gets four fifths of the table, and every
/// further one a share of the rest.
const SHARE: usize = 4;

/// The first bytes of a signature. A signature is the output of a keyed hash, so these tell two apart.
type Prefix = [u8; 16];

/// The signatures that were used.
#[derive(Debug, Default)]
pub(crate) struct ReplayTable(Mutex<UsedSignatures>);

#[derive(Debug, Default)]
struct UsedSignatures {
    /// The signatures with their keys, by the second at which they claim to be made.
    seconds: BTreeMap<i64, HashMap<Prefix, Arc<str>>>,
    /// The number of signatures of each key.
    keys: HashMap<Arc<str>, usize>,
    /// The number of all signatures.
    count: usize,
}

/// The answer of the table: whether a signature was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureUse {
    /// It is used for the first time.
    First,
    /// It was used before.
    Again,
    /// It may be the first use, but the share of its key is used up.
    NoRoom,
}

impl ReplayTable {
    /// Records the use of a valid signature of `key` that was made at `made`.
    pub(crate) fn record(&self, key: &str, signature: &[u8], made: Timestamp, now: Timestamp) -> SignatureUse {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.record(key, signature, made.as_second(), now.as_second(), MAX_SIGNATURES)
    }
}

impl UsedSignatures {
    fn record(&mut self, key: &str, signature: &[u8], made: i64, now: i64, max: usize) -> SignatureUse {
        let oldest = now.saturating_sub(i64::try_from(MAX_SKEW.as_secs()).unwrap_or(i64::MAX));
        self.forget_before(oldest);
        // The signature was valid when the head of the request arrived, and expired before its body did. The table no longer knows
        // whether it was used before.
        if made < oldest {
            return SignatureUse::Again;
        }
        let prefix = signature.first_chunk().copied().unwrap_or_default();
        if self.seconds.get(&made).is_some_and(|second| second.contains_key(&prefix)) {
            return SignatureUse::Again;
        }
        let free = max.saturating_sub(self.count);
        if self.keys.get(key).copied().unwrap_or_default() >= free.saturating_mul(SHARE) {
            return SignatureUse::NoRoom;
        }
        let key = self.keys.get_key_value(key).map_or_else(|| key.into(), |(known, _)| Arc::clone(known));
        *self.keys.entry(Arc::clone(&key)).or_default() += 1;
        self.seconds.entry(made).or_default().insert(prefix, key);
        self.count += 1;
        SignatureUse::First
    }

    /// Forgets the signatures that have expired.
    fn forget_before(&mut self, oldest: i64) {
        while let Some(second) = self.seconds.first_entry().filter(|second| *second.key() < oldest) {
            for key in second.remove().into_values() {
                self.count -= 1;
                let Some(count) = self.keys.get_mut(&key) else { continue };
                *count -= 1;
                if *count == 0 {
                    self.keys.remove(&key);
                }
            }
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
        assert_eq!(used.record("k", &signature(1), 1_000, 1_000, 10), SignatureUse::First);
        assert_eq!(used.record("k", &signature(1), 1_000, 1_900, 10), SignatureUse::Again);
        assert_eq!(used.record("k", &signature(2), 2_500, 1_900, 10), SignatureUse::First, "its clock is ahead");
        assert_eq!(used.record("k", &signature(3), 1_901, 1_901, 10), SignatureUse::First);
        assert_eq!((used.count, used.seconds.len()), (2, 2), "the first one's time is over");
        assert_eq!(used.record("k", &signature(1), 1_000, 1_901, 10), SignatureUse::Again, "a body that came late");
        assert_eq!(used.record("k", &signature(2), 2_500, 3_400, 10), SignatureUse::Again);
    }

    #[test]
    fn none_is_forgotten_for_another() {
        let mut used = UsedSignatures::default();
        assert_eq!(used.record("k", &signature(1), 1_000, 1_000, 2), SignatureUse::First);
        assert_eq!(used.record("k", &signature(2), 1_001, 1_001, 2), SignatureUse::First);
        assert_eq!(used.record("k", &signature(3), 1_001, 1_001, 2), SignatureUse::NoRoom);
        assert_eq!(used.record("k", &signature(1), 1_000, 1_001, 2), SignatureUse::Again);
        assert_eq!(used.record("k", &signature(3), 1_901, 1_901, 2), SignatureUse::First);
    }

    /// A key that signs many requests leaves room for the signatures of other keys.
    #[test]
    fn one_key_leaves_room_for_others() {
        let mut used = UsedSignatures::default();
        let mut number = 0_u64;
        let mut fill = |used: &mut UsedSignatures, key: &str| {
            (0..1_000)
                .filter(|_| {
                    number += 1;
                    let mut signature = [0; 32];
                    signature[..8].copy_from_slice(&number.to_le_bytes());
                    used.record(key, &signature, 1_000, 1_000, 1_000) == SignatureUse::First
                })
                .count()
        };
        assert_eq!(fill(&mut used, "greedy"), 800);
        assert!(fill(&mut used, "second") > 100);
        assert!(fill(&mut used, "third") > 10);
        assert_eq!(
            used.record("greedy", &[1; 32], 1_901, 1_901, 1_000),
            SignatureUse::First,
            "the time of the others is over"
        );
        assert_eq!((used.count, used.keys.len()), (1, 1), "keys without signatures are forgotten");
    }
}
