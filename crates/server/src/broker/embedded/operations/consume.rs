//! Consume calls: admitted, answered, or waiting until messages arrive (API reference 5.3.2, 5.3.4).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    broker::{
        BrokerError, GroupPath, LeaseRequest, LeasedMessage, Stream,
        embedded::{
            command::{AdminCommand, Command},
            core::Core,
            state::{
                BrokerState,
                cursor::{BatchLimit, Cursor, PREFETCH, ReadRequest, Take, prefetch_among},
                label_filter::LabelFilter,
                lease::Lease,
                receipt::NewReceipts,
            },
        },
    },
    store::{CursorId, ReadLimit, StoreError, StreamId},
};

/// The maximum number of messages in a batch: the position in the batch is one byte of a receipt.
const MAX_MESSAGES: usize = 255;
/// The maximum wait and lease. Longer ones make no difference.
const MAX_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// A consume call that was admitted. Dropping it makes room for another one.
struct ConsumeCall {
    core: Arc<Core>,
    /// The cursor of the group.
    cursor: CursorId,
    /// As [`Cursor::wake`].
    wake: Arc<Notify>,
    /// As [`Cursor::read_done`].
    read_done: Arc<Notify>,
}

/// The result of one look at a cursor.
enum PollStep {
    /// A batch. An empty one ends the call.
    Leased(Vec<LeasedMessage>),
    /// A read of the store is under way.
    Reading,
    /// The label filter skipped many messages; there may be more.
    More,
    /// Nothing is available now.
    Nothing,
}

/// Leases the next messages, and waits for a first one.
///
/// # Cancel safety
/// A dropped call leases nothing, because it does not await between taking messages and returning them.
pub(crate) async fn lease(
    core: &Arc<Core>,
    path: &GroupPath,
    stream: Stream,
    request: &LeaseRequest,
) -> Result<Vec<LeasedMessage>, BrokerError> {
    let until = after(request.wait);
    let poll = admit(core, path, stream, request).await?;
    loop {
        // Registered before looking, so that messages which arrive between the look and the wait are not missed. A notification
        // that this call does not use goes to the next waiting call, when `woken` is dropped.
        let woken = poll.wake.notified();
        let read = poll.read_done.notified();
        tokio::pin!(woken, read);
        woken.as_mut().enable();
        read.as_mut().enable();
        match poll.look(path, stream, request)? {
            PollStep::Leased(messages) => return Ok(messages),
            PollStep::Reading => read.await,
            PollStep::More => tokio::task::yield_now().await,
            PollStep::Nothing => {
                if timeout_at(until, woken).await.is_err() {
                    return Ok(Vec::new());
                }
            }
        }
    }
}

/// Admits a call if the group exists, the label filter is the group's and not too many calls are waiting.
///
/// The first consume call of a group fixes its label filter, durably, and then tries again.
async fn admit(
    core: &Arc<Core>,
    path: &GroupPath,
    stream: Stream,
    request: &LeaseRequest,
) -> Result<ConsumeCall, BrokerError> {
    let rule = (stream == Stream::Messages).then(|| LabelFilter::new(&request.filter));
    loop {
        let fixing = {
            let mut state = core.open()?;
            let (queue, number) = state.cursor_of(path, stream)?;
            let kafka = queue.row.mode.is_kafka();
            let most_polls = state.config.max_polls_per_group;
            let cursor = state.cursors.get_mut(&number).ok_or(BrokerError::GroupNotFound)?;
            match (&rule, &cursor.rule) {
                (Some(rule), _) if kafka && !rule.passes_all() => return Err(BrokerError::KafkaLabels),
                (Some(rule), Some(fixed)) if rule != fixed => {
                    return Err(BrokerError::FilterChanged(fixed.to_string()));
                }
                (Some(rule), None) if !kafka => {
                    core.submit(Command::Admin(AdminCommand::FixRule(number, rule.clone())))
                }
                _ => return ConsumeCall::enter(core, number, cursor, most_polls),
            }
        };
        // Without the lock. Afterwards everything is checked again, because another call may have fixed another filter first.
        fixing.outcome().await?;
    }
}

impl ConsumeCall {
    fn enter(core: &Arc<Core>, number: CursorId, cursor: &mut Cursor, most_polls: usize) -> Result<Self, BrokerError> {
        if cursor.polls >= most_polls {
            return Err(BrokerError::TooManyPolls(most_polls));
        }
        cursor.polls += 1;
        let (wake, read_done) = (cursor.wake.clone(), cursor.read_done.clone());
        Ok(Self { core: core.clone(), cursor: number, wake, read_done })
    }

    /// Leases the messages that are available now, without waiting.
    fn look(&self, path: &GroupPath, which: Stream, request: &LeaseRequest) -> Result<PollStep, BrokerError> {
        let mut guard = self.core.lock();
        let state = &mut *guard;
        if state.closed {
            return Ok(PollStep::Leased(Vec::new()));
        }
        state.check_open()?;
        self.core.check_may_serve()?;
        let Some(cursor) = state.cursors.get_mut(&self.cursor) else {
            // The queue or the group was deleted while the call waited.
            return state.cursor_of(path, which).and(Err(BrokerError::GroupNotFound));
        };
        let stream = state.streams.get(&cursor.stream).ok_or(BrokerError::GroupNotFound)?;
        if let Some(error) = cursor.read_error.take() {
            return Err(error.into());
        }
        if !cursor.has_available(stream) {
            return Ok(PollStep::Nothing);
        }
        let most = state.config.max_leased_bytes;
        if !state.leased.admit(&path.project, self.cursor, most) {
            return Err(BrokerError::TooMuchLeased(most));
        }
        let want = BatchLimit { messages: request.max_messages.clamp(1, MAX_MESSAGES), bytes: request.max_bytes };
        // Before messages are taken: if there is no randomness, they must not be leased to a caller who gets an error.
        let new_receipts = NewReceipts::draw(want.messages);
        let new_receipts = new_receipts.map_err(StoreError::new)?;
        let head = cursor.head();
        let taken = cursor.take(stream, want);
        // The label filter may have skipped messages that were waiting for this group only.
        let (passed, of) = (stream.retention.when_settled && cursor.head() != head, cursor.stream);
        if let Some(skips) = cursor.overdue_skips(stream.low) {
            self.core.submit(Command::Skip(self.cursor, skips));
        }
        if passed && state.schedule_settled_check(of) {
            self.core.timer.notify_one();
        }
        match taken {
            Take::Nothing => Ok(PollStep::Nothing),
            Take::More => Ok(PollStep::More),
            Take::Missing(read) => {
                // One read at a time: all calls of the group wait for the same one.
                if let Some(cursor) = state.cursors.get_mut(&self.cursor).filter(|cursor| !cursor.reading) {
                    self.fetch(cursor, read, PREFETCH);
                }
                Ok(PollStep::Reading)
            }
            Take::Batch(entries, skipped) => {
                // First extends older leases by a pause of the process, which this new lease begins after.
                state.notice_pause();
                if state.deadlines.is_empty() {
                    self.core.heartbeat.notify_one();
                }
                let deadline = after(request.ack_wait);
                // Messages below the old head were leased before.
                state.redeliveries += entries.iter().filter(|entry| entry.message.seq < head).count() as u64;
                let term = (Some(self.core.clock.now_ms()), deadline);
                let lease = state.lease((&path.project, self.cursor), &new_receipts, entries, skipped, term);
                let messages = lease.map(answer).unwrap_or_default();
                self.after_lease(state, deadline);
                Ok(PollStep::Leased(messages))
            }
        }
    }

    /// Starts a read of the store.
    fn fetch(&self, cursor: &mut Cursor, read: ReadRequest, most: ReadLimit) {
        cursor.reading = true;
        tokio::spawn(fetch(self.core.clone(), self.cursor, cursor.stream, (read, most)));
    }

    /// Wakes the next waiting call if there is more, drops messages from memory that every cursor has passed, and tells the timer
    /// about an earlier deadline.
    fn after_lease(&self, state: &mut BrokerState, deadline: Instant) {
        let most = prefetch_among(state.cursors.len());
        let Some(cursor) = state.cursors.get_mut(&self.cursor) else { return };
        let Some(stream) = state.streams.get_mut(&cursor.stream) else { return };
        if cursor.has_available(stream) {
            cursor.wake.notify_one();
        }
        if let Some(read) = cursor.prefetch(stream, most) {
            self.fetch(cursor, read, most);
        }
        let heads = stream.cursors.iter().filter_map(|cursor| state.cursors.get(cursor)).map(|cursor| cursor.head());
        stream.forget_below(heads.min().unwrap_or(stream.next));
        if state.timer_target.is_some_and(|target| deadline < target) {
            self.core.timer.notify_one();
        }
    }
}

impl Drop for ConsumeCall {
    fn drop(&mut self) {
        if let Some(cursor) = self.core.lock().cursors.get_mut(&self.cursor) {
            cursor.polls = cursor.polls.saturating_sub(1);
        }
    }
}

/// Reads messages from the store for a cursor. Runs as a separate task, because the call that needed them may be dropped meanwhile.
async fn fetch(core: Arc<Core>, number: CursorId, stream: StreamId, (read, most): (ReadRequest, ReadLimit)) {
    let asked = read.clone();
    let found = core
        .read_store(move |store| match &asked {
            ReadRequest::From { place, .. } => store.read(stream, *place, most),
            ReadRequest::Sequences(seqs) => store.read_these(stream, seqs, most.bytes),
        })
        .await;
    let mut state = core.lock();
    let Some(cursor) = state.cursors.get_mut(&number) else { return };
    // First, whatever the result is, because a cursor that counts as reading would never read again.
    cursor.reading = false;
    match found {
        Ok(found) => {
            let damaged = found.damaged.clone();
            cursor.fill(&read, found);
            cursor.read_done.notify_waiters();
            state.log_damaged(number, &damaged);
        }
        Err(error) => {
            tracing::debug!(%error, stream = stream.0, "messages could not be read");
            // Kept for the next call that looks, because the call that asked for the read may be gone.
            cursor.read_error = Some(error);
            cursor.read_done.notify_waiters();
        }
    }
}

fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(MAX_WAIT)
}

fn answer(lease: &Lease) -> Vec<LeasedMessage> {
    let leased = |(entry, receipt): (
        &crate::broker::embedded::state::lease::LeasedEntry,
        crate::broker::embedded::state::receipt::Receipt,
    )| LeasedMessage {
        json: entry.message.json.clone(),
        tags: entry.message.tags.clone(),
        receipt: receipt.encode(),
        sequence: entry.message.seq,
        failures: entry.failures,
        entered_ms: entry.message.entered_ms,
        dead_letter: entry.message.dead_letter.clone(),
        origin: entry.message.origin,
    };
    lease.entries.iter().zip(lease.receipts()).map(leased).collect()
}
