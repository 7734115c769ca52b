//! The next time at which a lease, a delay or a retention ends, or a schedule ticks.

use tokio::time::Instant;

use crate::{
    broker::embedded::state::{BrokerState, retention::EXPIRY_INTERVAL},
    clock::Clock,
    store::{Damaged, StreamId},
};

/// The maximum number of messages that one step of retention deletes.
pub(crate) const MAX_EXPIRED: usize = 1_000;

impl BrokerState {
    /// When the timer has to look next.
    pub(crate) fn next_alarm(&self, clock: &Clock, wall: &Clock) -> Option<Instant> {
        // A lease whose end is being committed needs no alarm. If the commit fails, `roll_back` makes the timer look again.
        let lapse = self.deadlines.iter().find(|(_, cursor, lease)| !self.is_ending_or_gone(*cursor, *lease));
        let due = self
            .delay_queues
            .values()
            .filter_map(|delay_queue| delay_queue.next_due)
            .min()
            .map(|due| clock.instant_of(due));
        let expiry = self.streams.values().filter_map(|stream| {
            let at = clock.instant_of(stream.expires_ms()?);
            Some(stream.next_expiry_check.map_or(at, |look| look.max(at)))
        });
        let settled = self.streams.values().filter_map(|stream| stream.next_settled_check);
        let tick = self.schedules.next_ms().map(|at| wall.instant_of(at));
        lapse.map(|(deadline, ..)| *deadline).into_iter().chain(due).chain(expiry).chain(settled).chain(tick).min()
    }

    /// The delay queues with due messages, and their streams. When their next message is due is unknown until they have been read.
    pub(crate) fn take_due_delay_queues(&mut self, now_ms: i64) -> Vec<(StreamId, StreamId)> {
        let mut due = Vec::new();
        for (number, delay_queue) in &mut self.delay_queues {
            if delay_queue.next_due.is_some_and(|next| next <= now_ms) {
                delay_queue.next_due = None;
                due.push((*number, delay_queue.stream));
            }
        }
        due
    }

    /// Sets aside damaged messages that were found among the first of a delay queue. There may be more due messages after them.
    pub(crate) fn set_aside_due(&mut self, number: StreamId, damaged: Vec<Damaged>) {
        self.log_damaged_due(number, &damaged);
        if let Some(delay_queue) = self.delay_queues.get_mut(&number) {
            // Messages that were purged during the read no longer exist.
            let low = delay_queue.low;
            for one in damaged.into_iter().filter(|one| one.seq >= low) {
                delay_queue.look_at(one.entered_ms.unwrap_or_default());
                delay_queue.set_aside.add(one);
            }
        }
    }

    pub(crate) fn look_at_delay_queue(&mut self, delay_queue: StreamId, due: i64) {
        if let Some(delay_queue) = self.delay_queues.get_mut(&delay_queue) {
            delay_queue.look_at(due);
        }
    }

    /// The streams with expired messages: the first message of each, and the time up to which messages expire.
    pub(crate) fn take_expiring(&mut self, clock: &Clock) -> Vec<(StreamId, u64, i64)> {
        let (now, now_ms) = (Instant::now(), clock.now_ms());
        let mut expiring = Vec::new();
        for (number, stream) in &mut self.streams {
            let due = stream.expires_ms().is_some_and(|at| at <= now_ms);
            if due && stream.next_expiry_check.is_none_or(|look| look <= now) {
                stream.next_expiry_check = Some(now + EXPIRY_INTERVAL);
                expiring.push((*number, stream.low, now_ms.saturating_sub(stream.retention.retention_ms)));
            }
        }
        expiring
    }

    /// If the messages at the front of a stream count as having entered when the store was opened, and that was long enough ago,
    /// returns where the stream begins after one step of retention, and the entry time of the remaining messages.
    pub(crate) fn expire_by_bound(&mut self, stream: StreamId, low: u64, until_ms: i64) -> Option<(u64, i64)> {
        let stream = self.streams.get_mut(&stream)?;
        let bound = stream.entry_time_bound.filter(|bound| low < bound.below && bound.entered_ms <= until_ms)?;
        stream.next_expiry_check = None;
        Some((bound.below.min(low + MAX_EXPIRED as u64), bound.entered_ms))
    }

    /// Makes retention look at the stream again at once, because more messages have expired than one step deletes.
    pub(crate) fn check_expiry_again(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.next_expiry_check = None;
        }
    }
}
