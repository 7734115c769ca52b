//! The one task that watches the clocks: leases that lapse, delays that end, messages that were kept long enough.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    broker::{
        BrokerError,
        embedded::{
            command::Command,
            core::Core,
            operations::retention::drop_settled,
            state::{State, lease::LeaseEnd},
        },
    },
    clock::Clock,
    store::{CursorId, Damaged, ReadLimit, StreamId},
};

/// The most leases of one piece of work, and the most bytes of their messages, which may all become dead letters.
const MAX_LAPSED: ReadLimit = ReadLimit { messages: 1_000, bytes: 4 * 1024 * 1024 };
/// The most due messages of one piece of work.
const MAX_DUE: ReadLimit = ReadLimit { messages: 500, bytes: 4 * 1024 * 1024 };
/// The same while the store refuses something: what room there is on a full disk is used up to the end.
const MAX_DUE_WHEN_REFUSING: ReadLimit = ReadLimit { messages: 500, bytes: 64 * 1024 };
/// The most expired messages of one piece of work.
const MAX_EXPIRED: usize = 1_000;
/// Retention looks at a stream no oftener than this: under steady traffic messages expire all the time.
pub(crate) const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait after the store failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Watches until the task is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let target = {
            let mut state = core.lock();
            let target = state.next_alarm(&core.clock);
            state.timer_target = Some(target.unwrap_or_else(far_future));
            target
        };
        tokio::select! {
            () = sleep_until(target.unwrap_or_else(far_future)) => {}
            () = core.timer.notified() => {}
        }
        core.lock().timer_target = None;
        if let Err(error) = tick(&core).await {
            if error.is_already_logged() {
                tracing::debug!(%error, "what is due will be tried again");
            } else {
                tracing::warn!(%error, "what is due will be tried again");
            }
            sleep(RETRY_DELAY).await;
        }
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(30 * 86_400)
}

/// Does what is due, one bounded piece of each kind. What fails does not keep the rest from being done.
async fn tick(core: &Core) -> Result<(), BrokerError> {
    let mut outcome = Ok(());
    let lapsed = {
        let mut state = core.lock();
        state.notice_pause();
        state.take_lapsed(Instant::now())
    };
    // Each for itself: they are committed together, and on a full disk those that there is room for.
    let lapsed: Vec<_> = lapsed.into_iter().map(|lease| core.submit(Command::End(vec![lease]))).collect();
    for lease in lapsed {
        outcome = outcome.and(lease.outcome().await);
    }
    let delay_queues = core.lock().take_due_delay_queues(core.clock.now_ms());
    for (delay_queue, stream) in delay_queues {
        outcome = outcome.and(end_delays(core, delay_queue, stream).await);
    }
    let streams = core.lock().take_expiring(&core.clock);
    for (stream, low, until_ms) in streams {
        outcome = outcome.and(expire(core, stream, low, until_ms).await);
    }
    let settled = core.lock().take_due_settled_checks(Instant::now());
    for stream in settled {
        outcome = outcome.and(drop_settled(core, stream).await);
    }
    outcome
}

/// Moves the messages of a lot that are due into their stream, by due time.
async fn end_delays(core: &Core, delay_queue: StreamId, stream: StreamId) -> Result<(), BrokerError> {
    let skip = core
        .lock()
        .delay_queues
        .get(&delay_queue)
        .map(|delay_queue| delay_queue.set_aside.places())
        .unwrap_or_default();
    let most = if core.health.refuses() { MAX_DUE_WHEN_REFUSING } else { MAX_DUE };
    let found = core.read_store(move |store| store.first_due(delay_queue, most, &skip)).await;
    let mut due = match found {
        Ok(found) => {
            core.lock().set_aside_due(delay_queue, found.damaged);
            found.messages
        }
        Err(error) => {
            core.lock().look_at_delay_queue(delay_queue, core.clock.now_ms());
            return Err(BrokerError::Store(error.0));
        }
    };
    let now_ms = core.clock.now_ms();
    let later = due.split_off(due.partition_point(|message| message.entered_ms <= now_ms));
    // Where all that was read is due there may be more: the next look starts from the last one's time.
    if let Some(next) = later.first().or(due.last()) {
        core.lock().look_at_delay_queue(delay_queue, next.entered_ms);
    }
    if due.is_empty() {
        return Ok(());
    }
    core.submit(Command::EndDelays { delay_queue, stream, due }).outcome().await
}

/// Deletes messages from the front of a stream that entered before `until_ms`.
async fn expire(core: &Core, stream: StreamId, low: u64, until_ms: i64) -> Result<(), BrokerError> {
    let entry_time_bound = core.lock().expire_by_bound(stream, low, until_ms);
    if let Some((low, oldest)) = entry_time_bound {
        return core.submit(Command::Expire { stream, low, oldest: Some(oldest) }).outcome().await;
    }
    let entered = core.read_store(move |store| store.entered(stream, low, MAX_EXPIRED, until_ms)).await;
    let entered = entered.map_err(|error| BrokerError::Store(error.0))?;
    let expired = entered.partition_point(|(_, entered_ms)| *entered_ms <= until_ms);
    let kept = entered.get(expired);
    let oldest = kept.or(entered.last()).map(|(_, entered_ms)| *entered_ms);
    let low = match (kept, entered.last()) {
        (Some((seq, _)), _) => *seq,
        (None, Some((last, _))) => last + 1,
        (None, None) => return Ok(()),
    };
    if expired == MAX_EXPIRED {
        core.lock().check_expiry_again(stream);
    }
    core.submit(Command::Expire { stream, low, oldest }).outcome().await
}

impl State {
    /// When the next thing is due.
    fn next_alarm(&self, clock: &Clock) -> Option<Instant> {
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
        lapse.map(|(deadline, ..)| *deadline).into_iter().chain(due).chain(expiry).chain(settled).min()
    }

    /// Marks the leases that are over at `now` as settling.
    fn take_lapsed(&mut self, now: Instant) -> Vec<(CursorId, u64, LeaseEnd)> {
        let over = self.deadlines.iter().take_while(|(deadline, ..)| *deadline <= now);
        let open = over.filter(|(_, cursor, lease)| !self.is_ending_or_gone(*cursor, *lease));
        let mut bytes = 0;
        let fits = |&&(_, cursor, lease): &&(Instant, CursorId, u64)| {
            let fits = bytes < MAX_LAPSED.bytes;
            bytes += self.bytes_of_lease(cursor, lease);
            fits
        };
        let lapsed: Vec<_> = open
            .take(MAX_LAPSED.messages)
            .take_while(fits)
            .map(|(_, cursor, lease)| (*cursor, *lease, LeaseEnd::Lapsed))
            .collect();
        for (cursor, lease, _) in &lapsed {
            if let Some(lease) = self.cursors.get_mut(cursor).and_then(|cursor| cursor.leases.get_mut(lease)) {
                lease.is_ending = true;
            }
        }
        lapsed
    }

    fn bytes_of_lease(&self, cursor: CursorId, lease: u64) -> usize {
        let lease = self.cursors.get(&cursor).and_then(|cursor| cursor.leases.get(&lease));
        lease.map_or(0, |lease| lease.memory_bytes())
    }

    fn is_ending_or_gone(&self, cursor: CursorId, lease: u64) -> bool {
        self.cursors.get(&cursor).and_then(|cursor| cursor.leases.get(&lease)).is_none_or(|lease| lease.is_ending)
    }

    /// The lots with something due, with their streams. Their times are unknown until they have been looked at.
    fn take_due_delay_queues(&mut self, now_ms: i64) -> Vec<(StreamId, StreamId)> {
        let mut due = Vec::new();
        for (number, delay_queue) in &mut self.delay_queues {
            if delay_queue.next_due.is_some_and(|next| next <= now_ms) {
                delay_queue.next_due = None;
                due.push((*number, delay_queue.stream));
            }
        }
        due
    }

    /// Damaged messages were found among those of a lot that are due first. There may be more behind them.
    fn set_aside_due(&mut self, number: StreamId, damaged: Vec<Damaged>) {
        self.log_damaged_due(number, &damaged);
        if let Some(delay_queue) = self.delay_queues.get_mut(&number) {
            // What was purged during the read is gone.
            let low = delay_queue.low;
            for one in damaged.into_iter().filter(|one| one.seq >= low) {
                delay_queue.look_at(one.entered_ms.unwrap_or_default());
                delay_queue.set_aside.add(one);
            }
        }
    }

    fn look_at_delay_queue(&mut self, delay_queue: StreamId, due: i64) {
        if let Some(delay_queue) = self.delay_queues.get_mut(&delay_queue) {
            delay_queue.look_at(due);
        }
    }

    /// The streams with expired messages: where they begin, and the time up to which messages expired.
    fn take_expiring(&mut self, clock: &Clock) -> Vec<(StreamId, u64, i64)> {
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

    /// Where a stream begins after one step, and with which time, if what is left of it counts as having entered at the opening of
    /// the store, and that was long enough ago.
    fn expire_by_bound(&mut self, stream: StreamId, low: u64, until_ms: i64) -> Option<(u64, i64)> {
        let stream = self.streams.get_mut(&stream)?;
        let bound = stream.entry_time_bound.filter(|bound| low < bound.below && bound.entered_ms <= until_ms)?;
        stream.next_expiry_check = None;
        Some((bound.below.min(low + MAX_EXPIRED as u64), bound.entered_ms))
    }

    /// More of a stream has expired than one step deletes.
    fn check_expiry_again(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.next_expiry_check = None;
        }
    }
}
