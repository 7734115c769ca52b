//! The one task that watches the clocks: leases that lapse, delays that end, messages that were kept long enough.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    broker::{
        BrokerError,
        embedded::{
            command::Work,
            core::Core,
            operations::retention::drop_settled,
            state::{State, lease::Ending},
        },
    },
    clock::Clock,
    store::{Damaged, ReadLimit, ReaderNo, StreamNo},
};

/// The most leases of one piece of work, and the most bytes of their messages, which may all become dead letters.
const MOST_LEASES: ReadLimit = ReadLimit { messages: 1_000, bytes: 4 * 1024 * 1024 };
/// The most due messages of one piece of work.
const MOST_DUE: ReadLimit = ReadLimit { messages: 500, bytes: 4 * 1024 * 1024 };
/// The same while the store refuses something: what room there is on a full disk is used up to the end.
const LITTLE_DUE: ReadLimit = ReadLimit { messages: 500, bytes: 64 * 1024 };
/// The most expired messages of one piece of work.
const MOST_EXPIRED: usize = 1_000;
/// Retention looks at a stream no oftener than this: under steady traffic messages expire all the time.
pub(crate) const BETWEEN_EXPIRIES: Duration = Duration::from_secs(1);
/// How long to wait after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

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
            if error.is_told() {
                tracing::debug!(%error, "what is due will be tried again");
            } else {
                tracing::warn!(%error, "what is due will be tried again");
            }
            sleep(AFTER_FAILURE).await;
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
    let lapsed: Vec<_> = lapsed.into_iter().map(|lease| core.submit(Work::End(vec![lease]))).collect();
    for lease in lapsed {
        outcome = outcome.and(lease.outcome().await);
    }
    let lots = core.lock().take_due_lots(core.clock.now_ms());
    for (lot, stream) in lots {
        outcome = outcome.and(unpark(core, lot, stream).await);
    }
    let streams = core.lock().take_expiring(&core.clock);
    for (stream, low, until_ms) in streams {
        outcome = outcome.and(expire(core, stream, low, until_ms).await);
    }
    let settled = core.lock().take_settled(Instant::now());
    for stream in settled {
        outcome = outcome.and(drop_settled(core, stream).await);
    }
    outcome
}

/// Moves the messages of a lot that are due into their stream, by due time.
async fn unpark(core: &Core, lot: StreamNo, stream: StreamNo) -> Result<(), BrokerError> {
    let skip = core.lock().lots.get(&lot).map(|lot| lot.aside.places()).unwrap_or_default();
    let most = if core.health.refuses() { LITTLE_DUE } else { MOST_DUE };
    let found = core.read_store(move |store| store.first_due(lot, most, &skip)).await;
    let mut due = match found {
        Ok(found) => {
            core.lock().set_aside_due(lot, found.damaged);
            found.messages
        }
        Err(error) => {
            core.lock().look_at_lot(lot, core.clock.now_ms());
            return Err(BrokerError::Store(error.0));
        }
    };
    let now_ms = core.clock.now_ms();
    let later = due.split_off(due.partition_point(|message| message.entered_ms <= now_ms));
    // Where all that was read is due there may be more: the next look starts from the last one's time.
    if let Some(next) = later.first().or(due.last()) {
        core.lock().look_at_lot(lot, next.entered_ms);
    }
    if due.is_empty() {
        return Ok(());
    }
    core.submit(Work::Unpark { lot, stream, due }).outcome().await
}

/// Deletes messages from the front of a stream that entered before `until_ms`.
async fn expire(core: &Core, stream: StreamNo, low: u64, until_ms: i64) -> Result<(), BrokerError> {
    let bounded = core.lock().expire_bounded(stream, low, until_ms);
    if let Some((low, oldest)) = bounded {
        return core.submit(Work::Expire { stream, low, oldest: Some(oldest) }).outcome().await;
    }
    let entered = core.read_store(move |store| store.entered(stream, low, MOST_EXPIRED, until_ms)).await;
    let entered = entered.map_err(|error| BrokerError::Store(error.0))?;
    let expired = entered.partition_point(|(_, entered_ms)| *entered_ms <= until_ms);
    let kept = entered.get(expired);
    let oldest = kept.or(entered.last()).map(|(_, entered_ms)| *entered_ms);
    let low = match (kept, entered.last()) {
        (Some((seq, _)), _) => *seq,
        (None, Some((last, _))) => last + 1,
        (None, None) => return Ok(()),
    };
    if expired == MOST_EXPIRED {
        core.lock().look_again(stream);
    }
    core.submit(Work::Expire { stream, low, oldest }).outcome().await
}

impl State {
    /// When the next thing is due.
    fn next_alarm(&self, clock: &Clock) -> Option<Instant> {
        let lapse = self.deadlines.iter().find(|(_, reader, lease)| !self.is_settling(*reader, *lease));
        let due = self.lots.values().filter_map(|lot| lot.next_due).min().map(|due| clock.instant_of(due));
        let expiry = self.streams.values().filter_map(|stream| {
            let at = clock.instant_of(stream.expires_ms()?);
            Some(stream.next_look.map_or(at, |look| look.max(at)))
        });
        let settled = self.streams.values().filter_map(|stream| stream.settled_look);
        lapse.map(|(deadline, ..)| *deadline).into_iter().chain(due).chain(expiry).chain(settled).min()
    }

    /// Marks the leases that are over at `now` as settling.
    fn take_lapsed(&mut self, now: Instant) -> Vec<(ReaderNo, u64, Ending)> {
        let over = self.deadlines.iter().take_while(|(deadline, ..)| *deadline <= now);
        let open = over.filter(|(_, reader, lease)| !self.is_settling(*reader, *lease));
        let mut bytes = 0;
        let fits = |&&(_, reader, lease): &&(Instant, ReaderNo, u64)| {
            let fits = bytes < MOST_LEASES.bytes;
            bytes += self.bytes_of_lease(reader, lease);
            fits
        };
        let lapsed: Vec<_> = open
            .take(MOST_LEASES.messages)
            .take_while(fits)
            .map(|(_, reader, lease)| (*reader, *lease, Ending::Lapsed))
            .collect();
        for (reader, lease, _) in &lapsed {
            if let Some(lease) = self.readers.get_mut(reader).and_then(|reader| reader.leases.get_mut(lease)) {
                lease.settling = true;
            }
        }
        lapsed
    }

    fn bytes_of_lease(&self, reader: ReaderNo, lease: u64) -> usize {
        let lease = self.readers.get(&reader).and_then(|reader| reader.leases.get(&lease));
        lease.map_or(0, |lease| lease.footprint())
    }

    fn is_settling(&self, reader: ReaderNo, lease: u64) -> bool {
        self.readers.get(&reader).and_then(|reader| reader.leases.get(&lease)).is_none_or(|lease| lease.settling)
    }

    /// The lots with something due, with their streams. Their times are unknown until they have been looked at.
    fn take_due_lots(&mut self, now_ms: i64) -> Vec<(StreamNo, StreamNo)> {
        let mut due = Vec::new();
        for (number, lot) in &mut self.lots {
            if lot.next_due.is_some_and(|next| next <= now_ms) {
                lot.next_due = None;
                due.push((*number, lot.stream));
            }
        }
        due
    }

    /// Damaged messages were found among those of a lot that are due first. There may be more behind them.
    fn set_aside_due(&mut self, number: StreamNo, damaged: Vec<Damaged>) {
        self.tell_damaged_due(number, &damaged);
        if let Some(lot) = self.lots.get_mut(&number) {
            // What was purged during the read is gone.
            let low = lot.low;
            for one in damaged.into_iter().filter(|one| one.seq >= low) {
                lot.look_at(one.entered_ms.unwrap_or_default());
                lot.aside.add(one);
            }
        }
    }

    fn look_at_lot(&mut self, lot: StreamNo, due: i64) {
        if let Some(lot) = self.lots.get_mut(&lot) {
            lot.look_at(due);
        }
    }

    /// The streams with expired messages: where they begin, and the time up to which messages expired.
    fn take_expiring(&mut self, clock: &Clock) -> Vec<(StreamNo, u64, i64)> {
        let (now, now_ms) = (Instant::now(), clock.now_ms());
        let mut expiring = Vec::new();
        for (number, stream) in &mut self.streams {
            let due = stream.expires_ms().is_some_and(|at| at <= now_ms);
            if due && stream.next_look.is_none_or(|look| look <= now) {
                stream.next_look = Some(now + BETWEEN_EXPIRIES);
                expiring.push((*number, stream.low, now_ms.saturating_sub(stream.keeping.retention_ms)));
            }
        }
        expiring
    }

    /// Where a stream begins after one step, and with which time, if what is left of it counts as having entered at the opening of
    /// the store, and that was long enough ago.
    fn expire_bounded(&mut self, stream: StreamNo, low: u64, until_ms: i64) -> Option<(u64, i64)> {
        let stream = self.streams.get_mut(&stream)?;
        let bound = stream.bounded.filter(|bound| low < bound.below && bound.entered_ms <= until_ms)?;
        stream.next_look = None;
        Some((bound.below.min(low + MOST_EXPIRED as u64), bound.entered_ms))
    }

    /// More of a stream has expired than one step deletes.
    fn look_again(&mut self, stream: StreamNo) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.next_look = None;
        }
    }
}
