//! Who may have how much of what all share: the memory of messages that are out. Pure.
//!
//! Nothing can be taken back before its lease ends, so what is free has to last for those who come later. Everybody may hold a multiple
//! of what is *free*: a group twice, a project four times as much. A group that is alone gets two thirds of it all, and the more there
//! are who want some, the less each gets, and the less is left; but something is left, and those who hold the most are the first
//! who wait. Whoever holds nothing gets one batch out of that, whatever others of its project hold.

use std::collections::HashMap;

use crate::store::ReaderNo;
use dms_protocol::queue::ProjectId;

/// How much of what is free a group may hold.
const OF_GROUP: usize = 2;
/// How much of what is free the groups of a project may hold together.
const OF_PROJECT: usize = 4;
/// What the first batches of groups leave to other projects: one part of so many.
const LEFT_PART: usize = 16;

/// What is held, and by whom.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    all: usize,
    readers: HashMap<ReaderNo, usize>,
    projects: HashMap<ProjectId, usize>,
}

impl Shares {
    /// Whether a reader may have more of `most`. What it gets then may go beyond that by one batch.
    pub(crate) fn admit(&self, project: &ProjectId, reader: ReaderNo, most: usize) -> bool {
        let free = most.saturating_sub(self.all);
        let held = self.readers.get(&reader).copied().unwrap_or_default();
        let of_project = self.projects.get(project).copied().unwrap_or_default();
        let is_fair = held < free.saturating_mul(OF_GROUP) && of_project < free.saturating_mul(OF_PROJECT);
        is_fair || held == 0 && free > most / LEFT_PART
    }

    pub(crate) fn add(&mut self, project: &ProjectId, reader: ReaderNo, bytes: usize) {
        self.all += bytes;
        *self.readers.entry(reader).or_default() += bytes;
        match self.projects.get_mut(project) {
            Some(held) => *held += bytes,
            None => drop(self.projects.insert(project.clone(), bytes)),
        }
    }

    pub(crate) fn remove(&mut self, project: &ProjectId, reader: ReaderNo, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        let left = |held: Option<&mut usize>| {
            held.map(|held| {
                *held = held.saturating_sub(bytes);
                *held
            })
        };
        if left(self.readers.get_mut(&reader)) == Some(0) {
            self.readers.remove(&reader);
        }
        if left(self.projects.get_mut(project)) == Some(0) {
            self.projects.remove(project);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1_000_000;
    const BATCH: usize = 100;

    /// Takes batches until there are no more for this reader; how much it holds then.
    fn fill(shares: &mut Shares, project: &str, reader: u32) -> usize {
        let (project, reader) = (ProjectId::new(project), ReaderNo(reader));
        while shares.admit(&project, reader, MOST) {
            shares.add(&project, reader, BATCH);
        }
        shares.readers.get(&reader).copied().unwrap_or_default()
    }

    #[test]
    fn one_alone_gets_two_thirds_and_leaves_the_rest() {
        let mut shares = Shares::default();
        let held = fill(&mut shares, "p", 1);
        assert!((MOST * 6 / 10..MOST * 7 / 10).contains(&held), "{held}");
        shares.remove(&ProjectId::new("p"), ReaderNo(1), held);
        assert!(shares.readers.is_empty() && shares.projects.is_empty() && shares.all == 0);
    }

    /// Whoever comes when others hold all that they may gets something, another project always, and nobody goes beyond the limit.
    #[test]
    fn who_comes_late_gets_a_batch() {
        let mut shares = Shares::default();
        for reader in 0..100 {
            assert!(fill(&mut shares, "greedy", reader) >= BATCH, "group {reader}");
        }
        for reader in 100..105 {
            assert!(
                fill(&mut shares, &format!("project-{reader}"), reader) >= BATCH,
                "group {reader} of another project"
            );
        }
        assert!(shares.all <= MOST + BATCH, "{}", shares.all);
    }

    /// Whoever asks one after the other ends up with as much as the others.
    #[test]
    fn who_asks_in_turn_gets_the_same() {
        let mut shares = Shares::default();
        let project = ProjectId::new("p");
        let mut took = true;
        while std::mem::take(&mut took) {
            for reader in (0..10).map(ReaderNo) {
                if shares.admit(&project, reader, MOST) {
                    shares.add(&project, reader, BATCH);
                    took = true;
                }
            }
        }
        let held: Vec<usize> = (0..10).map(|reader| shares.readers[&ReaderNo(reader)]).collect();
        assert!(held.iter().all(|each| each.abs_diff(held[0]) <= BATCH), "{held:?}");
        assert!(shares.all > MOST * 3 / 4, "{}", shares.all);
    }
}
