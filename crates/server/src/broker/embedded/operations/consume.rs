//! Consume calls: admitted, served, or waiting until something comes (API reference 5.3.2, 5.3.4).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    broker::{
        BrokerError, GroupPath, LeaseRequest, LeasedMessage, Stream,
        embedded::{
            command::{Admin, Work},
            core::Core,
            state::{
                State,
                cursor::{READ_AHEAD, Read, Reader, Take, Want},
                label_filter::LabelRule,
                lease::Lease,
                receipt::Minted,
            },
        },
    },
    store::{ReaderNo, StoreError, StreamNo},
};

/// The most messages of a batch: their positions are a byte of their tokens.
const MOST_MESSAGES: usize = 255;
/// The longest wait or lease; a longer one would be no different.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// A consume call that was let in; leaving gives its place free.
struct Poll {
    core: Arc<Core>,
    /// Whose messages it wants.
    reader: ReaderNo,
    /// As [`Reader::wake`].
    wake: Arc<Notify>,
    /// As [`Reader::read_done`].
    read_done: Arc<Notify>,
}

/// What one look at a reader gave.
enum Look {
    /// A batch; an empty one ends the call.
    Leased(Vec<LeasedMessage>),
    /// A read of the store is under way.
    Reading,
    /// The label rule passed over much; there may be more.
    More,
    /// Nothing is there now.
    Nothing,
}

/// Leases the next messages, waiting for a first one.
///
/// Dropping the call hands nothing out: nothing is awaited between taking messages and giving them.
pub(crate) async fn lease(
    core: &Arc<Core>,
    path: &GroupPath,
    stream: Stream,
    request: &LeaseRequest,
) -> Result<Vec<LeasedMessage>, BrokerError> {
    let until = after(request.wait);
    let poll = admit(core, path, stream, request).await?;
    loop {
        // Registered before looking: what comes between the look and the wait is not missed.
        let woken = poll.wake.notified();
        let read = poll.read_done.notified();
        tokio::pin!(woken, read);
        woken.as_mut().enable();
        read.as_mut().enable();
        match poll.look(path, stream, request)? {
            Look::Leased(messages) => return Ok(messages),
            Look::Reading => read.await,
            Look::More => tokio::task::yield_now().await,
            Look::Nothing => {
                if timeout_at(until, woken).await.is_err() {
                    return Ok(Vec::new());
                }
            }
        }
    }
}

/// Lets a call in: the group is there, the label rule is its rule, and it has not too many calls waiting.
///
/// The first consume of a group fixes its rule, durably, and then tries again to get in.
async fn admit(
    core: &Arc<Core>,
    path: &GroupPath,
    stream: Stream,
    request: &LeaseRequest,
) -> Result<Poll, BrokerError> {
    let rule = (stream == Stream::Messages).then(|| LabelRule::new(&request.filter));
    loop {
        let fixing = {
            let mut state = core.open()?;
            let (queue, number) = state.reader_of(path, stream, &core.at())?;
            let kafka = queue.row.mode.is_kafka();
            let reader = state.readers.get_mut(&number).ok_or(BrokerError::GroupNotFound)?;
            match (&rule, &reader.rule) {
                (Some(rule), _) if kafka && !rule.passes_all() => return Err(BrokerError::KafkaLabels),
                (Some(rule), Some(fixed)) if rule != fixed => {
                    return Err(BrokerError::FilterChanged(fixed.to_string()));
                }
                (Some(rule), None) if !kafka => core.submit(Work::Admin(Admin::FixRule(number, rule.clone()))),
                _ => return Poll::enter(core, number, reader),
            }
        };
        fixing.outcome().await?;
    }
}

impl Poll {
    fn enter(core: &Arc<Core>, number: ReaderNo, reader: &mut Reader) -> Result<Self, BrokerError> {
        if reader.polls >= core.config.max_polls_per_group {
            return Err(BrokerError::TooManyPolls(core.config.max_polls_per_group));
        }
        reader.polls += 1;
        let (wake, read_done) = (reader.wake.clone(), reader.read_done.clone());
        Ok(Self { core: core.clone(), reader: number, wake, read_done })
    }

    /// Looks once, and leases what is there.
    fn look(&self, path: &GroupPath, which: Stream, request: &LeaseRequest) -> Result<Look, BrokerError> {
        let mut guard = self.core.lock();
        let state = &mut *guard;
        if state.closed {
            return Ok(Look::Leased(Vec::new()));
        }
        let Some(reader) = state.readers.get_mut(&self.reader) else {
            // Deleted meanwhile: the queue, or the group alone.
            return state.reader_of(path, which, &self.core.at()).and(Err(BrokerError::GroupNotFound));
        };
        let stream = state.streams.get(&reader.stream).ok_or(BrokerError::GroupNotFound)?;
        if let Some(error) = reader.read_error.take() {
            return Err(BrokerError::Store(error.0));
        }
        if !reader.has_available(stream) {
            return Ok(Look::Nothing);
        }
        let most = self.core.config.max_leased_bytes;
        if !state.leased.admit(&path.project, self.reader, most) {
            return Err(BrokerError::TooMuchLeased(most));
        }
        let want = Want { messages: request.max_messages.clamp(1, MOST_MESSAGES), bytes: request.max_bytes };
        // Before anything is taken: what could not be handed out would be out for nobody.
        let minted = Minted::draw(want.messages);
        let minted = minted.map_err(|error| BrokerError::Store(StoreError::new(error).0))?;
        let head = reader.head();
        let taken = reader.take(stream, want);
        // The label rule may have passed over messages that were the last to wait for this group.
        let (passed, of) = (stream.keeping.when_settled && reader.head() != head, reader.stream);
        if let Some(skips) = reader.overdue_skips(stream.low) {
            self.core.submit(Work::Skip(self.reader, skips));
        }
        if passed && state.look_for_settled(of) {
            self.core.timer.notify_one();
        }
        match taken {
            Take::Nothing => Ok(Look::Nothing),
            Take::More => Ok(Look::More),
            Take::Missing(read) => {
                if let Some(reader) = state.readers.get_mut(&self.reader).filter(|reader| !reader.reading) {
                    self.fetch(reader, read);
                }
                Ok(Look::Reading)
            }
            Take::Batch(entries, skipped) => {
                // The leases of before are extended by a pause; this one begins after it.
                state.notice_pause();
                if state.deadlines.is_empty() {
                    self.core.heartbeat.notify_one();
                }
                let deadline = after(request.ack_wait);
                // What is in front of the head was out before.
                state.redeliveries += entries.iter().filter(|entry| entry.message.seq < head).count() as u64;
                let lease = state.lease((&path.project, self.reader), &minted, entries, skipped, deadline);
                let messages = lease.map(answer).unwrap_or_default();
                self.after_lease(state, deadline);
                Ok(Look::Leased(messages))
            }
        }
    }

    /// Begins to read from the store.
    fn fetch(&self, reader: &mut Reader, read: Read) {
        reader.reading = true;
        tokio::spawn(fetch(self.core.clone(), self.reader, reader.stream, read));
    }

    /// Passes the wake on if there is more, lets go of messages every reader has, and sees that the timer knows.
    fn after_lease(&self, state: &mut State, deadline: Instant) {
        let Some(reader) = state.readers.get_mut(&self.reader) else { return };
        let Some(stream) = state.streams.get_mut(&reader.stream) else { return };
        if reader.has_available(stream) {
            reader.wake.notify_one();
        }
        if let Some(read) = reader.read_ahead(stream) {
            self.fetch(reader, read);
        }
        let heads = stream.readers.iter().filter_map(|reader| state.readers.get(reader)).map(|reader| reader.head());
        stream.forget_below(heads.min().unwrap_or(stream.next));
        if state.timer_target.is_some_and(|target| deadline < target) {
            self.core.timer.notify_one();
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        if let Some(reader) = self.core.lock().readers.get_mut(&self.reader) {
            reader.polls = reader.polls.saturating_sub(1);
        }
    }
}

/// Brings messages from the store to their reader. A task of its own: the call that asked may go away meanwhile.
async fn fetch(core: Arc<Core>, number: ReaderNo, stream: StreamNo, read: Read) {
    let asked = read.clone();
    let found = core
        .read_store(move |store| match &asked {
            Read::From { place, .. } => store.read(stream, *place, READ_AHEAD),
            Read::These(seqs) => store.read_these(stream, seqs, READ_AHEAD.bytes),
        })
        .await;
    let mut state = core.lock();
    let Some(reader) = state.readers.get_mut(&number) else { return };
    reader.reading = false;
    match found {
        Ok(found) => {
            let damaged = found.damaged.clone();
            reader.fill(&read, found);
            reader.read_done.notify_waiters();
            state.tell_damaged(number, &damaged);
        }
        Err(error) => {
            tracing::debug!(%error, ?stream, "messages could not be read");
            reader.read_error = Some(error);
            reader.read_done.notify_waiters();
        }
    }
}

fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(LONGEST)
}

fn answer(lease: &Lease) -> Vec<LeasedMessage> {
    let leased = |(entry, handle): (
        &crate::broker::embedded::state::lease::Entry,
        crate::broker::embedded::state::receipt::Handle,
    )| LeasedMessage {
        json: entry.message.json.clone(),
        tags: entry.message.tags.clone(),
        handle: handle.encode(),
        sequence: entry.message.seq,
        failures: entry.failures,
        entered_ms: entry.message.entered_ms,
        dead_letter: entry.message.dead_letter.clone(),
    };
    lease.entries.iter().zip(lease.handles()).map(leased).collect()
}
