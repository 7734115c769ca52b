//! Damaged messages: logged when they are found, listed on request, and skipped permanently on request.

use crate::{
    broker::{
        BrokerError, DamagedIn, DamagedMessage,
        embedded::{
            command::Command,
            core::Core,
            state::{BrokerState, QueueState, set_aside::SetAside},
        },
    },
    store::{CursorId, Damaged, GroupRow, Settlement, StreamId},
};
use dms_protocol::queue::GroupId;

/// The maximum number of damaged messages of one read that are logged one by one.
const MAX_LOGGED: usize = 20;

/// The owner of a damaged message.
struct DamageOwner<'a> {
    queue: &'a QueueState,
    group: Option<&'a GroupRow>,
    of: DamagedIn,
}

impl BrokerState {
    /// Logs damaged messages that a cursor found.
    pub(crate) fn log_damaged(&self, cursor: CursorId, damaged: &[Damaged]) {
        if !damaged.is_empty()
            && let Some(owner) = self.owners().find(|(_, number, _)| *number == Some(cursor)).map(|(owner, ..)| owner)
        {
            owner.tell(damaged);
        }
    }

    /// Logs damaged messages that were due in a delay queue.
    pub(crate) fn log_damaged_due(&self, delay_queue: StreamId, damaged: &[Damaged]) {
        if !damaged.is_empty()
            && let Some(queue) = self.queues.values().find(|queue| queue.row.delay_queue() == delay_queue)
        {
            DamageOwner { queue, group: None, of: DamagedIn::Delayed }.tell(damaged);
        }
    }

    /// Looks again for messages that were set aside because the disk did not return them, as a restart would.
    pub(crate) fn retry_unreadable(&mut self) {
        for cursor in self.cursors.values_mut() {
            if cursor.retry_unreadable() {
                cursor.wake.notify_one();
            }
        }
        for delay_queue in self.delay_queues.values_mut() {
            for one in delay_queue.set_aside.take_unreadable() {
                delay_queue.look_at(one.entered_ms.unwrap_or_default());
            }
        }
    }

    /// All possible owners of damaged messages: cursors with their ids, and delay queues.
    fn owners(&self) -> impl Iterator<Item = (DamageOwner<'_>, Option<CursorId>, Option<&SetAside>)> {
        let set_aside = |cursor: CursorId| (Some(cursor), self.cursors.get(&cursor).map(|cursor| &cursor.set_aside));
        self.queues.values().flat_map(move |queue| {
            let groups = queue.groups.iter().flat_map(move |group| {
                let of = [(group.cursor(), DamagedIn::Messages), (group.dead_letter_cursor(), DamagedIn::DeadLetters)];
                of.map(|(cursor, of)| {
                    let (number, set_aside) = set_aside(cursor);
                    (DamageOwner { queue, group: Some(group), of }, number, set_aside)
                })
            });
            let delay_queue = self.delay_queues.get(&queue.row.delay_queue()).map(|delay_queue| &delay_queue.set_aside);
            groups.chain([(DamageOwner { queue, group: None, of: DamagedIn::Delayed }, None, delay_queue)])
        })
    }
}

impl DamageOwner<'_> {
    fn tell(&self, damaged: &[Damaged]) {
        let (queue, group) = (&self.queue.row, self.group.map_or("", |group| group.name.as_str()));
        for one in damaged.iter().take(MAX_LOGGED) {
            tracing::error!(
                project = %queue.project,
                queue = queue.name,
                group,
                stream = self.of.as_str(),
                sequence = one.seq,
                file = &*one.file,
                offset = one.offset,
                reason = &*one.reason,
                "a damaged message is set aside; later messages are delivered"
            );
        }
        if let Some(more) = damaged.len().checked_sub(MAX_LOGGED).filter(|more| *more > 0) {
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
    /// All damaged messages that are set aside.
    pub(crate) fn damaged(&self) -> Vec<DamagedMessage> {
        let state = self.lock();
        let known = state.owners().filter_map(|(owner, _, set_aside)| Some((owner, set_aside?)));
        known
            .flat_map(|(owner, set_aside)| set_aside.iter().map(|damaged| owner.show(damaged)).collect::<Vec<_>>())
            .collect()
    }

    /// Settles a damaged message for its group. A delayed one is deleted.
    pub(crate) async fn skip_damaged(&self, which: &DamagedMessage) -> Result<(), BrokerError> {
        let pending = {
            let state = self.open()?;
            let found = state.owners().find(|(owner, ..)| owner.is_of(which));
            let Some((owner, cursor, Some(set_aside))) = found else { return Err(BrokerError::NotDamaged) };
            let damaged =
                set_aside.iter().find(|damaged| damaged.seq == which.sequence).ok_or(BrokerError::NotDamaged)?;
            self.submit(match cursor {
                Some(cursor) => {
                    // A restart looks at messages from the durable head on, so this message has to be below it.
                    let head = state.cursors.get(&cursor).map_or(0, |cursor| cursor.durable_head());
                    let head = head.max(damaged.seq + 1);
                    let skipped = std::iter::once(damaged.seq..damaged.seq + 1).collect();
                    Command::Skip(cursor, Settlement { skipped, head, ..Settlement::default() })
                }
                None => Command::DropDelayed(
                    owner.queue.row.delay_queue(),
                    damaged.entered_ms.unwrap_or_default(),
                    damaged.seq,
                ),
            })
        };
        pending.outcome().await
    }
}
