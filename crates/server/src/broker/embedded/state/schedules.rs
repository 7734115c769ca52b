//! [`Schedules`]: the schedules of all queues, and when each ticks next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    broker::{NewSchedule, ScheduleStats, ScheduledMessage, Timetable, schedules::LATE_MS},
    store::{ScheduleProgress, ScheduleRow},
};
use dms_protocol::{
    internal::json::push_string,
    message::{SCHEDULE, SCHEDULED_TIME},
    queue::QueueId,
};

/// A schedule whose last tick is further in the future than this was written by a clock that was wrong.
const STRANGE_MS: i64 = 3_600_000;

/// A schedule.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) row: ScheduleRow,
    pub(crate) progress: ScheduleProgress,
    /// `None` if this version does not know its time zone.
    pub(crate) timetable: Option<Arc<Timetable>>,
    /// When it ticks next, in Unix milliseconds.
    next_ms: Option<i64>,
}

impl Schedule {
    fn new(row: ScheduleRow, progress: ScheduleProgress) -> Self {
        let timetable = Timetable::new(&row.cron, &row.timezone).map(Arc::new);
        if let Err(error) = &timetable {
            let schedule = &row.name;
            tracing::error!(schedule, %error, "a stored schedule cannot be used and sends nothing: remove it and add it again");
        }
        let mut schedule = Self { row, progress, timetable: timetable.ok(), next_ms: None };
        schedule.plan();
        schedule
    }

    /// Looks for the next tick.
    fn plan(&mut self) {
        let timetable = self.timetable.as_ref().filter(|_| !self.row.paused);
        self.next_ms = timetable.and_then(|timetable| timetable.next_after(self.progress.done_ms));
    }

    /// The next ticks, at most `count`.
    pub(crate) fn next(&self, count: usize) -> Vec<i64> {
        match &self.timetable {
            Some(timetable) if !self.row.paused => timetable.times_after(self.progress.done_ms).take(count).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the message of the next tick should have been stored long ago.
    pub(crate) fn is_late(&self, now_ms: i64) -> bool {
        self.next_ms.is_some_and(|next_ms| is_late(next_ms, now_ms))
    }

    /// The schedule as it was set.
    pub(crate) fn show(&self) -> NewSchedule {
        let ScheduleRow { name, cron, timezone, missed, body, attributes, tags, .. } = self.row.clone();
        let message = ScheduledMessage::from_parts(body, attributes, tags);
        NewSchedule::new(name, cron, message).timezone(timezone).missed(missed)
    }

    /// The `message` object of a consume answer for a tick.
    pub(crate) fn message(&self, planned_ms: i64) -> Bytes {
        let ScheduleRow { name, body, attributes, tags, .. } = &self.row;
        let mut text = Vec::with_capacity(body.len() + attributes.len() + 160 + tags.len() * 67);
        text.extend_from_slice(br#"{"body":"#);
        text.extend_from_slice(body.as_bytes());
        text.extend_from_slice(br#","attributes":"#);
        let open = attributes.trim_end().strip_suffix('}').unwrap_or("{").trim_end();
        text.extend_from_slice(open.as_bytes());
        let planned = Timestamp::from_millisecond(planned_ms).unwrap_or_default().to_string();
        for (place, (name, value)) in [(SCHEDULE, name.as_str()), (SCHEDULED_TIME, &planned)].into_iter().enumerate() {
            if place > 0 || open != "{" {
                text.push(b',');
            }
            push_string(&mut text, name);
            text.push(b':');
            push_string(&mut text, value);
        }
        text.push(b'}');
        // Labels are words, so they need no escapes. Dead letters rely on it that they come last.
        if !tags.is_empty() {
            text.extend_from_slice(format!(",\"tags\":[\"{}\"]", tags.join("\",\"")).as_bytes());
        }
        text.push(b'}');
        text.into()
    }
}

/// The schedules of all queues.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    by_queue: BTreeMap<QueueId, BTreeMap<String, Schedule>>,
    /// When each ticks next, the earliest first.
    next: BTreeSet<(i64, QueueId, String)>,
    /// The ticks since the broker was opened that sent a message, and those that were missed.
    sent: u64,
    missed: u64,
}

impl Schedules {
    /// A schedule of a queue.
    pub(crate) fn get(&self, queue: &QueueId, name: &str) -> Option<&Schedule> {
        self.by_queue.get(queue)?.get(name)
    }

    /// The number of schedules of a queue.
    pub(crate) fn count(&self, queue: &QueueId) -> usize {
        self.by_queue.get(queue).map_or(0, BTreeMap::len)
    }

    /// All schedules with their queues.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&QueueId, &Schedule)> {
        self.by_queue.iter().flat_map(|(queue, schedules)| schedules.values().map(move |schedule| (queue, schedule)))
    }

    /// Adds or replaces a schedule.
    pub(crate) fn set(&mut self, queue: &QueueId, row: ScheduleRow, progress: ScheduleProgress) {
        self.remove(queue, &row.name);
        let schedule = Schedule::new(row, progress);
        self.next.extend(key(queue, &schedule));
        self.by_queue.entry(queue.clone()).or_default().insert(schedule.row.name.clone(), schedule);
    }

    /// Removes a schedule.
    pub(crate) fn remove(&mut self, queue: &QueueId, name: &str) {
        let Some(schedules) = self.by_queue.get_mut(queue) else { return };
        if let Some(key) = schedules.remove(name).and_then(|schedule| key(queue, &schedule)) {
            self.next.remove(&key);
        }
        if schedules.is_empty() {
            self.by_queue.remove(queue);
        }
    }

    /// Removes all schedules of a queue.
    pub(crate) fn forget(&mut self, queue: &QueueId) {
        self.by_queue.remove(queue);
        self.next.retain(|(_, other, _)| other != queue);
    }

    /// Notes how far a schedule has come, and returns how far it had come before.
    pub(crate) fn tick(&mut self, queue: &QueueId, name: &str, progress: ScheduleProgress) -> ScheduleProgress {
        let Some(schedule) = self.by_queue.get_mut(queue).and_then(|schedules| schedules.get_mut(name)) else {
            return progress;
        };
        if let Some(key) = key(queue, schedule) {
            self.next.remove(&key);
        }
        let before = std::mem::replace(&mut schedule.progress, progress);
        schedule.plan();
        self.next.extend(key(queue, schedule));
        self.sent += progress.sent - before.sent;
        self.missed += progress.missed - before.missed;
        before
    }

    /// When the next schedule ticks, in Unix milliseconds.
    pub(crate) fn next_ms(&self) -> Option<i64> {
        self.next.first().map(|(next_ms, ..)| *next_ms)
    }

    /// The schedules with due ticks, at most `max`.
    pub(crate) fn due(&self, now_ms: i64, max: usize) -> Vec<(QueueId, Schedule)> {
        let due = self.next.iter().take_while(|(next_ms, ..)| *next_ms <= now_ms).take(max);
        due.filter_map(|(_, queue, name)| Some((queue.clone(), self.get(queue, name)?.clone()))).collect()
    }

    /// The number of schedules, and of their ticks since the broker was opened.
    pub(crate) fn stats(&self, now_ms: i64) -> ScheduleStats {
        let paused = self.iter().filter(|(_, schedule)| schedule.row.paused).count() as u64;
        let late = self.next.iter().take_while(|(next_ms, ..)| is_late(*next_ms, now_ms)).count() as u64;
        let active = (self.iter().count() as u64).saturating_sub(paused + late);
        ScheduleStats { active, paused, late, sent: self.sent, missed: self.missed }
    }

    /// Logs schedules that will send nothing for long because their last tick is in the future.
    pub(crate) fn log_strange(&self, now_ms: i64) {
        for (queue_id, schedule) in self.iter().filter(|(_, schedule)| schedule.progress.done_ms > now_ms + STRANGE_MS)
        {
            let until = Timestamp::from_millisecond(schedule.progress.done_ms).unwrap_or_default();
            tracing::warn!(
                %queue_id,
                schedule = schedule.row.name,
                %until,
                "the last tick of a schedule is in the future, because the clock was wrong then or is wrong now: it sends nothing \
                 until then; pause and resume it to let it go on from now"
            );
        }
    }
}

/// A tick is done within a moment, unless the store cannot take its message: then it is tried again.
fn is_late(next_ms: i64, now_ms: i64) -> bool {
    next_ms < now_ms - LATE_MS
}

fn key(queue: &QueueId, schedule: &Schedule) -> Option<(i64, QueueId, String)> {
    Some((schedule.next_ms?, queue.clone(), schedule.row.name.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::{MissedTicks, ScheduleSource};

    fn row(name: &str, attributes: &str, tags: &[&str]) -> ScheduleRow {
        ScheduleRow {
            name: name.to_owned(),
            cron: "* * * * *".to_owned(),
            timezone: "UTC".to_owned(),
            missed: MissedTicks::Once,
            source: ScheduleSource::Command,
            paused: false,
            body: r#"{"n":1.10}"#.into(),
            attributes: attributes.into(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            created_ms: 0,
        }
    }

    #[test]
    fn a_message_names_its_schedule_and_its_planned_time() {
        let text = |attributes: &str, tags: &[&str]| {
            let schedule = Schedule::new(row("nightly", attributes, tags), ScheduleProgress::default());
            String::from_utf8(schedule.message(1_772_668_800_000).to_vec()).unwrap()
        };
        let own = r#""dms-schedule":"nightly","dms-scheduled-time":"2026-03-05T00:00:00Z""#;
        assert_eq!(text("{}", &[]), format!(r#"{{"body":{{"n":1.10}},"attributes":{{{own}}}}}"#));
        assert_eq!(
            text(r#"{"a":"}"} "#, &["red", "blue"]),
            format!(r#"{{"body":{{"n":1.10}},"attributes":{{"a":"}}",{own}}},"tags":["red","blue"]}}"#)
        );
    }

    #[test]
    fn the_next_tick_follows_every_change() {
        let (queue, other) = (QueueId::from("q"), QueueId::from("other"));
        let mut schedules = Schedules::default();
        assert_eq!(schedules.next_ms(), None);
        schedules.set(&queue, row("a", "{}", &[]), ScheduleProgress::default());
        schedules.set(&other, row("b", "{}", &[]), ScheduleProgress { done_ms: 60_000, ..Default::default() });
        assert_eq!(schedules.next_ms(), Some(60_000));
        assert_eq!(schedules.due(60_000, 9).len(), 1);
        let progress = ScheduleProgress { done_ms: 180_000, sent: 3, ..Default::default() };
        assert_eq!(schedules.tick(&queue, "a", progress), ScheduleProgress::default());
        assert_eq!((schedules.next_ms(), schedules.stats(0).sent), (Some(120_000), 3));
        let counts = |schedules: &Schedules, now_ms| {
            let stats = schedules.stats(now_ms);
            (stats.active, stats.paused, stats.late)
        };
        assert_eq!((counts(&schedules, 180_000), counts(&schedules, 180_001)), ((2, 0, 0), (1, 0, 1)));
        assert!(schedules.get(&other, "b").unwrap().is_late(180_001));
        schedules.set(&other, ScheduleRow { paused: true, ..row("b", "{}", &[]) }, ScheduleProgress::default());
        assert_eq!((schedules.next_ms(), schedules.stats(0).paused), (Some(240_000), 1));
        schedules.forget(&queue);
        assert_eq!((schedules.next_ms(), schedules.count(&queue), schedules.count(&other)), (None, 0, 1));
    }
}
