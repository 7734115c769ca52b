//! Acknowledgement tokens: which batch, which message of it, and a seal that only the broker knows.
//!
//! A token is 24 bytes: 16 random ones that name the batch, the message's position, and 7 random ones of that message.
//! As base64url that is 32 characters without slack, so no other text stands for the same token.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

const BATCH: usize = 16;
const SEAL: usize = 7;
const LENGTH: usize = BATCH + 1 + SEAL;

/// What names a batch: random, so that nobody can name a batch that was not handed to them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BatchToken([u8; BATCH]);

/// What proves a position in a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal([u8; SEAL]);

/// A token taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// Which batch.
    pub(crate) batch: BatchToken,
    /// Which message of it.
    pub(crate) position: u8,
    /// That message's.
    pub(crate) seal: Seal,
}

/// Randomness for one batch.
pub(crate) struct Minted {
    /// Its name.
    pub(crate) batch: BatchToken,
    /// Seals end to end.
    seals: Vec<u8>,
}

impl Minted {
    /// Draws the tokens of a batch of up to `messages`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn draw(messages: usize) -> Result<Self, getrandom::Error> {
        let mut random = vec![0; BATCH + SEAL * messages];
        getrandom::fill(&mut random)?;
        let seals = random.split_off(BATCH);
        let mut batch = [0; BATCH];
        batch.copy_from_slice(&random);
        Ok(Self { batch: BatchToken(batch), seals })
    }

    /// The seals, one for each message.
    pub(crate) fn seals(&self) -> impl Iterator<Item = Seal> {
        self.seals.as_chunks().0.iter().map(|seal| Seal(*seal))
    }
}

impl Handle {
    /// The token as text.
    pub(crate) fn encode(&self) -> String {
        let mut bytes = [self.position; LENGTH];
        bytes[..BATCH].copy_from_slice(&self.batch.0);
        bytes[BATCH + 1..].copy_from_slice(&self.seal.0);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token; `None` where the text is none.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (batch, rest) = bytes.split_first_chunk()?;
        let (position, seal) = rest.split_first()?;
        let seal = Seal(*seal.first_chunk()?);
        (length == LENGTH).then_some(Self { batch: BatchToken(*batch), position: *position, seal })
    }
}

// Tokens are the right to acknowledge: they stay out of logs.
impl fmt::Debug for BatchToken {
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
        let minted = Minted::draw(10).unwrap();
        assert_eq!(minted.seals().count(), 10);
        for (position, seal) in (0..).zip(minted.seals()) {
            let handle = Handle { batch: minted.batch, position, seal };
            assert_eq!(handle.encode().len(), 32);
            assert_eq!(Handle::decode(&handle.encode()), Some(handle));
        }
    }

    proptest! {
        #[test]
        fn any_text_reads_as_a_token_or_not_without_panic(text in ".{0,80}") {
            if let Some(handle) = Handle::decode(&text) {
                prop_assert_eq!(handle.encode(), text);
            }
        }

        #[test]
        fn every_change_of_a_token_is_another_token(at in 0usize..32, other in "[A-Za-z0-9_-]") {
            let handle = Handle { batch: BatchToken([7; BATCH]), position: 1, seal: Seal([9; SEAL]) };
            let mut text = handle.encode();
            text.replace_range(at..=at, &other);
            prop_assert_eq!(text == handle.encode(), Handle::decode(&text) == Some(handle));
        }
    }
}
