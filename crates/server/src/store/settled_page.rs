//! [`SettledPage`]: which of 1,024 messages of a cursor are settled, and how often the others failed. Pure.

use std::{collections::BTreeMap, ops::Range};

/// The number of messages in a page.
pub(crate) const PAGE_MESSAGES: u64 = 1_024;
const WORDS: usize = 16;

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SettledPage {
    bits: [u64; WORDS],
    failures: BTreeMap<u16, u16>,
}

/// The bytes are no page.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page of settled messages is damaged")]
pub(crate) struct BadPage;

/// The page of a sequence number, and the position in it.
pub(crate) fn locate(place: u64) -> (u64, u16) {
    (place / PAGE_MESSAGES, within(place % PAGE_MESSAGES))
}

fn within(place: u64) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

impl SettledPage {
    /// Reads a page as [`SettledPage::encode`] wrote it.
    pub(crate) fn decode(bits: &[u8], failures: &[u8]) -> Result<Self, BadPage> {
        let (words, rest) = bits.as_chunks::<8>();
        let (pairs, odd) = failures.as_chunks::<4>();
        if words.len() != WORDS || !rest.is_empty() || !odd.is_empty() {
            return Err(BadPage);
        }
        let mut page = Self::default();
        page.bits.iter_mut().zip(words).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
        for [place_low, place_high, count_low, count_high] in pairs {
            let place = u16::from_le_bytes([*place_low, *place_high]);
            if u64::from(place) >= PAGE_MESSAGES {
                return Err(BadPage);
            }
            page.failures.insert(place, u16::from_le_bytes([*count_low, *count_high]));
        }
        Ok(page)
    }

    /// The bytes of the page: the bits, and the failures.
    pub(crate) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let bits = self.bits.iter().flat_map(|word| word.to_le_bytes()).collect();
        let pair = |(place, count): (&u16, &u16)| [place.to_le_bytes(), count.to_le_bytes()].concat();
        (bits, self.failures.iter().flat_map(pair).collect())
    }

    /// Settles a message.
    pub(crate) fn settle(&mut self, place: u16) {
        self.bits[usize::from(place) / 64] |= 1 << (place % 64);
        self.failures.remove(&place);
    }

    /// Settles a range of messages.
    pub(crate) fn settle_range(&mut self, places: Range<u16>) {
        places.for_each(|place| self.settle(place));
    }

    /// Records the number of failures of a message.
    pub(crate) fn fail(&mut self, place: u16, failures: u32) {
        if failures > 0 {
            self.failures.insert(place, u16::try_from(failures).unwrap_or(u16::MAX));
        }
    }

    /// Whether all messages are settled.
    pub(crate) fn is_full(&self) -> bool {
        self.bits == [u64::MAX; WORDS]
    }

    /// The messages that are not settled, with their failures.
    pub(crate) fn open(&self) -> impl Iterator<Item = (u16, u32)> {
        let is_open = |place: &u16| self.bits[usize::from(*place) / 64] & (1 << (place % 64)) == 0;
        let failures = |place| self.failures.get(&place).copied().map_or(0, u32::from);
        (0..within(PAGE_MESSAGES)).filter(is_open).map(move |place| (place, failures(place)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_fills_up() {
        let mut page = SettledPage::default();
        page.settle_range(0..1_000);
        page.fail(1_023, 7);
        assert_eq!(page.open().count(), 24);
        assert_eq!(page.open().last(), Some((1_023, 7)));
        page.settle_range(1_000..1_024);
        assert!(page.is_full());
        assert!(page.encode().1.is_empty(), "settled messages have no failures");
    }

    #[test]
    fn counts_saturate() {
        let mut page = SettledPage::default();
        page.fail(3, u32::MAX);
        assert_eq!(page.open().nth(3), Some((3, 65_535)));
    }

    proptest! {
        #[test]
        fn a_page_survives_its_bytes(settled in prop::collection::vec(0u16..1_024, 0..200), failed in prop::collection::vec((0u16..1_024, 1u32..100), 0..50)) {
            let mut page = SettledPage::default();
            failed.iter().for_each(|(place, count)| page.fail(*place, *count));
            settled.iter().for_each(|place| page.settle(*place));
            let (bits, failures) = page.encode();
            prop_assert_eq!(SettledPage::decode(&bits, &failures).unwrap(), page);
        }

        #[test]
        fn any_bytes_read_as_a_page_or_not_without_panic(bits in prop::collection::vec(any::<u8>(), 0..200), failures in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(page) = SettledPage::decode(&bits, &failures) {
                prop_assert!(page.open().count() <= 1_024);
            }
        }
    }
}
