//! [`due_ticks`]: which ticks of a schedule send their message now. Pure.

use std::collections::VecDeque;

use crate::broker::{MissedTicks, Timetable};

/// A tick that is later than this is missed. A restart and a take-over take less, so they cost no tick.
pub(crate) const MISSED_AFTER_MS: i64 = 60_000;
/// The number of missed ticks that [`MissedTicks::All`] sends.
const MAX_MISSED: usize = 100;
/// The maximum number of ticks that are looked at one by one. Between them and the present others may be skipped uncounted, in a
/// schedule that ticks every second for which no server ran for hours.
const MAX_STEPS: usize = 20_000;

/// The ticks of a schedule that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DueTicks {
    /// The planned times of those that send their message, in Unix milliseconds.
    pub(crate) planned: Vec<i64>,
    /// The schedule is done up to this time afterwards, in Unix milliseconds.
    pub(crate) done_ms: i64,
    /// The number of others.
    pub(crate) missed: u64,
}

impl DueTicks {
    /// Only the first ones that send a message, so that one commit stays small. The rest is due again.
    pub(crate) fn truncate(&mut self, max: usize) {
        self.planned.truncate(max.max(1));
        if let Some(last) = self.planned.last() {
            self.done_ms = self.done_ms.min(*last);
        }
    }
}

/// The ticks that were planned after `done_ms` and not after `now_ms`, by the policy for missed ones. `None` if there are none.
pub(crate) fn due_ticks(timetable: &Timetable, done_ms: i64, now_ms: i64, policy: MissedTicks) -> Option<DueTicks> {
    let mut ticks = Ticks { late: Vec::new(), missed: VecDeque::new(), count: 0, last_ms: done_ms };
    let complete = ticks.look(timetable, done_ms, now_ms);
    if !complete {
        // Ticks are a second apart or more, so this reaches the present.
        let steps = i64::try_from(MAX_STEPS).unwrap_or(i64::MAX);
        ticks.look(timetable, (now_ms - steps * 1_000).max(ticks.last_ms), now_ms);
    }
    ticks.by_policy(policy)
}

struct Ticks {
    late: Vec<i64>,
    /// The last missed ones.
    missed: VecDeque<i64>,
    /// The number of missed ticks, also of those that are in `missed` no longer.
    count: u64,
    /// The last one of all.
    last_ms: i64,
}

impl Ticks {
    /// Adds the ticks between two times. Returns false if there may be more.
    fn look(&mut self, timetable: &Timetable, after_ms: i64, now_ms: i64) -> bool {
        for (step, planned) in timetable.times_after(after_ms).enumerate() {
            if planned > now_ms {
                return true;
            }
            if step > MAX_STEPS {
                return false;
            }
            self.last_ms = planned;
            if now_ms - planned <= MISSED_AFTER_MS {
                self.late.push(planned);
                continue;
            }
            self.count += 1;
            if self.missed.len() == MAX_MISSED {
                self.missed.pop_front();
            }
            self.missed.push_back(planned);
        }
        true
    }

    fn by_policy(self, policy: MissedTicks) -> Option<DueTicks> {
        if self.late.is_empty() && self.missed.is_empty() {
            return None;
        }
        let sent = match policy {
            MissedTicks::Skip => 0,
            MissedTicks::Once => 1,
            MissedTicks::All => MAX_MISSED,
        };
        let sent = sent.min(self.missed.len());
        let missed = self.count - sent as u64;
        let planned = self.missed.iter().skip(self.missed.len() - sent).copied().chain(self.late).collect();
        Some(DueTicks { planned, done_ms: self.last_ms, missed })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MINUTE: i64 = 60_000;

    fn due(cron: &str, done_ms: i64, now_ms: i64, policy: MissedTicks) -> Option<DueTicks> {
        due_ticks(&Timetable::new(cron, "UTC").unwrap(), done_ms, now_ms, policy)
    }

    #[test]
    fn nothing_is_due_before_the_planned_time_and_one_tick_is_at_it() {
        assert_eq!(due("* * * * *", 0, MINUTE - 1, MissedTicks::Once), None);
        let one = DueTicks { planned: vec![MINUTE], done_ms: MINUTE, missed: 0 };
        assert_eq!(due("* * * * *", 0, MINUTE, MissedTicks::Once), Some(one));
    }

    /// Whatever the policy is.
    #[test]
    fn ticks_that_are_late_by_a_minute_at_most_are_not_missed() {
        for policy in [MissedTicks::Skip, MissedTicks::Once, MissedTicks::All] {
            let late = due("*/10 * * * * *", 0, MINUTE, policy).unwrap();
            assert_eq!(late.planned, [10_000, 20_000, 30_000, 40_000, 50_000, MINUTE]);
            assert_eq!(late.missed, 0);
        }
    }

    #[test]
    fn missed_ticks_send_what_the_policy_says() {
        let now_ms = 10 * MINUTE + 30_000;
        let planned = |policy| due("* * * * *", 0, now_ms, policy).map(|due| (due.planned, due.missed)).unwrap();
        assert_eq!(planned(MissedTicks::Skip), (vec![10 * MINUTE], 9));
        assert_eq!(planned(MissedTicks::Once), (vec![9 * MINUTE, 10 * MINUTE], 8));
        assert_eq!(planned(MissedTicks::All), ((1..=10).map(|minute| minute * MINUTE).collect(), 0));
    }

    #[test]
    fn a_clock_that_jumps_ahead_sends_a_bounded_number() {
        let year = 365 * 86_400_000;
        let jump = |policy| due("* * * * * *", 0, year, policy).unwrap();
        assert_eq!((jump(MissedTicks::Skip).planned.len(), jump(MissedTicks::Once).planned.len()), (61, 62));
        let all = jump(MissedTicks::All);
        assert_eq!((all.planned.len(), all.done_ms), (161, year));
        assert!(all.planned.is_sorted() && all.planned.last() == Some(&year));
        assert!(all.missed > 30_000, "{}", all.missed);
        // A schedule that ticks densely long ago and then no more: the last of those counts.
        let dense = due("* * * 1 1 *", 0, year - 86_400_000, MissedTicks::Once).unwrap();
        assert_eq!(dense.planned.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_nothing() {
        assert_eq!(due("* * * * *", 10 * MINUTE, 5 * MINUTE, MissedTicks::All), None);
        assert_eq!(due("* * * * *", 10 * MINUTE, 11 * MINUTE, MissedTicks::All).unwrap().planned, [11 * MINUTE]);
    }

    #[test]
    fn a_part_is_done_and_the_rest_is_due_again() {
        let mut first = due("* * * * *", 0, 5 * MINUTE, MissedTicks::All).unwrap();
        first.truncate(2);
        assert_eq!((first.planned.as_slice(), first.done_ms), (&[MINUTE, 2 * MINUTE][..], 2 * MINUTE));
        let rest = due("* * * * *", first.done_ms, 5 * MINUTE, MissedTicks::All).unwrap();
        assert_eq!((rest.planned, rest.missed), (vec![3 * MINUTE, 4 * MINUTE, 5 * MINUTE], 0));
        let mut nothing = due("* * * * *", 0, 5 * MINUTE + 30_000, MissedTicks::Skip).unwrap();
        nothing.truncate(1);
        assert_eq!((nothing.planned, nothing.done_ms, nothing.missed), (vec![5 * MINUTE], 5 * MINUTE, 4));
    }
}
