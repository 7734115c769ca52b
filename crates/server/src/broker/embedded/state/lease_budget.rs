//! [`LeaseBudget`]: divides the memory for leased messages fairly between groups and projects. Pure.
//!
//! The memory of a lease cannot be taken back before the lease ends, so a part of it has to stay free for callers that come later. A
//! group may hold at most twice the *free* amount, and a project four times. A single group gets two thirds of the memory. The more
//! groups compete, the less each of them gets, and the largest holders are the first to wait, but a part always stays free. A group
//! that holds nothing gets one batch out of that part, whatever other groups of its project hold.

use std::collections::HashMap;

use crate::store::CursorId;
use dms_protocol::queue::ProjectId;

/// A group may hold this multiple of the free amount.
const GROUP_SHARE: usize = 2;
/// The groups of a project may hold this multiple of the free amount together.
const PROJECT_SHARE: usize = 4;
/// One part in this number is not given to first batches, so that other projects find something free.
const KEPT_FRACTION: usize = 16;

/// The memory that is held, and by which groups and projects.
#[derive(Debug, Default)]
pub(crate) struct LeaseBudget {
    /// The bytes of all leases and looks.
    all: usize,
    /// The number of looks, whose memory is counted in `all`.
    looks: usize,
    cursors: HashMap<CursorId, usize>,
    projects: HashMap<ProjectId, usize>,
}

impl LeaseBudget {
    /// Whether a cursor may lease more, of `most` bytes in all. The batch that it gets may exceed its share.
    pub(crate) fn admit(&self, project: &ProjectId, cursor: CursorId, most: usize) -> bool {
        let free = most.saturating_sub(self.all);
        let held = self.cursors.get(&cursor).copied().unwrap_or_default();
        let of_project = self.projects.get(project).copied().unwrap_or_default();
        let is_fair = held < free.saturating_mul(GROUP_SHARE) && of_project < free.saturating_mul(PROJECT_SHARE);
        is_fair || held == 0 && free > most / KEPT_FRACTION
    }

    /// Reserves memory for messages that are read for a look. One look is always admitted, so that an operator can look at groups
    /// that hold all of the memory.
    pub(crate) fn begin_look(&mut self, bytes: usize, most: usize) -> bool {
        let is_admitted = self.looks == 0 || self.all + bytes <= most;
        if is_admitted {
            self.looks += 1;
            self.all += bytes;
        }
        is_admitted
    }

    /// Frees the memory of a look.
    pub(crate) fn end_look(&mut self, bytes: usize) {
        self.looks -= 1;
        self.all = self.all.saturating_sub(bytes);
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

    /// A group that comes late gets a batch, in another project always, and the limit is not exceeded.
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

    #[test]
    fn looks_are_part_of_the_memory_and_one_is_always_admitted() {
        let mut budget = LeaseBudget::default();
        let look = MOST / 4;
        for _ in 0..4 {
            assert!(budget.begin_look(look, MOST));
        }
        assert!(!budget.begin_look(look, MOST));
        assert!(
            !budget.admit(&ProjectId::new("p"), CursorId(1), MOST),
            "consumers wait as they do for leased messages"
        );
        (0..4).for_each(|_| budget.end_look(look));
        assert!(fill(&mut budget, "p", 1) > 0);
        budget.add(&ProjectId::new("p"), CursorId(2), MOST);
        assert!(budget.begin_look(look, MOST) && !budget.begin_look(look, MOST));
    }

    /// Groups that ask in turn get the same amount.
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
