//! [`SetAside`]: damaged messages, which are known, block nothing and are not settled. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::store::Damaged;

/// The damaged messages of a cursor or a delay queue, by sequence number. After a restart they are found again when they are read.
#[derive(Debug, Default)]
pub(crate) struct SetAside(BTreeMap<u64, Damaged>);

impl SetAside {
    pub(crate) fn add(&mut self, damaged: Damaged) {
        self.0.insert(damaged.seq, damaged);
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.0.contains_key(&seq)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The messages in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Damaged> {
        self.0.values()
    }

    /// Their sequence numbers.
    pub(crate) fn places(&self) -> BTreeSet<u64> {
        self.0.keys().copied().collect()
    }

    /// The first sequence number from `seq` on that is not set aside.
    pub(crate) fn first_not_in(&self, seq: u64) -> u64 {
        let mut next = seq;
        for place in self.0.range(seq..).map(|(place, _)| *place) {
            if place != next {
                break;
            }
            next += 1;
        }
        next
    }

    /// The parts of a range that are not set aside.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut gaps, mut at) = (Vec::new(), range.start);
        let inside = if range.is_empty() { 0..0 } else { range.clone() };
        for place in self.0.range(inside).map(|(place, _)| *place).chain([range.end]) {
            if place > at {
                gaps.push(at..place);
            }
            at = place + 1;
        }
        gaps
    }

    /// Removes messages that were settled.
    pub(crate) fn remove(&mut self, settled: &[Range<u64>]) {
        if !self.0.is_empty() {
            self.0.retain(|place, _| !settled.iter().any(|range| range.contains(place)));
        }
    }

    /// Removes one message.
    pub(crate) fn forget(&mut self, seq: u64) {
        self.0.remove(&seq);
    }

    /// Takes out the messages that the disk did not return, so that they are looked for again.
    pub(crate) fn take_unreadable(&mut self) -> Vec<Damaged> {
        let unreadable: Vec<_> = self.0.values().filter(|damaged| damaged.is_unreadable).cloned().collect();
        self.0.retain(|_, damaged| !damaged.is_unreadable);
        unreadable
    }

    /// Removes the messages below `low`.
    pub(crate) fn expire(&mut self, low: u64) {
        self.0 = self.0.split_off(&low);
    }
}

#[cfg(test)]
mod tests {
    // `[1..2]` is one range here, not the numbers of it.
    #![allow(clippy::single_range_in_vec_init)]

    use super::*;

    #[test]
    fn ranges_and_places_go_around_what_is_aside() {
        let mut set_aside = SetAside::default();
        assert_eq!((set_aside.first_not_in(3), set_aside.gaps(3..5)), (3, vec![3..5]));
        for seq in [3, 4, 7] {
            let (file, reason) = ("f".into(), "r".into());
            set_aside.add(Damaged { seq, entered_ms: None, file, offset: 0, reason, is_unreadable: seq == 7 });
        }
        assert_eq!((set_aside.first_not_in(3), set_aside.first_not_in(5), set_aside.first_not_in(7)), (5, 5, 8));
        assert_eq!(set_aside.gaps(1..10), [1..3, 5..7, 8..10]);
        assert_eq!(set_aside.gaps(3..5), []);
        assert_eq!(set_aside.gaps(5..5), []);
        assert_eq!(set_aside.take_unreadable().into_iter().map(|one| one.seq).collect::<Vec<_>>(), [7]);
        assert!(!set_aside.contains(7) && set_aside.contains(3));
        set_aside.remove(&[1..4]);
        assert_eq!(set_aside.places().into_iter().collect::<Vec<_>>(), [4]);
        set_aside.expire(5);
        assert_eq!(set_aside.len(), 0);
    }
}
