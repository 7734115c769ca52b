//! Applies committed records to the state, and wakes consume calls that have something to lease now.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::{
    broker::{
        RetentionPolicy,
        ack_status::EDITED,
        embedded::{
            command::Command,
            config::{EffectiveRetention, EmbeddedConfig},
            state::{
                BrokerState, QueueState, cursor::Cursor, delay_queue::DelayQueue, lease::LeaseEnd, stream::Stream,
            },
        },
    },
    store::{
        CursorId, CursorSnapshot, GroupRow, QueueRow, Record, ScheduleProgress, SentKeys, Settlement, StoredMessage,
        StreamId,
    },
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, QueueId},
};

/// The streams and cursors on which messages may have become available.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    streams: BTreeSet<StreamId>,
    cursors: BTreeSet<CursorId>,
}

/// The number of messages of its stream that a cursor has not consumed, without leased ones.
fn waiting(cursors: &BTreeMap<CursorId, Cursor>, number: &CursorId, stream: &Stream) -> u64 {
    cursors.get(number).map_or(0, |cursor| cursor.available(stream))
}

impl BrokerState {
    /// Applies the records of one commit.
    pub(crate) fn apply(&mut self, records: &[Record], config: &EmbeddedConfig) {
        // Calls are woken after all records are applied, so that they see the whole commit.
        let mut touched = Touched::default();
        for record in records {
            self.apply_one(record, config, &mut touched);
        }
        self.wake(&touched);
    }

    fn apply_one(&mut self, record: &Record, config: &EmbeddedConfig, touched: &mut Touched) {
        match record {
            Record::QueueCreated(row) => self.create_queue(row, config),
            Record::QueueDeleted(queue) => self.delete_queue(queue),
            Record::GroupCreated(row) => self.create_group(row, config),
            Record::GroupDeleted(queue, group) => self.delete_group(queue, group),
            Record::TagsSet(queue, tags) => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.tags.clone_from(tags);
                }
            }
            Record::RuleFixed(cursor, rule) => {
                if let Some(cursor) = self.cursors.get_mut(cursor) {
                    cursor.rule = Some(crate::broker::embedded::state::label_filter::LabelFilter::new(rule));
                }
            }
            Record::Appended(number, message) => {
                // The original of an edited copy did not die once more.
                if let Some(info) = message.dead_letter.as_ref().filter(|info| info.reason != EDITED) {
                    self.dead_letter_reasons.add(&info.reason);
                    self.log_dead_letter(*number, message, info);
                }
                if let Some(stream) = self.streams.get_mut(number) {
                    // In an empty stream nothing could expire, so the timer does not know of this message. It is not woken if it looks
                    // earlier anyway, because a look visits every stream.
                    if stream.oldest.is_none() {
                        self.timer_is_stale |= stream.retention.expires_before(self.timer_target);
                    }
                    stream.push(message.clone());
                    touched.streams.insert(*number);
                }
            }
            Record::Delayed(delay_queue, message) => {
                if let Some(delay_queue) = self.delay_queues.get_mut(delay_queue) {
                    delay_queue.push(message.seq, message.entered_ms);
                    // The delay may end before the timer looks next.
                    self.timer_is_stale = true;
                }
            }
            Record::DelayEnded(delay_queue, _, seq) => {
                if let Some(delay_queue) = self.delay_queues.get_mut(delay_queue) {
                    delay_queue.remove(*seq);
                }
            }
            Record::Settled { cursor, lease, histories, settlement } => {
                self.settled(*cursor, *lease, settlement, touched);
                if let Some(cursor) = self.cursors.get_mut(cursor) {
                    histories.iter().for_each(|(seq, history)| cursor.remember(*seq, history.clone()));
                }
            }
            // It stands for a damaged commit that an operator gave up.
            Record::GivenUp => {}
            Record::KeysSent { now_ms, keys } => self.add_keys(*now_ms, keys),
            Record::QueueChanged(row) => self.change_queue(row),
            Record::RetentionSet(queue, policy) => self.set_retention(queue, *policy, config),
            Record::ScheduleSet { queue, row, progress } => {
                self.schedules.set(queue, (**row).clone(), *progress);
                self.timer_is_stale = true;
            }
            Record::ScheduleRemoved(queue, name) => self.schedules.remove(queue, name),
            Record::ScheduleTicked { queue, name, progress } => self.tick(queue, name, *progress),
            Record::Purged { cursor, below } => self.purge(*cursor, *below),
            Record::DelayQueuePurged { delay_queue, .. } => {
                if let Some(delay_queue) = self.delay_queues.get_mut(delay_queue) {
                    delay_queue.clear();
                }
            }
            Record::Expired { stream, low, oldest } => self.expire(*stream, *low, *oldest),
        }
    }

    fn add_keys(&mut self, now_ms: i64, keys: &SentKeys) {
        self.recent_keys.expire(now_ms);
        keys.0.iter().for_each(|sent| self.keep_key(sent));
    }

    fn create_queue(&mut self, row: &QueueRow, config: &EmbeddedConfig) {
        self.begin_creation(row.number, config);
        // The delay queue has the second number.
        self.next_number = row.number + 2;
        self.streams.insert(row.stream(), Stream::empty(config.retention_of(row, RetentionPolicy::default())));
        self.delay_queues.insert(row.delay_queue(), DelayQueue::empty(row.stream()));
        self.owners.insert(row.stream(), row.id.clone());
        let (tags, retention, groups) = (Vec::new(), RetentionPolicy::default(), Vec::new());
        let queue = QueueState { row: row.clone(), tags, retention, groups };
        self.queues.insert(row.id.clone(), queue);
    }

    fn change_queue(&mut self, row: &QueueRow) {
        let Some(queue) = self.queues.get_mut(&row.id) else { return };
        queue.row.clone_from(row);
        for group in &queue.groups {
            if let Some(cursor) = self.cursors.get_mut(&group.cursor()) {
                cursor.dead = row.max_consume_count.map(|count| (group.dead_letters(), count));
            }
        }
    }

    fn create_group(&mut self, row: &GroupRow, config: &EmbeddedConfig) {
        let Some(stream) = self.queues.get(&row.queue).map(|queue| queue.row.stream()) else { return };
        self.begin_creation(row.number, config);
        // The dead letters have the second number.
        self.next_number = row.number + 2;
        let fresh = |head| CursorSnapshot { head, consumed: 0, ready: Vec::new(), rule: None };
        let cursor = Cursor::new(stream, fresh(row.start));
        let dead = Cursor::new(row.dead_letters(), fresh(1));
        self.streams
            .insert(row.dead_letters(), Stream::empty(EffectiveRetention::for_time(config.dead_letter_retention)));
        self.add_group(row.clone(), cursor, dead, config);
    }

    /// Starts the time in which the queue or group with this number counts as being created, if there is one.
    fn begin_creation(&mut self, number: u32, config: &EmbeddedConfig) {
        let ready = Instant::now().checked_add(config.create_delay).filter(|_| !config.create_delay.is_zero());
        self.creating.extend(ready.map(|ready| (number, ready)));
    }

    fn delete_queue(&mut self, id: &QueueId) {
        let Some(queue) = self.queues.remove(id) else { return };
        self.creating.remove(&queue.row.number);
        queue.groups.iter().for_each(|group| self.drop_group(group));
        // A queue that is created again under this name is another queue, which has seen no key yet.
        self.recent_keys.forget(queue.row.stream());
        self.schedules.forget(id);
        self.streams.remove(&queue.row.stream());
        self.owners.remove(&queue.row.stream());
        self.delay_queues.remove(&queue.row.delay_queue());
    }

    fn delete_group(&mut self, queue: &QueueId, id: &GroupId) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let Some(position) = queue.groups.iter().position(|group| group.id == *id) else { return };
        let group = queue.groups.remove(position);
        self.drop_group(&group);
    }

    fn drop_group(&mut self, group: &GroupRow) {
        self.creating.remove(&group.number);
        self.drop_cursor(group.cursor());
        self.drop_cursor(group.dead_letter_cursor());
        self.streams.remove(&group.dead_letters());
        self.owners.remove(&group.dead_letters());
    }

    fn settled(&mut self, number: CursorId, lease: Option<u64>, settlement: &Settlement, touched: &mut Touched) {
        let Some(cursor) = self.cursors.get_mut(&number) else { return };
        let Some(stream) = self.streams.get(&cursor.stream) else { return };
        self.dead_letters += settlement.dead.len() as u64;
        let (ended, of) = (cursor.settle(lease, settlement, stream.low), cursor.stream);
        // Only the end that removes the lease from its cursor releases its memory and its receipts, or both would be
        // counted twice.
        if let (Some(ended), Some(lease)) = (ended, lease) {
            self.remove_lease(number, lease, &ended);
        }
        // A failed message is available again, and a FIFO queue may continue.
        touched.cursors.insert(number);
        self.schedule_settled_check(of);
    }

    fn expire(&mut self, number: StreamId, low: u64, oldest: Option<i64>) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        // Counted before and after, because a deleted message may have been leased, failed or never looked at.
        let before: Vec<u64> = stream.cursors.iter().map(|number| waiting(&self.cursors, number, stream)).collect();
        stream.expire(low, oldest);
        let mut unread = Vec::new();
        for (number, before) in stream.cursors.iter().zip(before) {
            if let Some(cursor) = self.cursors.get_mut(number) {
                cursor.expire(low);
            }
            match before.saturating_sub(waiting(&self.cursors, number, stream)) {
                0 => {}
                count => unread.push((*number, count)),
            }
        }
        unread.into_iter().for_each(|(cursor, count)| self.log_expired_unread(cursor, count));
    }

    /// Notes how far a schedule has come, and logs what it sent and missed.
    fn tick(&mut self, queue: &QueueId, name: &str, progress: ScheduleProgress) {
        let (before, Some(row)) = (self.schedules.tick(queue, name, progress), self.queues.get(queue)) else { return };
        let (project, queue, missed) = (&row.row.project, &row.row.name, progress.missed - before.missed);
        if missed > 0 {
            tracing::warn!(
                %project,
                queue,
                schedule = name,
                missed,
                "ticks of a schedule were more than a minute late and sent nothing, as its policy for missed ticks says"
            );
        }
        if let Some(last) = progress.last.filter(|_| progress.sent > before.sent) {
            let (sent, late_ms) = (progress.sent - before.sent, last.sent_ms - last.planned_ms);
            tracing::debug!(%project, queue, schedule = name, message_id = %last.id, sent, late_ms, "a schedule sent its message");
        }
    }

    /// Logs a message that became a dead letter, within limits for each group.
    fn log_dead_letter(&self, stream: StreamId, message: &StoredMessage, info: &DeadLetterInfo) {
        let warnings = self.streams.get(&stream).map(|stream| &stream.dead_letter_warnings);
        let Some(suppressed) = warnings.and_then(|warnings| warnings.admit(Instant::now())) else { return };
        let Some(queue) = self.owner(stream) else { return };
        let Some(group) = queue.groups.iter().find(|group| group.dead_letters() == stream) else { return };
        let message_id = message.origin.map(tracing::field::display);
        tracing::warn!(
            project = %queue.row.project,
            queue = queue.row.name,
            group = group.name,
            message_id,
            attempts = info.attempts,
            reason = info.reason,
            error = info.error,
            worker = info.worker,
            suppressed,
            "a message became a dead letter"
        );
    }

    /// Logs and counts messages that were deleted before a group had consumed them.
    fn log_expired_unread(&mut self, cursor: CursorId, messages: u64) {
        if let Some(cursor) = self.cursors.get_mut(&cursor) {
            cursor.expired_unread += messages;
        }
        let Some(queue) = self.cursors.get(&cursor).and_then(|cursor| self.owner(cursor.stream)) else { return };
        let is_its = |group: &&GroupRow| [group.cursor(), group.dead_letter_cursor()].contains(&cursor);
        let Some(group) = queue.groups.iter().find(is_its) else { return };
        let (queue, dead) = (&queue.row.name, cursor == group.dead_letter_cursor());
        let what = if dead { "dead letters" } else { "messages" };
        tracing::warn!(%queue, group = %group.name, messages, "{what} expired and were deleted before this group consumed them");
    }

    /// Wakes one waiting call for each cursor that has messages. That call wakes the next one if there are more.
    fn wake(&mut self, touched: &Touched) {
        let of_streams = touched.streams.iter().filter_map(|number| self.streams.get(number));
        let cursors = of_streams.flat_map(|stream| &stream.cursors).chain(&touched.cursors);
        for cursor in cursors.filter_map(|number| self.cursors.get(number)) {
            if self.streams.get(&cursor.stream).is_some_and(|stream| cursor.has_available(stream)) {
                cursor.wake.notify_one();
            }
        }
        // A stream without cursors has no consumer, so none of its messages has to stay in memory.
        for number in &touched.streams {
            if let Some(stream) = self.streams.get_mut(number).filter(|stream| stream.cursors.is_empty()) {
                stream.forget_below(stream.next);
            }
        }
    }

    /// Makes a lease whose end could not be committed open again: it can be acknowledged, or lapses when its deadline comes.
    fn reopen(&mut self, (cursor, lease, _): &(CursorId, u64, LeaseEnd)) {
        let cursor = self.cursors.get_mut(cursor);
        if let Some(lease) = cursor.and_then(|cursor| cursor.leases.get_mut(lease)) {
            lease.is_ending = false;
        }
    }

    /// Undoes the reservations of a command that could not be committed.
    pub(crate) fn roll_back(&mut self, command: &Command) {
        // Work that was submitted is not among the alarms, so the timer has to look for it again.
        self.timer_is_stale = true;
        match command {
            Command::EndLeases(leases) => leases.iter().for_each(|end| self.reopen(end)),
            Command::Retry { end, .. } => self.reopen(end),
            Command::DropSettled(stream) => {
                self.schedule_settled_check(*stream);
            }
            Command::EndDelays { delay_queue, due, .. } => {
                if let (Some(delay_queue), Some(first)) = (self.delay_queues.get_mut(delay_queue), due.first()) {
                    delay_queue.look_at(first.entered_ms);
                }
            }
            _ => {}
        }
    }
}
