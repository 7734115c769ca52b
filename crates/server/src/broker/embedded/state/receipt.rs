//! [`Receipt`]: the token that acknowledges one leased message. It names the lease and the message, and contains a secret that only
//! the broker knows.
//!
//! A receipt has 24 bytes: 16 random ones for the lease, the position of the message, and 7 random ones for the message. In
//! base64url that is 32 characters without unused bits, so no other text stands for the same receipt.

use std::{cell::RefCell, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::broker::ReceiptText;

const TOKEN_BYTES: usize = 16;
const SEAL_BYTES: usize = 7;
const RECEIPT_BYTES: usize = TOKEN_BYTES + 1 + SEAL_BYTES;
/// The randomness that a thread draws at once, in bytes: enough for 47 leases of ten messages.
const POOL_BYTES: usize = 4_096;

/// Names a lease. It is random, so that nobody can name a lease that was not handed to them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LeaseToken([u8; TOKEN_BYTES]);

/// Proves that a position of a lease was handed out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal([u8; SEAL_BYTES]);

/// The parts of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The lease.
    pub(crate) batch: LeaseToken,
    /// The position of the message in the batch.
    pub(crate) position: u8,
    /// The secret of this message.
    pub(crate) seal: Seal,
}

/// The randomness for the receipts of one lease.
pub(crate) struct NewReceipts {
    /// Names the lease.
    pub(crate) batch: LeaseToken,
    /// [`batch`](Self::batch), and the seals one after the other.
    random: Vec<u8>,
}

impl NewReceipts {
    /// Draws randomness for up to `messages` receipts.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn draw(messages: usize) -> Result<Self, getrandom::Error> {
        let mut random = vec![0; TOKEN_BYTES + SEAL_BYTES * messages];
        RANDOM.with_borrow_mut(|pool| pool.fill(&mut random))?;
        let batch = random.first_chunk().copied().unwrap_or_default();
        Ok(Self { batch: LeaseToken(batch), random })
    }

    /// The randomness of a lease as text, for the next owner of its messages.
    pub(crate) fn text_of(batch: LeaseToken, seals: &[Seal]) -> String {
        let mut bytes = batch.0.to_vec();
        bytes.extend(seals.iter().flat_map(|seal| seal.0));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`text_of`](Self::text_of) wrote. Returns `None` for any other text.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only stores in PostgreSQL change their owner"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let random = URL_SAFE_NO_PAD.decode(text).ok()?;
        let batch = LeaseToken(*random.first_chunk()?);
        Some(Self { batch, random })
    }

    /// The seals, one for each message.
    pub(crate) fn seals(&self) -> impl Iterator<Item = Seal> {
        self.random[TOKEN_BYTES..].as_chunks().0.iter().map(|seal| Seal(*seal))
    }
}

thread_local! {
    static RANDOM: RefCell<RandomPool> = const { RefCell::new(RandomPool::EMPTY) };
}

/// Random bytes of the system that were drawn in advance, because a system call for each lease costs more than the lease.
struct RandomPool {
    bytes: [u8; POOL_BYTES],
    /// Where the bytes begin that nobody has used.
    unused: usize,
}

impl RandomPool {
    const EMPTY: Self = Self { bytes: [0; POOL_BYTES], unused: POOL_BYTES };

    /// Fills `target` with bytes that are used only once.
    ///
    /// # Errors
    /// When the system has no randomness.
    fn fill(&mut self, target: &mut [u8]) -> Result<(), getrandom::Error> {
        if target.len() > POOL_BYTES {
            return getrandom::fill(target);
        }
        if target.len() > POOL_BYTES - self.unused {
            // Marked as used first: after a failure the pool must not hand out old bytes.
            self.unused = POOL_BYTES;
            getrandom::fill(&mut self.bytes)?;
            self.unused = 0;
        }
        let drawn = &mut self.bytes[self.unused..self.unused + target.len()];
        target.copy_from_slice(drawn);
        // Receipts are secret, so no second copy of them stays in memory.
        drawn.fill(0);
        self.unused += target.len();
        Ok(())
    }
}

impl Receipt {
    /// The receipt as text.
    pub(crate) fn encode(&self) -> ReceiptText {
        let mut bytes = [self.position; RECEIPT_BYTES];
        bytes[..TOKEN_BYTES].copy_from_slice(&self.batch.0);
        bytes[TOKEN_BYTES + 1..].copy_from_slice(&self.seal.0);
        let mut text = [0; ReceiptText::USUAL];
        // The text has exactly this length.
        let length = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).unwrap_or_default();
        std::str::from_utf8(&text[..length]).unwrap_or_default().into()
    }

    /// Reads a receipt. Returns `None` for any other text.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; RECEIPT_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (batch, rest) = bytes.split_first_chunk()?;
        let (position, seal) = rest.split_first()?;
        let seal = Seal(*seal.first_chunk()?);
        (length == RECEIPT_BYTES).then_some(Self { batch: LeaseToken(*batch), position: *position, seal })
    }
}

// Receipts are the right to acknowledge, so they stay out of logs.
impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchToken(…)")
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        let new_receipts = NewReceipts::draw(10).unwrap();
        assert_eq!(new_receipts.seals().count(), 10);
        let seals: Vec<_> = new_receipts.seals().collect();
        let handed_over = NewReceipts::parse(&NewReceipts::text_of(new_receipts.batch, &seals)).unwrap();
        assert!(handed_over.batch == new_receipts.batch && handed_over.seals().eq(new_receipts.seals()));
        for (position, seal) in (0..).zip(new_receipts.seals()) {
            let receipt = Receipt { batch: new_receipts.batch, position, seal };
            assert_eq!(receipt.encode().len(), 32);
            assert_eq!(Receipt::decode(receipt.encode().as_bytes()), Some(receipt));
        }
    }

    #[test]
    fn no_random_byte_is_used_twice() {
        let mut pool = RandomPool::EMPTY;
        let mut seen = std::collections::HashSet::new();
        // Odd lengths, so that the pool is refilled with some bytes left; the largest batch; and more than the pool has.
        for length in [86, 1_801, 33, POOL_BYTES, POOL_BYTES + 1].repeat(50) {
            let mut drawn = vec![0; length];
            pool.fill(&mut drawn).unwrap();
            for piece in drawn.as_chunks::<16>().0 {
                assert!(seen.insert(*piece), "16 random bytes came twice");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_reads_as_a_token_or_not_without_panic(text in ".{0,80}") {
            if let Some(receipt) = Receipt::decode(text.as_bytes()) {
                prop_assert_eq!(String::from(&*receipt.encode()), text);
            }
        }

        #[test]
        fn every_change_of_a_token_is_another_token(at in 0usize..32, other in "[A-Za-z0-9_-]") {
            let receipt = Receipt { batch: LeaseToken([7; TOKEN_BYTES]), position: 1, seal: Seal([9; SEAL_BYTES]) };
            let mut text = String::from(&*receipt.encode());
            text.replace_range(at..=at, &other);
            prop_assert_eq!(text == *receipt.encode(), Receipt::decode(text.as_bytes()) == Some(receipt));
        }
    }
}
