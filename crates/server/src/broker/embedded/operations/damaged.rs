//! Damaged messages: told of when they are found, shown on request, and skipped for good when somebody says so.

use crate::{
    broker::{
        BrokerError, DamagedIn, DamagedMessage,
        embedded::{
            command::Work,
            core::Core,
            state::{QueueState, State, set_aside::Aside},
        },
    },
    store::{Damaged, GroupRow, ReaderNo, Settlement, StreamNo},
};
use dms_protocol::queue::GroupId;

/// The most damaged messages of one read that the log names one by one.
const MOST_NAMED: usize = 20;

/// Whose message is damaged.
struct Owner<'a> {
    queue: &'a QueueState,
    group: Option<&'a GroupRow>,
    of: DamagedIn,
}

impl State {
    /// Tells of damaged messages that a reader came upon.
    pub(crate) fn tell_damaged(&self, reader: ReaderNo, damaged: &[Damaged]) {
        if !damaged.is_empty()
            && let Some(owner) = self.owners().find(|(_, number, _)| *number == Some(reader)).map(|(owner, ..)| owner)
        {
            owner.tell(damaged);
        }
    }

    /// Tells of damaged messages among those that are due.
    pub(crate) fn tell_damaged_due(&self, lot: StreamNo, damaged: &[Damaged]) {
        if !damaged.is_empty()
            && let Some(queue) = self.queues.values().find(|queue| queue.row.lot() == lot)
        {
            Owner { queue, group: None, of: DamagedIn::Delayed }.tell(damaged);
        }
    }

    /// Messages that were set aside because the disk did not give them back are looked for again, as after a restart.
    pub(crate) fn look_again_for_unreadable(&mut self) {
        for reader in self.readers.values_mut() {
            if reader.look_again_for_unreadable() {
                reader.wake.notify_one();
            }
        }
        for lot in self.lots.values_mut() {
            for one in lot.aside.take_unreadable() {
                lot.look_at(one.entered_ms.unwrap_or_default());
            }
        }
    }

    /// All who may have damaged messages: readers with their numbers, and lots.
    fn owners(&self) -> impl Iterator<Item = (Owner<'_>, Option<ReaderNo>, Option<&Aside>)> {
        let aside = |reader: ReaderNo| (Some(reader), self.readers.get(&reader).map(|reader| &reader.aside));
        self.queues.values().flat_map(move |queue| {
            let groups = queue.groups.iter().flat_map(move |group| {
                let of = [(group.reader(), DamagedIn::Messages), (group.dead_letter_reader(), DamagedIn::DeadLetters)];
                of.map(|(reader, of)| {
                    let (number, aside) = aside(reader);
                    (Owner { queue, group: Some(group), of }, number, aside)
                })
            });
            let lot = self.lots.get(&queue.row.lot()).map(|lot| &lot.aside);
            groups.chain([(Owner { queue, group: None, of: DamagedIn::Delayed }, None, lot)])
        })
    }
}

impl Owner<'_> {
    fn tell(&self, damaged: &[Damaged]) {
        let (queue, group) = (&self.queue.row, self.group.map_or("", |group| group.name.as_str()));
        for one in damaged.iter().take(MOST_NAMED) {
            tracing::error!(
                project = %queue.project,
                queue = queue.name,
                group,
                stream = self.of.as_str(),
                message = one.seq,
                file = &*one.file,
                offset = one.offset,
                reason = &*one.reason,
                "a damaged message is set aside: those behind it are delivered"
            );
        }
        if let Some(more) = damaged.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            tracing::error!(project = %queue.project, queue = queue.name, group, more, "more damaged messages are set aside");
        }
    }

    fn show(&self, damaged: &Damaged) -> DamagedMessage {
        DamagedMessage {
            project: self.queue.row.project.clone(),
            queue: self.queue.row.id.clone(),
            queue_name: self.queue.row.name.clone(),
            group: self.group.map(|group| group.id.clone()),
            group_name: self.group.map(|group| group.name.clone()),
            of: self.of,
            sequence: damaged.seq,
            file: damaged.file.to_string(),
            offset: damaged.offset,
            reason: damaged.reason.to_string(),
        }
    }

    fn is_of(&self, which: &DamagedMessage) -> bool {
        let group: Option<&GroupId> = self.group.map(|group| &group.id);
        self.queue.row.id == which.queue && group == which.group.as_ref() && self.of == which.of
    }
}

impl Core {
    /// All that are set aside.
    pub(crate) fn damaged(&self) -> Vec<DamagedMessage> {
        let state = self.lock();
        let known = state.owners().filter_map(|(owner, _, aside)| Some((owner, aside?)));
        known.flat_map(|(owner, aside)| aside.iter().map(|damaged| owner.show(damaged)).collect::<Vec<_>>()).collect()
    }

    /// Settles one of them for its group; a delayed one is gone.
    pub(crate) async fn skip_damaged(&self, which: &DamagedMessage) -> Result<(), BrokerError> {
        let pending = {
            let state = self.open()?;
            let found = state.owners().find(|(owner, ..)| owner.is_of(which));
            let Some((owner, reader, Some(aside))) = found else { return Err(BrokerError::NotDamaged) };
            let damaged = aside.iter().find(|damaged| damaged.seq == which.sequence).ok_or(BrokerError::NotDamaged)?;
            self.submit(match reader {
                Some(reader) => {
                    // What is settled behind the durable head would not be looked at after a restart.
                    let head = state.readers.get(&reader).map_or(0, |reader| reader.durable_head());
                    let head = head.max(damaged.seq + 1);
                    let skipped = std::iter::once(damaged.seq..damaged.seq + 1).collect();
                    Work::Skip(reader, Settlement { skipped, head, ..Settlement::default() })
                }
                None => Work::Drop(owner.queue.row.lot(), damaged.entered_ms.unwrap_or_default(), damaged.seq),
            })
        };
        pending.outcome().await
    }
}
