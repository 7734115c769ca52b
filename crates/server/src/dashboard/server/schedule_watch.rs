//! [`ScheduleWatch`]: schedules that are not in force, are late, or missed ticks.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{
    broker::{ScheduleOverview, schedules::LATE_MS},
    state::AppState,
};

/// The time between two looks at the schedules.
const STEP: Duration = Duration::from_secs(10);
/// How long other servers of a cluster have to answer.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long a late or missed tick is shown.
const SHOWN_MS: i64 = 24 * 60 * 60 * 1_000;

/// The last look at the schedules.
#[derive(Debug, Default)]
pub(super) struct ScheduleWatch(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    missed: HashMap<(String, String), Missed>,
    findings: Vec<TroubledSchedule>,
}

/// The missed ticks of a schedule.
#[derive(Clone, Copy, Debug)]
struct Missed {
    /// The number at the first look. The store does not say when they were.
    before: u64,
    count: u64,
    /// When it rose last, in Unix milliseconds.
    rose_ms: Option<i64>,
}

/// The problem of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScheduleTrouble {
    /// It is not in force, because of this.
    Waits(String),
    /// It has no next tick.
    NeverDue,
    /// Its tick was to be sent this long ago.
    Overdue(Duration),
    /// Its last message was sent this much too late.
    Late(Duration),
    /// This many ticks sent nothing.
    Missed(u64),
}

/// A schedule with something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TroubledSchedule {
    /// The names of its queue and its own.
    pub(super) label: String,
    /// The path of the page where it is changed.
    pub(super) url: String,
    pub(super) trouble: ScheduleTrouble,
}

impl ScheduleWatch {
    /// Looks at the schedules until it is dropped.
    pub(super) async fn run(&self, app: &AppState) {
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.look(app).await;
        }
    }

    /// Looks at the schedules once. If the servers of a cluster do not answer, the last look stays.
    pub(super) async fn look(&self, app: &AppState) {
        let Ok(Ok(schedules)) = timeout(PATIENCE, app.broker.schedules()).await else { return };
        let mut findings: Vec<_> = app
            .waiting_schedules
            .all()
            .into_iter()
            .map(|waiting| {
                let label = format!("{} / {}", waiting.start.queue, waiting.start.schedule.name);
                TroubledSchedule { label, url: "/queues".to_owned(), trouble: ScheduleTrouble::Waits(waiting.reason) }
            })
            .collect();
        let now_ms = app.authenticator.clock().now_ms();
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut watched.missed);
        for schedule in &schedules {
            let key = (schedule.queue.to_string(), schedule.schedule.name.clone());
            let missed = Missed::since(before.get(&key), schedule.missed, now_ms);
            if let Some(trouble) = trouble(schedule, &missed, now_ms) {
                let label = format!("{} / {}", schedule.queue_name, schedule.schedule.name);
                let url = format!("/schedules/{}/{}", schedule.queue, schedule.schedule.name);
                findings.push(TroubledSchedule { label, url, trouble });
            }
            watched.missed.insert(key, missed);
        }
        watched.findings = findings;
    }

    /// What the last look found.
    pub(super) fn findings(&self) -> Vec<TroubledSchedule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).findings.clone()
    }
}

impl Missed {
    fn since(seen: Option<&Self>, count: u64, now_ms: i64) -> Self {
        match seen {
            Some(seen) if count > seen.count => Self { count, rose_ms: Some(now_ms), ..*seen },
            Some(seen) => *seen,
            None => Self { before: count, count, rose_ms: None },
        }
    }
}

/// The worst problem of a schedule now.
fn trouble(schedule: &ScheduleOverview, missed: &Missed, now_ms: i64) -> Option<ScheduleTrouble> {
    if schedule.is_paused {
        return None;
    }
    let span = |from: i64, to: i64| Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0));
    let is_recent = |at: i64| now_ms.saturating_sub(at) < SHOWN_MS;
    let Some(next) = schedule.next_ms.first() else { return Some(ScheduleTrouble::NeverDue) };
    if now_ms.saturating_sub(*next) >= LATE_MS {
        return Some(ScheduleTrouble::Overdue(span(*next, now_ms)));
    }
    if missed.rose_ms.is_some_and(is_recent) {
        return Some(ScheduleTrouble::Missed(missed.count.saturating_sub(missed.before)));
    }
    let last = schedule.last.filter(|last| is_recent(last.sent_ms))?;
    let late = last.sent_ms.saturating_sub(last.planned_ms) >= LATE_MS;
    late.then(|| ScheduleTrouble::Late(span(last.planned_ms, last.sent_ms)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{
        broker::{
            Broker, LastTick, MessageOrigin, NewSchedule, ScheduleSource, ScheduledMessage,
            embedded::{EmbeddedBroker, EmbeddedConfig},
        },
        clock::Clock,
        store::FirstPlace,
    };
    use dms_protocol::queue::NewQueue;

    #[tokio::test(start_paused = true)]
    async fn a_schedule_that_is_late_or_missed_ticks_is_a_problem_for_a_day() {
        let clock = Clock::following_tokio(UNIX_EPOCH + Duration::from_secs(1_795_946_400));
        let broker = EmbeddedBroker::in_memory(EmbeddedConfig::default(), clock).await;
        let project = "p".into();
        let queue = broker.create_queue(&project, NewQueue::new("orders")).await.unwrap().id;
        let new = NewSchedule::new("hourly", "@hourly", ScheduledMessage::parse("1").unwrap());
        let mut schedule = broker.set_schedule(&project, &queue, new, ScheduleSource::Command).await.unwrap();
        let (now, next) = (clock.now_ms(), schedule.next_ms[0]);
        let never = Missed::since(None, 7, now);
        let of = |schedule: &ScheduleOverview, missed: &Missed, now| trouble(schedule, missed, now);
        assert_eq!(of(&schedule, &never, now), None, "ticks that were missed long ago");
        assert_eq!(of(&schedule, &never, next + 90_000), Some(ScheduleTrouble::Overdue(Duration::from_secs(90))));
        let missed = Missed::since(Some(&Missed::since(Some(&never), 9, now)), 9, now + 1_000);
        assert_eq!(of(&schedule, &missed, now + 1_000), Some(ScheduleTrouble::Missed(2)));
        schedule.next_ms = vec![next + 2 * SHOWN_MS];
        assert_eq!(of(&schedule, &missed, now + SHOWN_MS), None);
        let id = MessageOrigin::new("q", FirstPlace::Queue, 1, 0);
        schedule.last = Some(LastTick { planned_ms: now, sent_ms: now + 300_000, id });
        assert_eq!(of(&schedule, &never, now + 300_000), Some(ScheduleTrouble::Late(Duration::from_secs(300))));
        assert_eq!(of(&schedule, &never, now + 300_000 + SHOWN_MS), None);
        schedule.next_ms.clear();
        assert_eq!(of(&schedule, &never, now), Some(ScheduleTrouble::NeverDue));
        schedule.is_paused = true;
        assert_eq!(of(&schedule, &missed, now), None);
    }
}
