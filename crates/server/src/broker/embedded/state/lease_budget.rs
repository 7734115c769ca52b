//! Who may have how much of what all share: the memory of messages that are out. Pure.
//!
//! Nothing can be taken back before its lease ends, so what is free has to last for those who come later. Everybody may hold a multiple
//! of what is *free*: a group twice, a project four times as much. A group that is alone gets two thirds of it all, and the more there
//! are who want some, the less each gets, and the less is left; but something is left, and those who hold the most are the first
//! who wait. Whoever holds nothing gets one batch out of that, whatever others of its project hold.

use std::collections::HashMap;

use crate::store::CursorId;
use dms_protocol::queue::ProjectId;

/// How much of what is free a group may hold.
const GROUP_SHARE: usize = 2;
/// How much of what is free the groups of a project may hold together.
const PROJECT_SHARE: usize = 4;
/// What the first batches of groups leave to other projects: one part of so many.
const KEPT_FRACTION: usize = 16;

/// What is held, and by whom.
#[derive(Debug, Default)]
pub(crate) struct LeaseBudget {
    all: usize,
    cursors: HashMap<CursorId, usize>,
    projects: HashMap<ProjectId, usize>,
}

impl LeaseBudget {
    /// Whether a reader may have more of `most`. What it gets then may go beyond that by one batch.
    pub(crate) fn admit(&self, project: &ProjectId, cursor: CursorId, most: usize) -> bool {
        let free = most.saturating_sub(self.all);
        let held = self.cursors.get(&cursor).copied().unwrap_or_default();
        let of_project = self.projects.get(project).copied().unwrap_or_default();
        let is_fair = held < free.saturating_mul(GROUP_SHARE) && of_project < free.saturating_mul(PROJECT_SHARE);
        is_fair || held == 0 && free > most / KEPT_FRACTION
    }

    pub(crate) fn add(&mut self, project: &ProjectId, cursor: CursorId, bytes: usize) {
        self.all += bytes;
        *self.cursors.entry(cursor).or_default() += bytes;
        match self.projects.get_mut(project) {
            Some(held) => *held += bytes,
            None => drop(self.projects.insert(project.clone(), bytes)),
        }
    }

    pub(crate) fn remove(&mut self, project: &ProjectId, cursor: CursorId, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        let left = |held: Option<&mut usize>| {
            held.map(|held| {
                *held = held.saturating_sub(bytes);
                *held
            })
        };
        if left(self.cursors.get_mut(&cursor)) == Some(0) {
            self.cursors.remove(&cursor);
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
    fn fill(budget: &mut LeaseBudget, project: &str, cursor: u32) -> usize {
        let (project, cursor) = (ProjectId::new(project), CursorId(cursor));
        while budget.admit(&project, cursor, MOST) {
            budget.add(&project, cursor, BATCH);
        }
        budget.cursors.get(&cursor).copied().unwrap_or_default()
    }

    #[test]
    fn one_alone_gets_two_thirds_and_leaves_the_rest() {
        let mut budget = LeaseBudget::default();
        let held = fill(&mut budget, "p", 1);
        assert!((MOST * 6 / 10..MOST * 7 / 10).contains(&held), "{held}");
        budget.remove(&ProjectId::new("p"), CursorId(1), held);
        assert!(budget.cursors.is_empty() && budget.projects.is_empty() && budget.all == 0);
    }

    /// Whoever comes when others hold all that they may gets something, another project always, and nobody goes beyond the limit.
    #[test]
    fn who_comes_late_gets_a_batch() {
        let mut budget = LeaseBudget::default();
        for cursor in 0..100 {
            assert!(fill(&mut budget, "greedy", cursor) >= BATCH, "group {cursor}");
        }
        for cursor in 100..105 {
            assert!(
                fill(&mut budget, &format!("project-{cursor}"), cursor) >= BATCH,
                "group {cursor} of another project"
            );
        }
        assert!(budget.all <= MOST + BATCH, "{}", budget.all);
    }

    /// Whoever asks one after the other ends up with as much as the others.
    #[test]
    fn who_asks_in_turn_gets_the_same() {
        let mut budget = LeaseBudget::default();
        let project = ProjectId::new("p");
        let mut took = true;
        while std::mem::take(&mut took) {
            for cursor in (0..10).map(CursorId) {
                if budget.admit(&project, cursor, MOST) {
                    budget.add(&project, cursor, BATCH);
                    took = true;
                }
            }
        }
        let held: Vec<usize> = (0..10).map(|cursor| budget.cursors[&CursorId(cursor)]).collect();
        assert!(held.iter().all(|each| each.abs_diff(held[0]) <= BATCH), "{held:?}");
        assert!(budget.all > MOST * 3 / 4, "{}", budget.all);
    }
}
