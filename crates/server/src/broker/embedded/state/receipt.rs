//! Acknowledgement tokens: which batch, which message of it, and a seal that only the broker knows.
//!
//! A token is 24 bytes: 16 random ones that name the batch, the message's position, and 7 random ones of that message.
//! As base64url that is 32 characters without slack, so no other text stands for the same token.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

const TOKEN_BYTES: usize = 16;
const SEAL_BYTES: usize = 7;
const RECEIPT_BYTES: usize = TOKEN_BYTES + 1 + SEAL_BYTES;

/// What names a batch: random, so that nobody can name a batch that was not handed to them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LeaseToken([u8; TOKEN_BYTES]);

/// What proves a position in a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal([u8; SEAL_BYTES]);

/// A token taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Which batch.
    pub(crate) batch: LeaseToken,
    /// Which message of it.
    pub(crate) position: u8,
    /// That message's.
    pub(crate) seal: Seal,
}

/// Randomness for one batch.
pub(crate) struct NewReceipts {
    /// Its name.
    pub(crate) batch: LeaseToken,
    /// Seals end to end.
    seals: Vec<u8>,
}

impl NewReceipts {
    /// Draws the tokens of a batch of up to `messages`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn draw(messages: usize) -> Result<Self, getrandom::Error> {
        let mut random = vec![0; TOKEN_BYTES + SEAL_BYTES * messages];
        getrandom::fill(&mut random)?;
        let seals = random.split_off(TOKEN_BYTES);
        let mut batch = [0; TOKEN_BYTES];
        batch.copy_from_slice(&random);
        Ok(Self { batch: LeaseToken(batch), seals })
    }

    /// The seals, one for each message.
    pub(crate) fn seals(&self) -> impl Iterator<Item = Seal> {
        self.seals.as_chunks().0.iter().map(|seal| Seal(*seal))
    }
}

impl Receipt {
    /// The token as text.
    pub(crate) fn encode(&self) -> String {
        let mut bytes = [self.position; RECEIPT_BYTES];
        bytes[..TOKEN_BYTES].copy_from_slice(&self.batch.0);
        bytes[TOKEN_BYTES + 1..].copy_from_slice(&self.seal.0);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token; `None` where the text is none.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut bytes = [0; RECEIPT_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (batch, rest) = bytes.split_first_chunk()?;
        let (position, seal) = rest.split_first()?;
        let seal = Seal(*seal.first_chunk()?);
        (length == RECEIPT_BYTES).then_some(Self { batch: LeaseToken(*batch), position: *position, seal })
    }
}

// Tokens are the right to acknowledge: they stay out of logs.
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
        for (position, seal) in (0..).zip(new_receipts.seals()) {
            let receipt = Receipt { batch: new_receipts.batch, position, seal };
            assert_eq!(receipt.encode().len(), 32);
            assert_eq!(Receipt::decode(&receipt.encode()), Some(receipt));
        }
    }

    proptest! {
        #[test]
        fn any_text_reads_as_a_token_or_not_without_panic(text in ".{0,80}") {
            if let Some(receipt) = Receipt::decode(&text) {
                prop_assert_eq!(receipt.encode(), text);
            }
        }

        #[test]
        fn every_change_of_a_token_is_another_token(at in 0usize..32, other in "[A-Za-z0-9_-]") {
            let receipt = Receipt { batch: LeaseToken([7; TOKEN_BYTES]), position: 1, seal: Seal([9; SEAL_BYTES]) };
            let mut text = receipt.encode();
            text.replace_range(at..=at, &other);
            prop_assert_eq!(text == receipt.encode(), Receipt::decode(&text) == Some(receipt));
        }
    }
}
