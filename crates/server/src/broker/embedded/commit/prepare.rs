//! Turns work into records, judged by the state as it is when the work is committed. Pure: nothing is changed here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    broker::{
        BrokerError, NewMessage,
        embedded::{
            command::{Admin, Work},
            config::{EmbeddedConfig, StartPosition},
            state::{
                State,
                label_filter::LabelRule,
                lease::{Ending, Judgement},
            },
        },
    },
    clock::whole_ms,
    store::{GroupRow, QueueRow, ReaderNo, Record, Stored, StreamNo},
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, QueueId, QueueTag},
};

/// Prepares the works of one commit, one after the other.
pub(crate) struct Preparer<'a> {
    state: &'a State,
    config: &'a EmbeddedConfig,
    now_ms: i64,
    /// The next place of each stream and lot, and when its newest message entered: the state's, and this commit's.
    ends: BTreeMap<StreamNo, (u64, i64)>,
}

type Prepared = Result<Vec<Record>, BrokerError>;

impl<'a> Preparer<'a> {
    /// Prepares on top of `state`.
    pub(crate) fn new(state: &'a State, config: &'a EmbeddedConfig, now_ms: i64) -> Self {
        Self { state, config, now_ms, ends: BTreeMap::new() }
    }

    /// The records of a work.
    ///
    /// # Errors
    /// When what it is about is gone, or a rule forbids it.
    pub(crate) fn prepare(&mut self, work: &Work) -> Prepared {
        match work {
            Work::Append(queue, messages) => self.append(queue, messages),
            Work::End(leases) => self.end(leases),
            Work::Skip(reader, settlement) => Ok(match self.state.readers.get(reader) {
                Some(_) => vec![Record::Settled {
                    reader: *reader,
                    lease: None,
                    histories: Vec::new(),
                    settlement: settlement.clone(),
                }],
                None => Vec::new(),
            }),
            Work::Unpark { lot, stream, due } => Ok(self.unpark(*lot, *stream, due)),
            Work::Drop(lot, due, seq) => Ok(match self.state.lots.get(lot) {
                Some(held) if held.aside.contains(*seq) => vec![Record::Unparked(*lot, *due, *seq)],
                _ => Vec::new(),
            }),
            Work::Expire { stream, low, oldest } => Ok(match self.state.streams.get(stream) {
                Some(_) => vec![Record::Expired { stream: *stream, low: *low, oldest: *oldest }],
                None => Vec::new(),
            }),
            Work::DropSettled(stream) => Ok(self.drop_settled(*stream).into_iter().collect()),
            Work::Admin(admin) => self.admin(admin),
            Work::Stop => Ok(Vec::new()),
        }
    }

    fn append(&mut self, queue: &QueueId, messages: &[NewMessage]) -> Prepared {
        let queue = &self.state.queues.get(queue).ok_or(BrokerError::QueueNotFound)?.row;
        Ok(messages.iter().map(|message| self.append_one(queue, message)).collect())
    }

    fn append_one(&mut self, queue: &QueueRow, message: &NewMessage) -> Record {
        let delay = whole_ms(message.delay);
        let stream = if delay > 0 { queue.lot() } else { queue.stream() };
        let (seq, entered_ms) = self.place(stream);
        let stored = |entered_ms| {
            Arc::new(Stored {
                seq,
                entered_ms,
                json: message.json.clone(),
                body_bytes: message.body_bytes,
                // The empty slice is one for all, without an allocation.
                tags: if message.tags.is_empty() { Arc::default() } else { message.tags.as_slice().into() },
                dead_letter: None,
            })
        };
        if delay > 0 {
            Record::Parked(stream, stored(self.now_ms.saturating_add(delay)))
        } else {
            Record::Appended(stream, stored(entered_ms))
        }
    }

    /// The next place of a stream, and when its message enters: never before the one in front of it.
    fn place(&mut self, stream: StreamNo) -> (u64, i64) {
        let end = self.ends.entry(stream).or_insert_with(|| match self.state.streams.get(&stream) {
            Some(stream) => (stream.next, stream.newest),
            None => (self.state.lots.get(&stream).map_or(1, |lot| lot.next), 0),
        });
        let place = (end.0, end.1.max(self.now_ms));
        *end = (place.0 + 1, place.1);
        place
    }

    fn end(&mut self, leases: &[(ReaderNo, u64, Ending)]) -> Prepared {
        let mut records = Vec::new();
        for (number, lease, ending) in leases {
            let reader = self.state.readers.get(number).ok_or(BrokerError::GroupNotFound)?;
            let lease_held = reader
                .leases
                .get(lease)
                .ok_or_else(|| BrokerError::UnknownHandle("The lease has just ended.".to_owned()))?;
            let dead_after = reader.dead.map(|(_, failures)| failures);
            let judged = lease_held.judge(ending, self.config.failure_counting, dead_after, self.now_ms);
            let Judgement { mut settlement, deaths, histories } = judged.without_purged(lease_held, reader.purged);
            settlement.head = reader.durable_head();
            for (position, info) in deaths {
                if let (Some((stream, _)), Some(entry)) = (reader.dead, lease_held.entries.get(position)) {
                    records.push(self.bury(stream, &entry.message, info));
                }
            }
            records.push(Record::Settled { reader: *number, lease: Some(*lease), histories, settlement });
        }
        Ok(records)
    }

    /// A message becomes a dead letter: a copy, because it outlives the message.
    fn bury(&mut self, stream: StreamNo, message: &Stored, info: DeadLetterInfo) -> Record {
        let (seq, entered_ms) = self.place(stream);
        let json = without_labels(message);
        let (tags, body_bytes, dead_letter) = (Arc::default(), message.body_bytes, Some(Arc::new(info)));
        Record::Appended(stream, Arc::new(Stored { seq, entered_ms, json, body_bytes, tags, dead_letter }))
    }

    fn unpark(&mut self, lot: StreamNo, stream: StreamNo, due: &[Arc<Stored>]) -> Vec<Record> {
        let Some(held) = self.state.lots.get(&lot) else { return Vec::new() };
        let mut records = Vec::with_capacity(due.len() * 2);
        // What was purged while it was being read stays purged.
        for message in due.iter().filter(|message| message.seq >= held.low) {
            let (seq, entered_ms) = self.place(stream);
            let Stored { body_bytes, .. } = **message;
            let (json, tags) = (message.json.clone(), message.tags.clone());
            records.push(Record::Unparked(lot, message.entered_ms, message.seq));
            let stored = Stored { seq, entered_ms, json, body_bytes, tags, dead_letter: None };
            records.push(Record::Appended(stream, Arc::new(stored)));
        }
        records
    }

    fn admin(&self, admin: &Admin) -> Prepared {
        match admin {
            Admin::CreateQueue(row) => self.create_queue(row),
            Admin::DeleteQueue(queue) => {
                self.queue_row(queue)?;
                Ok(vec![Record::QueueDeleted(queue.clone())])
            }
            Admin::CreateGroups(queue, groups) => self.create_groups(queue, groups),
            Admin::DeleteGroup(queue, group) => {
                self.state.queues.get(queue).ok_or(BrokerError::QueueNotFound)?.group(group)?;
                Ok(vec![Record::GroupDeleted(queue.clone(), group.clone())])
            }
            Admin::PutTags(queue, tags) => self.put_tags(queue, tags),
            Admin::DeleteTags(queue, tags) => self.delete_tags(queue, tags),
            Admin::FixRule(reader, rule) => self.fix_rule(*reader, rule),
            Admin::SetRetention(queue, policy) => {
                self.queue_row(queue)?;
                Ok(vec![Record::RetentionSet(queue.clone(), *policy)])
            }
            Admin::Purge(queue, group) => self.purge(queue, group.as_ref()),
        }
    }

    fn queue_row(&self, queue: &QueueId) -> Result<&'a QueueRow, BrokerError> {
        self.state.queues.get(queue).map(|queue| &queue.row).ok_or(BrokerError::QueueNotFound)
    }

    fn create_queue(&self, row: &QueueRow) -> Prepared {
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
        let numbers = (self.state.next_number..).step_by(2);
        let row = |(number, (group, name)): (u32, &(GroupId, String))| {
            let (queue, id, name) = (id.clone(), group.clone(), name.clone());
            Record::GroupCreated(GroupRow { number, queue, id, name, created_ms: self.now_ms, start })
        };
        Ok(numbers.zip(groups).map(row).collect())
    }

    /// Where the stream begins without what every reader has settled; nothing where that is where it begins now.
    fn drop_settled(&self, number: StreamNo) -> Option<Record> {
        let (low, oldest) = self.state.settled_front(number)?;
        Some(Record::Expired { stream: number, low, oldest })
    }

    /// A group's backlog is settled; without a group that of every one is, and all messages are gone, those that are not due
    /// among them.
    fn purge(&self, id: &QueueId, group: Option<&GroupId>) -> Prepared {
        let queue = self.state.queues.get(id).ok_or(BrokerError::QueueNotFound)?;
        let (stream, lot) = (queue.row.stream(), queue.row.lot());
        let below = self.state.streams.get(&stream).ok_or(BrokerError::QueueNotFound)?.next;
        if let Some(group) = group {
            return Ok(vec![Record::Purged { reader: queue.group(group)?.reader(), below }]);
        }
        let groups = queue.groups.iter().map(|group| Record::Purged { reader: group.reader(), below });
        let parked_below = self.state.lots.get(&lot).map_or(1, |lot| lot.next);
        let gone = [Record::Emptied { lot, below: parked_below }, Record::Expired { stream, low: below, oldest: None }];
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

    fn fix_rule(&self, number: ReaderNo, rule: &LabelRule) -> Prepared {
        let reader = self.state.readers.get(&number).ok_or(BrokerError::GroupNotFound)?;
        match &reader.rule {
            None => Ok(vec![Record::RuleFixed(number, rule.filter().clone())]),
            Some(fixed) if fixed == rule => Ok(Vec::new()),
            Some(fixed) => Err(BrokerError::FilterChanged(fixed.to_string())),
        }
    }
}

/// The JSON of a message without its labels: dead letters carry none (API reference 5.3.4).
fn without_labels(message: &Stored) -> bytes::Bytes {
    if message.tags.is_empty() {
        return message.json.clone();
    }
    // The text is ours: labels come last, and need no escapes.
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
            without_labels(&Stored { seq: 1, entered_ms: 0, json: json.into(), body_bytes: 1, tags, dead_letter: None })
        };
        assert_eq!(
            dead(r#"{"body":1,"attributes":{},"tags":["a","b"]}"#, &["a", "b"]),
            r#"{"body":1,"attributes":{}}"#
        );
        assert_eq!(dead(r#"{"body":",\"tags\":[\"a\"]}"}"#, &[]), r#"{"body":",\"tags\":[\"a\"]}"}"#);
    }
}
