//! [`InflightLimiter`]: no message is fetched that cannot start at once.
//!
//! A poll reserves capacity for the messages it asks for, and for their bytes, before it is sent. The messages that
//! arrive turn into permits; the rest of the reservation is released. A permit is released when its message has been
//! handled. If the worker is a member of a [`SharedLimit`](crate::worker::limit::shared::SharedLimit), the reservation
//! holds capacity of both.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::{Mutex as Turn, Notify, watch};

use crate::{
    limits::MAX_BYTES,
    worker::limit::{
        acquire::acquire_up_to,
        shared::{Claim, Membership},
    },
};

/// A limit on the messages in flight, by number and by bytes.
#[derive(Debug)]
pub(crate) struct InflightLimiter {
    state: Mutex<LimiterState>,
    /// Notifies the poll whose turn it is.
    freed: Notify,
    /// Held by the one poll that waits for capacity. The others wait for the lock, so that freed capacity wakes one
    /// task and not all of them.
    turn: Turn<()>,
    membership: OnceLock<Arc<Membership>>,
    /// Reserved capacity that waits at the shared limit.
    waits_at_shared: AtomicUsize,
    /// Whether the limit is zero.
    shut: watch::Sender<bool>,
}

#[derive(Debug)]
struct LimiterState {
    max_messages: usize,
    max_bytes: usize,
    messages: usize,
    bytes: usize,
    /// Whether the bytes have reached their limit and have not fallen far enough below it since.
    bytes_exhausted: bool,
    /// Temporary lower limits, each of which ends when its [`ConcurrencyCap`] is dropped.
    caps: BTreeMap<u64, usize>,
    /// The amount that is enough for the waiting poll, if there is one.
    awaited: Option<usize>,
}

impl LimiterState {
    fn free(&mut self) -> usize {
        if !self.has_bytes() {
            return 0;
        }
        self.limit().saturating_sub(self.messages)
    }

    /// The limit, with all caps applied.
    fn limit(&self) -> usize {
        self.caps.values().copied().fold(self.max_messages, usize::min)
    }

    /// Whether the bytes of another poll fit in. At the limit, polls stop until a fifth of it is free again, because
    /// otherwise each large message that ends would cause a poll for a single message.
    fn has_bytes(&mut self) -> bool {
        let limit = if self.bytes_exhausted { self.max_bytes / 5 * 4 } else { self.max_bytes };
        // A poll may bring up to MAX_BYTES. One is allowed when nothing else is in flight, however small the limit.
        self.bytes_exhausted = self.bytes > 0 && self.bytes + MAX_BYTES > limit;
        !self.bytes_exhausted
    }

    /// Releases capacity. Returns whether to wake the waiting poll: for the first free capacity, and when there is
    /// enough.
    fn give_back(&mut self, change: impl FnOnce(&mut Self)) -> bool {
        let Some(enough) = self.awaited else {
            change(self);
            return false;
        };
        let before = self.free();
        change(self);
        let free = self.free();
        free > 0 && (before == 0 || free >= enough)
    }
}

impl InflightLimiter {
    /// A limit of `max_messages` messages and about `max_bytes` bytes of bodies in flight.
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Arc<Self> {
        let caps = BTreeMap::new();
        let state = LimiterState {
            max_messages,
            max_bytes,
            messages: 0,
            bytes: 0,
            bytes_exhausted: false,
            caps,
            awaited: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            freed: Notify::new(),
            turn: Turn::new(()),
            membership: OnceLock::new(),
            waits_at_shared: AtomicUsize::new(0),
            shut: watch::Sender::new(max_messages == 0),
        })
    }

    /// Makes later reservations take capacity of a shared limit, too, if this limiter does not share one already. Capacity that was
    /// taken before is not counted there.
    pub(crate) fn join(&self, membership: impl FnOnce() -> Arc<Membership>) {
        let _ = self.membership.get_or_init(membership);
    }

    /// Leaves the shared limit, because the worker has ended.
    pub(crate) fn leave(&self) {
        if let Some(membership) = self.membership.get() {
            membership.leave();
        }
    }

    /// Whether other workers share a limit with this one.
    pub(crate) fn is_shared(&self) -> bool {
        self.membership.get().is_some()
    }

    /// Waits for free capacity, of this limit and of the shared limit if there is one, and takes up to `want` messages
    /// of it.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it has taken nothing.
    pub(crate) async fn reserve(self: &Arc<Self>, want: usize) -> Reservation {
        let mut room = self.reserve_own(want).await;
        if let Some(membership) = self.membership.get() {
            // The own limit first: capacity of the shared one must not be held while this worker has no use for it.
            let waits = WaitsAtShared::new(&self.waits_at_shared, room.messages());
            let claim = membership.take(room.messages()).await;
            drop(waits);
            room.shrink(claim.messages());
            room.claim = Some(claim);
        }
        room
    }

    /// Waits for free capacity and takes up to `want` messages of it. When everything was taken, it waits a moment for
    /// a fifth of the limit, rather than polling for each message that is freed.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it has taken nothing.
    async fn reserve_own(self: &Arc<Self>, want: usize) -> Reservation {
        let _turn = self.turn.lock().await;
        acquire_up_to(&self.freed, |any| self.try_reserve(want, any)).await
    }

    /// Takes the free capacity if it is enough, or `any` will do. Otherwise returns how much is free.
    fn try_reserve(self: &Arc<Self>, want: usize, any: bool) -> Result<Reservation, usize> {
        let mut state = self.lock();
        let free = state.free().min(want);
        // A fifth of the limit is worth a request. Polling for each message that ends would cost a request for each
        // message.
        let enough = want.min(state.limit().div_ceil(5)).max(1);
        if free == 0 || (free < enough && !any) {
            // Kept for `give_back`, so that a message that ends wakes the waiting poll only if that is of use.
            state.awaited = Some(enough);
            return Err(free);
        }
        state.awaited = None;
        state.messages += free;
        // The poll may bring this much. The rest is given back once the sizes are known; reserving less would let
        // polls that are in flight together exceed the limit.
        state.bytes += MAX_BYTES;
        Ok(Reservation { limiter: Arc::clone(self), messages: free, bytes: MAX_BYTES, claim: None })
    }

    /// Changes the limit of messages. Messages above a lower limit are finished.
    pub(crate) fn set_max_messages(&self, max_messages: usize) {
        self.change_limit(|state| state.max_messages = max_messages);
    }

    /// Changes the limit of bytes. Messages above a lower limit are finished.
    pub(crate) fn set_max_bytes(&self, max_bytes: usize) {
        self.lock().max_bytes = max_bytes;
        self.freed.notify_waiters();
    }

    /// Limits the messages in flight to `messages` until the cap is dropped.
    pub(crate) fn cap_concurrency(self: &Arc<Self>, messages: usize) -> ConcurrencyCap {
        let number = self.change_limit(|state| {
            // A cap has a number, because several caps may have the same value and end at different times.
            let number = state.caps.keys().next_back().map_or(0, |last| last + 1);
            state.caps.insert(number, messages);
            number
        });
        ConcurrencyCap { limiter: Arc::clone(self), number }
    }

    /// Whether the limit is zero.
    pub(crate) fn is_shut(&self) -> bool {
        *self.shut.borrow()
    }

    /// Notifies of changes of [`is_shut`](Self::is_shut).
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.shut.subscribe()
    }

    fn change_limit<T>(&self, change: impl FnOnce(&mut LimiterState) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        let shut = state.limit() == 0;
        // Sent under the lock, so that the last change wins.
        self.shut.send_if_modified(|before| std::mem::replace(before, shut) != shut);
        drop(state);
        self.freed.notify_waiters();
        changed
    }

    /// The limit of messages.
    pub(crate) fn max_messages(&self) -> usize {
        self.lock().max_messages
    }

    /// Messages in flight, including the capacity that polls have reserved, but for capacity that still waits at the shared limit.
    pub(crate) fn in_flight(&self) -> usize {
        // The two numbers are not read together, so the difference may be off for a moment.
        self.lock().messages.saturating_sub(self.waits_at_shared.load(Relaxed))
    }

    fn release(&self, messages: usize, bytes: usize) {
        if (messages, bytes) == (0, 0) {
            return;
        }
        self.give_back(|state| {
            state.messages -= messages;
            state.bytes -= bytes;
        });
    }

    fn give_back(&self, change: impl FnOnce(&mut LimiterState)) {
        if self.lock().give_back(change) {
            self.freed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, LimiterState> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A temporary limit on a worker's messages in flight, from
/// [`WorkerHandle::cap_concurrency`](crate::worker::WorkerHandle::cap_concurrency). It ends when this is dropped.
#[derive(Debug)]
#[must_use = "the cap ends when this is dropped"]
pub struct ConcurrencyCap {
    limiter: Arc<InflightLimiter>,
    number: u64,
}

impl Drop for ConcurrencyCap {
    fn drop(&mut self) {
        self.limiter.change_limit(|state| state.caps.remove(&self.number));
    }
}

/// Counts capacity that waits at the shared limit, until this is dropped.
struct WaitsAtShared<'a> {
    count: &'a AtomicUsize,
    messages: usize,
}

impl<'a> WaitsAtShared<'a> {
    fn new(count: &'a AtomicUsize, messages: usize) -> Self {
        count.fetch_add(messages, Relaxed);
        Self { count, messages }
    }
}

impl Drop for WaitsAtShared<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(self.messages, Relaxed);
    }
}

/// The capacity of a poll in flight.
#[derive(Debug)]
pub(crate) struct Reservation {
    limiter: Arc<InflightLimiter>,
    messages: usize,
    bytes: usize,
    /// The same capacity of the shared limit, if there is one.
    claim: Option<Claim>,
}

impl Reservation {
    /// The number of messages that the poll may ask for.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// Releases all capacity but for `keep` messages.
    pub(crate) fn shrink(&mut self, keep: usize) {
        let surplus = self.messages.saturating_sub(keep);
        self.messages -= surplus;
        self.limiter.release(surplus, 0);
        if let Some(claim) = &mut self.claim {
            claim.shrink(keep);
        }
    }

    /// Turns the reservation into one permit for each message that arrived, by the size of its body, and releases the
    /// rest.
    pub(crate) fn into_permits(mut self, sizes: impl ExactSizeIterator<Item = usize>) -> Vec<InflightPermit> {
        let permit = |bytes| PermitState { bytes, freed: AtomicBool::new(false), claim: Mutex::new(None) };
        let mut permits: Vec<PermitState> = sizes.map(permit).collect();
        let (messages, bytes) = (permits.len(), permits.iter().map(|permit| permit.bytes).sum::<usize>());
        if let Some(claim) = self.claim.take() {
            let sizes: Vec<usize> = permits.iter().map(|permit| permit.bytes).collect();
            permits
                .iter_mut()
                .zip(claim.split(&sizes))
                .for_each(|(permit, claim)| permit.claim = Mutex::new(Some(claim)));
        }
        // The service may have sent more than was asked for. What arrived is counted, whatever the limits are.
        self.limiter.give_back(|state| {
            state.messages = state.messages + messages - self.messages;
            state.bytes = state.bytes + bytes - self.bytes;
        });
        (self.messages, self.bytes) = (0, 0);
        let permits = Arc::new(BatchPermits { limiter: self.limiter.clone(), permits });
        (0..messages).map(|position| InflightPermit { permits: permits.clone(), position }).collect()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.limiter.release(self.messages, self.bytes);
    }
}

/// The capacity of one message in flight. Dropping it releases the capacity.
#[derive(Debug)]
pub(crate) struct InflightPermit {
    permits: Arc<BatchPermits>,
    position: usize,
}

impl InflightPermit {
    /// The permits of the message's batch.
    pub(crate) fn batch(&self) -> &Arc<BatchPermits> {
        &self.permits
    }
}

impl Drop for InflightPermit {
    fn drop(&mut self) {
        self.permits.free(self.position);
    }
}

/// The permits of a consumed batch.
#[derive(Debug)]
pub(crate) struct BatchPermits {
    limiter: Arc<InflightLimiter>,
    permits: Vec<PermitState>,
}

#[derive(Debug)]
struct PermitState {
    bytes: usize,
    freed: AtomicBool,
    /// The same capacity of the shared limit, if there is one, until it is released.
    claim: Mutex<Option<Claim>>,
}

impl BatchPermits {
    /// Releases the capacity of the message at a position. Dropping its permit later releases nothing more.
    pub(crate) fn free(&self, position: usize) {
        let Some(PermitState { bytes, freed, claim }) = self.permits.get(position) else { return };
        // Once only: the batch frees the capacity of a stuck handler, and the permit is dropped when the handler ends
        // after all.
        if !freed.swap(true, Relaxed) {
            self.limiter.release(1, *bytes);
            drop(claim.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

#[cfg(test)]
mod tests;
