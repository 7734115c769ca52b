//! Turns commands into records, judged by the state at the time of the commit. Pure: nothing is changed here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    broker::{
        Appended, BrokerError, Deduplication, NewMessage, QueueChange, RetentionChange, RetentionPolicy,
        embedded::{
            command::{AdminCommand, Command},
            config::{EmbeddedConfig, StartPosition},
            state::{
                BrokerState, QueueState,
                label_filter::LabelFilter,
                lease::{LeaseDecision, LeaseEnd},
                recent_keys::MAX_KEYS,
            },
        },
    },
    clock::whole_ms,
    shared_buffer::{BufferSize, follows, size_of_first},
    store::{
        CursorId, FirstPlace, GroupRow, KeyHash, MessageOrigin, QueueRow, Record, SentKey, SentKeys, StoredMessage,
        StreamId,
    },
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, QueueId, QueueTag},
};

mod schedules;

/// Prepares the commands of one commit, one after the other.
pub(crate) struct Preparer<'a> {
    state: &'a BrokerState,
    config: &'a EmbeddedConfig,
    now_ms: i64,
    /// The next sequence number of each stream and delay queue, and when its newest message entered, including the commands prepared
    /// so far.
    ends: BTreeMap<StreamId, (u64, i64)>,
    /// The deduplication keys of the commands prepared so far.
    keys: SentKeys,
    /// The same, to find them.
    ids: BTreeMap<(StreamId, KeyHash), MessageOrigin>,
    /// The duplicates in the last send.
    duplicates: Vec<(usize, MessageOrigin)>,
}

type Prepared = Result<Vec<Record>, BrokerError>;

impl<'a> Preparer<'a> {
    /// Starts a commit on top of `state`.
    pub(crate) fn new(state: &'a BrokerState, config: &'a EmbeddedConfig, now_ms: i64) -> Self {
        let (ends, keys, ids, duplicates) = (BTreeMap::new(), SentKeys::default(), BTreeMap::new(), Vec::new());
        Self { state, config, now_ms, ends, keys, ids, duplicates }
    }

    /// The records of a command.
    ///
    /// # Errors
    /// When the queue or group no longer exists, or a rule forbids the change.
    pub(crate) fn prepare(&mut self, command: &Command) -> Prepared {
        match command {
            Command::Append(queue, messages) => self.append(queue, messages),
            Command::EndLeases(leases) => self.end(leases),
            Command::Retry { stream, group, message, origin, original, end } => {
                let mut records = self.end(std::slice::from_ref(end))?;
                records.push(self.retried(*stream, *group, message, *origin));
                if let Some((original, cursor)) = original.as_ref().zip(self.state.cursors.get(&end.0)) {
                    let (seq, entered_ms) = self.place(cursor.stream);
                    // The edited copy goes to the queue, and the original stays a dead letter, so that nothing of it
                    // is lost.
                    let kept = StoredMessage { seq, entered_ms, ..StoredMessage::clone(original) };
                    records.push(Record::Appended(cursor.stream, Arc::new(kept)));
                }
                Ok(records)
            }
            Command::Skip(cursor, settlement) => Ok(match self.state.cursors.get(cursor) {
                // The group may have been deleted since the messages were skipped. That is no error, because nobody
                // waits for this.
                Some(_) => vec![Record::Settled {
                    cursor: *cursor,
                    lease: None,
                    histories: Vec::new(),
                    settlement: settlement.clone(),
                }],
                None => Vec::new(),
            }),
            Command::EndDelays { delay_queue, stream, due } => Ok(self.end_delays(*delay_queue, *stream, due)),
            Command::DropDelayed(delay_queue, due, seq) => Ok(match self.state.delay_queues.get(delay_queue) {
                // Still damaged: it may have become readable, and must not be dropped then.
                Some(queue) if queue.set_aside.contains(*seq) => {
                    vec![Record::DelayEnded(*delay_queue, *due, *seq)]
                }
                _ => Vec::new(),
            }),
            Command::Expire { stream, low, oldest } => Ok(match self.state.streams.get(stream) {
                Some(_) => vec![Record::Expired { stream: *stream, low: *low, oldest: *oldest }],
                None => Vec::new(),
            }),
            Command::DropSettled(stream) => Ok(self.drop_settled(*stream).into_iter().collect()),
            Command::Tick(tick) => Ok(self.tick(tick)),
            Command::Admin(admin) => self.admin(admin),
            Command::Stop => Ok(Vec::new()),
        }
    }

    fn append(&mut self, queue: &QueueId, messages: &[NewMessage]) -> Prepared {
        let queue = &self.state.queues.get(queue).ok_or(BrokerError::QueueNotFound)?.row;
        self.check_keys(queue, messages)?;
        let mut records = Vec::with_capacity(messages.len());
        let (mut buffer, mut last) = (BufferSize::default(), None);
        for (place, message) in messages.iter().enumerate() {
            // The messages of a request were put into shared buffers when it was read.
            if last.is_none_or(|last| !follows(&message.json, last)) {
                buffer = size_of_first(messages.iter().skip(place).map(|message| &message.json));
            }
            last = Some(&message.json);
            match &message.deduplication {
                None => records.push(self.append_one(queue, message, buffer)),
                Some(key) => match self.sent_with(queue, key.key) {
                    Some(id) => self.duplicates.push((place, id)),
                    None => {
                        let record = self.append_one(queue, message, buffer);
                        self.keep_key(queue, key, &record);
                        records.push(record);
                    }
                },
            }
        }
        Ok(records)
    }

    /// Checks that the project may have the keys of these messages.
    fn check_keys(&self, queue: &QueueRow, messages: &[NewMessage]) -> Result<(), BrokerError> {
        let keys: Vec<_> = messages.iter().filter_map(|message| message.deduplication.as_ref()).collect();
        // The keys of other projects in this commit are counted too, which is at most some thousands.
        let kept = self.state.recent_keys.count(&queue.project) + self.keys.0.len();
        // Far from the limit no key has to be looked up here.
        if keys.is_empty() || kept + keys.len() <= MAX_KEYS {
            return Ok(());
        }
        let new = keys.iter().filter(|key| self.sent_with(queue, key.key).is_none()).count();
        if new > 0 && kept + new > MAX_KEYS {
            return Err(BrokerError::TooManyKeys(MAX_KEYS));
        }
        Ok(())
    }

    /// The id of the message that was sent to a queue with this key, in an earlier commit or in this one.
    fn sent_with(&self, queue: &QueueRow, key: KeyHash) -> Option<MessageOrigin> {
        let earlier = self.state.recent_keys.find(queue.stream(), key, self.now_ms);
        earlier.or_else(|| self.ids.get(&(queue.stream(), key)).copied())
    }

    /// Notes the key of a message that this commit stores.
    fn keep_key(&mut self, queue: &QueueRow, key: &Deduplication, record: &Record) {
        let (place, message) = match record {
            Record::Appended(_, message) => (FirstPlace::Queue, message),
            Record::Delayed(_, message) => (FirstPlace::DelayQueue, message),
            _ => return,
        };
        let own = || MessageOrigin::new(queue.id.as_str(), place, message.seq, message.entered_ms);
        let id = message.origin.unwrap_or_else(own);
        let until_ms = self.now_ms.saturating_add(whole_ms(key.window));
        self.keys.0.push(SentKey { queue: queue.stream(), key: key.key, id, until_ms });
        // The state knows it only after the commit, and the next message of this commit may have the same key.
        self.ids.insert((queue.stream(), key.key), id);
    }

    /// The record of the deduplication keys of the commit, if there are any. It comes last, so that the messages of several sends can
    /// be stored as one run.
    pub(crate) fn sent_keys(self) -> Option<Record> {
        (!self.keys.0.is_empty()).then_some(Record::KeysSent { now_ms: self.now_ms, keys: self.keys })
    }

    /// Where the records of a send put its messages.
    pub(crate) fn appended(&mut self, records: &[Record]) -> Appended {
        let duplicates = std::mem::take(&mut self.duplicates);
        let mut appended = Appended { now_ms: self.now_ms, duplicates, ..Appended::default() };
        for record in records.iter().rev() {
            match record {
                Record::Appended(_, message) => {
                    (appended.first, appended.entered_ms) = (message.seq, message.entered_ms);
                }
                Record::Delayed(_, message) => appended.first_delayed = message.seq,
                _ => {}
            }
        }
        appended
    }

    fn append_one(&mut self, queue: &QueueRow, message: &NewMessage, buffer: BufferSize) -> Record {
        let delay = whole_ms(message.delay);
        let stream = if delay > 0 { queue.delay_queue() } else { queue.stream() };
        let (seq, entered_ms) = self.place(stream);
        let stored = |entered_ms| {
            Arc::new(StoredMessage {
                seq,
                entered_ms,
                json: message.json.clone(),
                buffer,
                body_bytes: message.body_bytes,
                // The default slice is shared: no allocation.
                tags: if message.tags.is_empty() { Arc::default() } else { message.tags.as_slice().into() },
                dead_letter: None,
                origin: message.origin,
                only_for: None,
            })
        };
        if delay > 0 {
            Record::Delayed(stream, stored(self.now_ms.saturating_add(delay)))
        } else {
            Record::Appended(stream, stored(entered_ms))
        }
    }

    /// The next sequence number of a stream, and the entry time for it. Times never decrease within a stream, whatever the clock
    /// does.
    fn place(&mut self, stream: StreamId) -> (u64, i64) {
        // Commands of the same commit see the ends that earlier ones of them have reached, because the state changes only after the
        // commit.
        let end = self.ends.entry(stream).or_insert_with(|| match self.state.streams.get(&stream) {
            Some(stream) => (stream.next, stream.newest),
            None => (self.state.delay_queues.get(&stream).map_or(1, |delay_queue| delay_queue.next), 0),
        });
        let place = (end.0, end.1.max(self.now_ms));
        *end = (place.0 + 1, place.1);
        place
    }

    fn end(&mut self, leases: &[(CursorId, u64, LeaseEnd)]) -> Prepared {
        let mut records = Vec::with_capacity(leases.len());
        for (number, lease, ending) in leases {
            let cursor = self.state.cursors.get(number).ok_or(BrokerError::GroupNotFound)?;
            let ended = cursor
                .leases
                .get(lease)
                .ok_or_else(|| BrokerError::UnknownReceipt("The lease has just ended.".to_owned()))?;
            let dead_after = cursor.dead.map(|(_, failures)| failures);
            // Decided here and not when the acknowledgement arrived, because only here is it certain that the lease
            // was not ended otherwise.
            let decision = ended.decide(ending, self.config.failure_counting, dead_after, self.now_ms);
            // The queue may have been purged after the acknowledgement was accepted.
            let LeaseDecision { mut settlement, dead_letters, histories } =
                decision.without_purged(ended, cursor.purged);
            // Where the group continues after a restart: below, every skipped message is recorded or belongs to a lease.
            settlement.head = cursor.durable_head();
            for (position, info) in dead_letters {
                if let (Some((stream, _)), Some(entry)) = (cursor.dead, ended.entries.get(position)) {
                    let origin = self.origin(cursor.stream, &entry.message);
                    records.push(self.dead_letter(stream, &entry.message, origin, info));
                }
            }
            records.push(Record::Settled { cursor: *number, lease: Some(*lease), histories, settlement });
        }
        Ok(records)
    }

    /// The record that makes a message a dead letter. It is a copy, because it outlives the message.
    fn dead_letter(
        &mut self,
        stream: StreamId,
        message: &StoredMessage,
        origin: Option<MessageOrigin>,
        info: DeadLetterInfo,
    ) -> Record {
        let (seq, entered_ms) = self.place(stream);
        let (json, buffer) = (without_labels(message), message.buffer);
        let (tags, body_bytes, dead_letter) = (Arc::default(), message.body_bytes, Some(Arc::new(info)));
        Record::Appended(
            stream,
            Arc::new(StoredMessage {
                seq,
                entered_ms,
                json,
                buffer,
                body_bytes,
                tags,
                dead_letter,
                origin,
                only_for: None,
            }),
        )
    }

    /// The record that puts a dead letter back into its queue, for one group alone.
    fn retried(&mut self, stream: StreamId, group: CursorId, message: &StoredMessage, origin: MessageOrigin) -> Record {
        let (seq, entered_ms) = self.place(stream);
        let (json, tags, body_bytes) = (message.json.clone(), message.tags.clone(), message.body_bytes);
        let (buffer, dead_letter, origin, only_for) = (message.buffer, None, Some(origin), Some(group));
        let stored = StoredMessage { seq, entered_ms, json, buffer, body_bytes, tags, dead_letter, origin, only_for };
        Record::Appended(stream, Arc::new(stored))
    }

    /// The queue that owns a stream.
    fn owner(&self, stream: StreamId) -> Option<&'a QueueId> {
        self.state.owners.get(&stream)
    }

    /// The origin of a message in the stream of a queue.
    fn origin(&self, stream: StreamId, message: &StoredMessage) -> Option<MessageOrigin> {
        let StoredMessage { seq, entered_ms, .. } = *message;
        let own = |queue: &QueueId| MessageOrigin::new(queue.as_str(), FirstPlace::Queue, seq, entered_ms);
        message.origin.or_else(|| self.owner(stream).map(own))
    }

    fn end_delays(&mut self, delay_queue: StreamId, stream: StreamId, due: &[Arc<StoredMessage>]) -> Vec<Record> {
        let Some(queue) = self.state.delay_queues.get(&delay_queue) else { return Vec::new() };
        let mut records = Vec::with_capacity(due.len() * 2);
        let owner = self.owner(stream);
        // Messages that were purged while they were being read stay purged.
        for message in due.iter().filter(|message| message.seq >= queue.low) {
            let (seq, entered_ms) = self.place(stream);
            let StoredMessage { buffer, body_bytes, only_for, .. } = **message;
            let (json, tags) = (message.json.clone(), message.tags.clone());
            // Directly before the message. The log recognizes by this order a message that was stored before, and which a full
            // disk does not refuse.
            records.push(Record::DelayEnded(delay_queue, message.entered_ms, message.seq));
            let first = |queue: &QueueId| {
                MessageOrigin::new(queue.as_str(), FirstPlace::DelayQueue, message.seq, message.entered_ms)
            };
            let origin = message.origin.or_else(|| owner.map(first));
            let dead_letter = None;
            let stored =
                StoredMessage { seq, entered_ms, json, buffer, body_bytes, tags, dead_letter, origin, only_for };
            records.push(Record::Appended(stream, Arc::new(stored)));
        }
        records
    }

    fn admin(&self, admin: &AdminCommand) -> Prepared {
        match admin {
            AdminCommand::CreateQueue(row) => self.create_queue(row),
            AdminCommand::DeleteQueue(queue) => {
                self.queue_row(queue)?;
                Ok(vec![Record::QueueDeleted(queue.clone())])
            }
            AdminCommand::CreateGroups(queue, groups) => self.create_groups(queue, groups),
            AdminCommand::DeleteGroup(queue, group) => {
                self.state.queues.get(queue).ok_or(BrokerError::QueueNotFound)?.group(group)?;
                Ok(vec![Record::GroupDeleted(queue.clone(), group.clone())])
            }
            AdminCommand::PutTags(queue, tags) => self.put_tags(queue, tags),
            AdminCommand::DeleteTags(queue, tags) => self.delete_tags(queue, tags),
            AdminCommand::FixRule(cursor, rule) => self.fix_rule(*cursor, rule),
            AdminCommand::ChangeQueue(queue, change) => self.change_queue(queue, change),
            AdminCommand::SetSchedule(queue, row, wall_ms) => self.set_schedule(queue, row, *wall_ms),
            AdminCommand::RemoveSchedule(queue, name, source) => self.remove_schedule(queue, name, *source),
            AdminCommand::PauseSchedule(queue, name, is_paused, wall_ms) => {
                self.pause_schedule(queue, name, *is_paused, *wall_ms)
            }
            AdminCommand::Purge(queue, group) => self.purge(queue, group.as_ref()),
        }
    }

    fn queue_row(&self, queue: &QueueId) -> Result<&'a QueueRow, BrokerError> {
        self.state.queues.get(queue).map(|queue| &queue.row).ok_or(BrokerError::QueueNotFound)
    }

    fn create_queue(&self, row: &QueueRow) -> Prepared {
        // Checked here, where commands come one by one: two calls may ask for the same name at the same time.
        let mut alike = 0;
        for other in self.state.queues.values().map(|queue| &queue.row).filter(|other| other.project == row.project) {
            if other.name == row.name {
                return Err(BrokerError::QueueExists(row.name.clone()));
            }
            alike += usize::from(other.mode.is_kafka() == row.mode.is_kafka());
        }
        let quota = self.config.quotas_of(&row.project).queues;
        if alike >= quota {
            return Err(BrokerError::QueueQuota(quota));
        }
        Ok(vec![Record::QueueCreated(QueueRow { number: self.state.next_number, ..row.clone() })])
    }

    fn change_queue(&self, id: &QueueId, change: &QueueChange) -> Prepared {
        let queue = self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        let mut row = queue.row.clone();
        if let Some(description) = &change.description {
            row.description.clone_from(description);
        }
        if let Some(count) = change.max_consume_count {
            if count.is_some() && row.mode.is_kafka() {
                return Err(BrokerError::NotAvailable("a Kafka queue has no dead letters".into()));
            }
            // Nobody could consume, redrive or discard them any more.
            if count.is_none() && queue.groups.iter().any(|group| self.has_dead_letters(group)) {
                return Err(BrokerError::NotAvailable(
                    "a group of the queue has dead letters: consume, redrive or discard them first".into(),
                ));
            }
            row.max_consume_count = count;
        }
        let retention = self.changed_retention(queue, change.retention)?;
        let mut records = Vec::new();
        if row != queue.row {
            records.push(Record::QueueChanged(row));
        }
        if retention != queue.retention {
            records.push(Record::RetentionSet(id.clone(), retention));
        }
        Ok(records)
    }

    /// The retention of a queue after a change. It is checked and applied here, where commands come one by one, so that another
    /// change made at the same time is not lost.
    fn changed_retention(&self, queue: &QueueState, change: RetentionChange) -> Result<RetentionPolicy, BrokerError> {
        let (configured, set) = (self.config.configured(&queue.row), queue.retention);
        if configured.retention.is_some() && change.retention.is_some_and(|new| new != set.retention) {
            return Err(BrokerError::Configured("retention".into()));
        }
        let settled = change.delete_when_settled;
        if configured.delete_when_settled.is_some() && settled.is_some_and(|new| new != set.delete_when_settled) {
            return Err(BrokerError::Configured("delete_when_settled".into()));
        }
        Ok(change.apply(set))
    }

    fn has_dead_letters(&self, group: &GroupRow) -> bool {
        let cursor = self.state.cursors.get(&group.dead_letter_cursor());
        cursor.zip(self.state.streams.get(&group.dead_letters())).is_some_and(|(cursor, stream)| {
            !cursor.leases.is_empty() || cursor.available(stream) > 0 || cursor.set_aside.len() > 0
        })
    }

    fn create_groups(&self, id: &QueueId, groups: &[(GroupId, String)]) -> Prepared {
        let queue = self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        for (position, (_, name)) in groups.iter().enumerate() {
            let mut taken = queue.groups.iter().map(|group| &group.name);
            if taken.any(|other| other == name) || groups[..position].iter().any(|(_, other)| other == name) {
                return Err(BrokerError::GroupExists(name.clone()));
            }
        }
        let quota = self.config.quotas_of(&queue.row.project).groups_per_queue;
        if queue.groups.len() + groups.len() > quota {
            return Err(BrokerError::GroupQuota(quota));
        }
        let stream = self.state.streams.get(&queue.row.stream()).ok_or(BrokerError::QueueNotFound)?;
        let start = match self.config.new_group_starts {
            StartPosition::Beginning => stream.low,
            StartPosition::End => stream.next,
        };
        // Each group takes two numbers: one for its cursor, one for its dead letters.
        let numbers = (self.state.next_number..).step_by(2);
        let row = |(number, (group, name)): (u32, &(GroupId, String))| {
            let (queue, id, name) = (id.clone(), group.clone(), name.clone());
            Record::GroupCreated(GroupRow { number, queue, id, name, created_ms: self.now_ms, start })
        };
        Ok(numbers.zip(groups).map(row).collect())
    }

    /// The record that deletes a prefix of a stream which every cursor has settled, if there is one.
    fn drop_settled(&self, number: StreamId) -> Option<Record> {
        let (low, oldest) = self.state.settled_prefix(number)?;
        Some(Record::Expired { stream: number, low, oldest })
    }

    /// Purges the backlog of a group. Without a group, purges the backlogs of all groups and deletes all messages, including
    /// delayed ones.
    fn purge(&self, id: &QueueId, group: Option<&GroupId>) -> Prepared {
        let queue = self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        let (stream, delay_queue) = (queue.row.stream(), queue.row.delay_queue());
        let below = self.state.streams.get(&stream).ok_or(BrokerError::QueueNotFound)?.next;
        if let Some(group) = group {
            return Ok(vec![Record::Purged { cursor: queue.group(group)?.cursor(), below }]);
        }
        // The groups come first. Otherwise the purged messages would count as expired before the groups had consumed them.
        let groups = queue.groups.iter().map(|group| Record::Purged { cursor: group.cursor(), below });
        let delayed_below = self.state.delay_queues.get(&delay_queue).map_or(1, |delay_queue| delay_queue.next);
        let gone = [
            Record::DelayQueuePurged { delay_queue, below: delayed_below },
            Record::Expired { stream, low: below, oldest: None },
        ];
        Ok(groups.chain(gone).collect())
    }

    fn put_tags(&self, id: &QueueId, tags: &[QueueTag]) -> Prepared {
        let queue = self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        let mut all = queue.tags.clone();
        for tag in tags {
            match all.iter_mut().find(|other| other.key == tag.key) {
                Some(same) => same.value.clone_from(&tag.value),
                None => all.push(tag.clone()),
            }
        }
        // With a quota that was lowered, tags beyond it stay and can be changed.
        let quota = self.config.quotas_of(&queue.row.project).tags_per_queue;
        if all.len() > quota.max(queue.tags.len()) {
            return Err(BrokerError::TagQuota(quota));
        }
        Ok(vec![Record::TagsSet(id.clone(), all)])
    }

    fn delete_tags(&self, id: &QueueId, tags: &[(String, Option<String>)]) -> Prepared {
        let queue = self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        let named = |tag: &QueueTag| {
            tags.iter().any(|(key, value)| tag.key == *key && value.as_ref().is_none_or(|value| tag.value == *value))
        };
        let left: Vec<_> = queue.tags.iter().filter(|tag| !named(tag)).cloned().collect();
        Ok(if left.len() == queue.tags.len() { Vec::new() } else { vec![Record::TagsSet(id.clone(), left)] })
    }

    fn fix_rule(&self, number: CursorId, rule: &LabelFilter) -> Prepared {
        let cursor = self.state.cursors.get(&number).ok_or(BrokerError::GroupNotFound)?;
        match &cursor.rule {
            None => Ok(vec![Record::RuleFixed(number, rule.filter().clone())]),
            Some(fixed) if fixed == rule => Ok(Vec::new()),
            Some(fixed) => Err(BrokerError::FilterChanged(fixed.to_string())),
        }
    }
}

/// The JSON of a message without its labels, because dead letters have none (API reference 5.3.4).
fn without_labels(message: &StoredMessage) -> bytes::Bytes {
    if message.tags.is_empty() {
        return message.json.clone();
    }
    // The broker wrote this text: labels come last and contain no escapes.
    let labels = format!(",\"tags\":[\"{}\"]}}", message.tags.join("\",\""));
    match message.json.strip_suffix(labels.as_bytes()) {
        Some(rest) => [rest, b"}"].concat().into(),
        None => message.json.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5.3.4: dead letters have no tags.
    #[test]
    fn labels_are_cut_off_a_dead_letter() {
        let dead = |json: &'static str, tags: &[&str]| {
            let tags = tags.iter().map(|&tag| tag.into()).collect();
            without_labels(&StoredMessage {
                seq: 1,
                entered_ms: 0,
                json: json.into(),
                body_bytes: 1,
                tags,
                ..StoredMessage::default()
            })
        };
        assert_eq!(
            dead(r#"{"body":1,"attributes":{},"tags":["a","b"]}"#, &["a", "b"]),
            r#"{"body":1,"attributes":{}}"#
        );
        assert_eq!(dead(r#"{"body":",\"tags\":[\"a\"]}"}"#, &[]), r#"{"body":",\"tags\":[\"a\"]}"}"#);
    }
}
