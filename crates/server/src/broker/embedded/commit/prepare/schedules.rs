//! Records of schedules: adding, removing and pausing them, and their ticks.

use std::sync::Arc;

use crate::{
    broker::{
        BrokerError,
        embedded::{
            command::Tick,
            commit::prepare::{Prepared, Preparer},
            state::schedules::Schedule,
        },
    },
    store::{
        FirstPlace, LastTick, MessageOrigin, Record, ScheduleProgress, ScheduleRow, ScheduleSource, StoredMessage,
    },
};
use dms_protocol::{limits::MAX_SCHEDULES, queue::QueueId};

/// How far a clock may have been ahead for its ticks to count when a schedule is resumed.
const SMALL_CORRECTION_MS: i64 = 3_600_000;

impl Preparer<'_> {
    /// The messages of due ticks, and how far the schedule has come with them. They are one commit, so that none is lost or sent twice.
    pub(super) fn tick(&mut self, tick: &Tick) -> Vec<Record> {
        let Tick { queue: id, name, from_ms, due, .. } = tick;
        let (Some(queue), Some(schedule)) = (self.state.queues.get(id), self.state.schedules.get(id, name)) else {
            return Vec::new();
        };
        // It was paused, replaced or resumed meanwhile: the timer looks again.
        if schedule.row.paused || schedule.progress.done_ms != *from_ms {
            return Vec::new();
        }
        let stream = queue.row.stream();
        let mut progress = schedule.progress;
        let mut records = Vec::with_capacity(due.planned.len() + 1);
        for planned_ms in &due.planned {
            let (seq, entered_ms) = self.place(stream);
            records.push(Record::Appended(stream, Arc::new(message(schedule, *planned_ms, seq, entered_ms))));
            let id = MessageOrigin::new(id.as_str(), FirstPlace::Queue, seq, entered_ms);
            progress.last = Some(LastTick { planned_ms: *planned_ms, sent_ms: entered_ms, id });
        }
        progress.done_ms = due.done_ms;
        progress.sent += due.planned.len() as u64;
        progress.missed += due.missed;
        records.push(Record::ScheduleTicked { queue: id.clone(), name: name.clone(), progress });
        records
    }

    pub(super) fn set_schedule(&self, id: &QueueId, new: &ScheduleRow, wall_ms: i64) -> Prepared {
        let queue = self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        if queue.row.mode.is_kafka() && !new.tags.is_empty() {
            return Err(BrokerError::KafkaLabels);
        }
        let is_elsewhere = |other: &QueueId| {
            let same_project = self.state.queues.get(other).is_some_and(|other| other.row.project == queue.row.project);
            other != id && same_project
        };
        if self.state.schedules.iter().any(|(other, schedule)| schedule.row.name == new.name && is_elsewhere(other)) {
            return Err(taken(&new.name));
        }
        let mut row = Box::new(ScheduleRow { created_ms: wall_ms, paused: false, ..new.clone() });
        let mut progress = ScheduleProgress { done_ms: wall_ms, ..ScheduleProgress::default() };
        match self.state.schedules.get(id, &new.name) {
            None if self.state.schedules.count(id) >= MAX_SCHEDULES => {
                return Err(refused(format!("the queue has {MAX_SCHEDULES} schedules, the maximum: remove one first")));
            }
            None => {}
            Some(before) => {
                (row.created_ms, row.paused, progress) = (before.row.created_ms, before.row.paused, before.progress);
                if *row == before.row {
                    return Ok(Vec::new());
                }
                if new.source == ScheduleSource::Command {
                    return Err(before.refusal("changed").unwrap_or_else(|| taken(&new.name)));
                }
                // Times of the past are no missed ticks of a timetable that begins now.
                if (&row.cron, &row.timezone) != (&before.row.cron, &before.row.timezone) {
                    progress.done_ms = progress.done_ms.max(wall_ms);
                }
            }
        }
        Ok(vec![Record::ScheduleSet { queue: id.clone(), row, progress }])
    }

    pub(super) fn remove_schedule(&self, id: &QueueId, name: &str, source: ScheduleSource) -> Prepared {
        let schedule = self.schedule(id, name)?;
        match schedule.refusal("removed").filter(|_| source == ScheduleSource::Command) {
            Some(refusal) => Err(refusal),
            None => Ok(vec![Record::ScheduleRemoved(id.clone(), name.to_owned())]),
        }
    }

    pub(super) fn pause_schedule(&self, id: &QueueId, name: &str, is_paused: bool, wall_ms: i64) -> Prepared {
        let Schedule { row, progress, .. } = self.schedule(id, name)?;
        if row.paused == is_paused {
            return Ok(Vec::new());
        }
        let (mut row, mut progress) = (Box::new(row.clone()), *progress);
        row.paused = is_paused;
        if !is_paused {
            // Ticks of the pause are not missed. A clock that was corrected a little repeats no tick, and one that was far ahead does
            // not keep the schedule silent until that time comes.
            let last = progress.last.map_or(wall_ms, |last| last.planned_ms);
            progress.done_ms = if last - wall_ms <= SMALL_CORRECTION_MS { wall_ms.max(last) } else { wall_ms };
        }
        Ok(vec![Record::ScheduleSet { queue: id.clone(), row, progress }])
    }

    fn schedule(&self, id: &QueueId, name: &str) -> Result<&Schedule, BrokerError> {
        self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        self.state.schedules.get(id, name).ok_or_else(|| refused(format!("the queue has no schedule {name}")))
    }
}

impl Schedule {
    /// Why it is not changed by command. `None` if it may be.
    fn refusal(&self, what: &str) -> Option<BrokerError> {
        let name = &self.row.name;
        (self.row.source == ScheduleSource::Configuration).then(|| {
            refused(format!(
                "the schedule {name} is one of server.schedules in the configuration of the server: it is {what} there, and can be \
                 paused here"
            ))
        })
    }
}

fn taken(name: &str) -> BrokerError {
    refused(format!("the project has a schedule {name} already: remove it first, or use another name"))
}

fn refused(text: String) -> BrokerError {
    BrokerError::NotAvailable(text.into())
}

fn message(schedule: &Schedule, planned_ms: i64, seq: u64, entered_ms: i64) -> StoredMessage {
    StoredMessage {
        seq,
        entered_ms,
        json: schedule.message(planned_ms),
        body_bytes: schedule.row.body.len(),
        tags: schedule.row.tags.clone(),
        ..StoredMessage::default()
    }
}
