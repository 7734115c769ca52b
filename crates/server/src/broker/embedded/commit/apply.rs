//! Applies committed records to the state, and wakes who waited for what they bring.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::{
    broker::{
        RetentionPolicy,
        embedded::{
            command::Work,
            config::{EmbeddedConfig, Keeping},
            state::{
                QueueState, State,
                cursor::Reader,
                stream::{Lot, Stream},
            },
        },
    },
    store::{GroupRow, QueueRow, ReaderMark, ReaderNo, Record, Settlement, StreamNo},
};
use dms_protocol::queue::{GroupId, QueueId};

/// Whose messages may have become available.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    streams: BTreeSet<StreamNo>,
    readers: BTreeSet<ReaderNo>,
}

/// How many messages of its stream a reader has not consumed; leased ones are not among them.
fn waiting(readers: &BTreeMap<ReaderNo, Reader>, number: &ReaderNo, stream: &Stream) -> u64 {
    readers.get(number).map_or(0, |reader| reader.available(stream))
}

impl State {
    /// Applies the records of one commit.
    pub(crate) fn apply(&mut self, records: &[Record], config: &EmbeddedConfig) {
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
            Record::RuleFixed(reader, rule) => {
                if let Some(reader) = self.readers.get_mut(reader) {
                    reader.rule = Some(crate::broker::embedded::state::label_filter::LabelRule::new(rule));
                }
            }
            Record::Appended(number, message) => {
                if let Some(info) = &message.dead_letter {
                    self.dead_letter_reasons.add(&info.reason);
                }
                if let Some(stream) = self.streams.get_mut(number) {
                    self.timer_stale |= stream.oldest.is_none();
                    stream.push(message.clone());
                    touched.streams.insert(*number);
                }
            }
            Record::Parked(lot, message) => {
                if let Some(lot) = self.lots.get_mut(lot) {
                    lot.park(message.seq, message.entered_ms);
                    self.timer_stale = true;
                }
            }
            Record::Unparked(lot, _, seq) => {
                if let Some(lot) = self.lots.get_mut(lot) {
                    lot.unpark(*seq);
                }
            }
            Record::Settled { reader, lease, histories, settlement } => {
                self.settled(*reader, *lease, settlement, touched);
                if let Some(reader) = self.readers.get_mut(reader) {
                    histories.iter().for_each(|(seq, history)| reader.remember(*seq, history.clone()));
                }
            }
            Record::Skipped => {}
            Record::RetentionSet(queue, policy) => self.set_retention(queue, *policy, config),
            Record::Purged { reader, below } => self.purge(*reader, *below),
            Record::Emptied { lot, .. } => {
                if let Some(lot) = self.lots.get_mut(lot) {
                    lot.clear();
                }
            }
            Record::Expired { stream, low, oldest } => self.expire(*stream, *low, *oldest),
        }
    }

    fn create_queue(&mut self, row: &QueueRow, config: &EmbeddedConfig) {
        self.begin_creation(row.number, config);
        self.next_number = row.number + 2;
        self.streams.insert(row.stream(), Stream::empty(config.keeping_of(row, RetentionPolicy::default())));
        self.lots.insert(row.lot(), Lot::empty(row.stream()));
        let (tags, retention, groups) = (Vec::new(), RetentionPolicy::default(), Vec::new());
        let queue = QueueState { row: row.clone(), tags, retention, groups };
        self.queues.insert(row.id.clone(), queue);
    }

    fn create_group(&mut self, row: &GroupRow, config: &EmbeddedConfig) {
        let Some(stream) = self.queues.get(&row.queue).map(|queue| queue.row.stream()) else { return };
        self.begin_creation(row.number, config);
        self.next_number = row.number + 2;
        let fresh = |head| ReaderMark { head, consumed: 0, ready: Vec::new(), rule: None };
        let reader = Reader::new(stream, fresh(row.start));
        let dead = Reader::new(row.dead_letters(), fresh(1));
        self.streams.insert(row.dead_letters(), Stream::empty(Keeping::for_time(config.dead_letter_retention)));
        self.add_group(row.clone(), reader, dead, config);
    }

    /// From now on the queue or group with this number is being created, where that takes time.
    fn begin_creation(&mut self, number: u32, config: &EmbeddedConfig) {
        let ready = Instant::now().checked_add(config.create_delay).filter(|_| !config.create_delay.is_zero());
        self.creating.extend(ready.map(|ready| (number, ready)));
    }

    fn delete_queue(&mut self, id: &QueueId) {
        let Some(queue) = self.queues.remove(id) else { return };
        self.creating.remove(&queue.row.number);
        queue.groups.iter().for_each(|group| self.drop_group(group));
        self.streams.remove(&queue.row.stream());
        self.lots.remove(&queue.row.lot());
    }

    fn delete_group(&mut self, queue: &QueueId, id: &GroupId) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let Some(position) = queue.groups.iter().position(|group| group.id == *id) else { return };
        let group = queue.groups.remove(position);
        self.drop_group(&group);
    }

    fn drop_group(&mut self, group: &GroupRow) {
        self.creating.remove(&group.number);
        self.drop_reader(group.reader());
        self.drop_reader(group.dead_letter_reader());
        self.streams.remove(&group.dead_letters());
    }

    fn settled(&mut self, number: ReaderNo, lease: Option<u64>, settlement: &Settlement, touched: &mut Touched) {
        let Some(reader) = self.readers.get_mut(&number) else { return };
        let Some(stream) = self.streams.get(&reader.stream) else { return };
        self.dead_letters += settlement.dead.len() as u64;
        let (ended, of) = (reader.settle(lease, settlement, stream.low), reader.stream);
        if let (Some(ended), Some(lease)) = (ended, lease) {
            self.forget_lease(number, lease, &ended);
        }
        touched.readers.insert(number);
        self.look_for_settled(of);
    }

    fn expire(&mut self, number: StreamNo, low: u64, oldest: Option<i64>) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let before: Vec<u64> = stream.readers.iter().map(|number| waiting(&self.readers, number, stream)).collect();
        stream.expire(low, oldest);
        let mut unread = Vec::new();
        for (number, before) in stream.readers.iter().zip(before) {
            if let Some(reader) = self.readers.get_mut(number) {
                reader.expire(low);
            }
            match before.saturating_sub(waiting(&self.readers, number, stream)) {
                0 => {}
                count => unread.push((*number, count)),
            }
        }
        unread.into_iter().for_each(|(reader, count)| self.tell_unread(reader, count));
    }

    /// Logs and counts that messages were deleted that a group had not consumed.
    fn tell_unread(&mut self, reader: ReaderNo, messages: u64) {
        if let Some(reader) = self.readers.get_mut(&reader) {
            reader.expired_unread += messages;
        }
        let groups = self.queues.values().flat_map(|queue| queue.groups.iter().map(move |group| (queue, group)));
        let mut of = groups.filter(|(_, group)| [group.reader(), group.dead_letter_reader()].contains(&reader));
        let Some((queue, group)) = of.next() else { return };
        let (queue, dead) = (&queue.row.name, reader == group.dead_letter_reader());
        let what = if dead { "dead letters" } else { "messages" };
        tracing::warn!(%queue, group = %group.name, messages, "the retention of {what} is over: they are deleted unread");
    }

    /// Wakes one waiting call for each reader that has something; it wakes the next if there is more.
    fn wake(&mut self, touched: &Touched) {
        let of_streams = touched.streams.iter().filter_map(|number| self.streams.get(number));
        let readers = of_streams.flat_map(|stream| &stream.readers).chain(&touched.readers);
        for reader in readers.filter_map(|number| self.readers.get(number)) {
            if self.streams.get(&reader.stream).is_some_and(|stream| reader.has_available(stream)) {
                reader.wake.notify_one();
            }
        }
        // Nobody reads these: nothing of them has to stay in memory.
        for number in &touched.streams {
            if let Some(stream) = self.streams.get_mut(number).filter(|stream| stream.readers.is_empty()) {
                stream.forget_below(stream.next);
            }
        }
    }

    /// Work could not be committed: what was held for it is free again.
    pub(crate) fn take_back(&mut self, work: &Work) {
        self.timer_stale = true;
        match work {
            Work::End(leases) => {
                for (reader, lease, _) in leases {
                    let reader = self.readers.get_mut(reader);
                    if let Some(lease) = reader.and_then(|reader| reader.leases.get_mut(lease)) {
                        lease.settling = false;
                    }
                }
            }
            Work::DropSettled(stream) => {
                self.look_for_settled(*stream);
            }
            Work::Unpark { lot, due, .. } => {
                if let (Some(lot), Some(first)) = (self.lots.get_mut(lot), due.first()) {
                    lot.look_at(first.entered_ms);
                }
            }
            _ => {}
        }
    }
}
