//! [`SharedLimit`]: a limit that the workers of a process share, in addition to the limit of each.
//!
//! Each worker may always have one message in flight, so that none starves and none waits for the long poll of an idle
//! worker. Capacity beyond that goes to workers that want it. If it is scarce, it goes to the waiting worker that holds
//! the least in proportion to its weight, in messages or in bytes, whichever is the larger part of the limit. With
//! strict sharing it goes to the worker with the largest weight. Among equals, the worker that has waited longest is
//! first.
//!
//! [`FairShare`](crate::worker::limit::fair_share::FairShare) decides and is pure; this file waits, wakes and releases.
//! A change wakes the first worker in the queue and the worker that has just released its last capacity, but never all of
//! them, because there may be a thousand.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, Notify};

use crate::{
    limits::MAX_BYTES,
    worker::limit::{
        acquire::acquire_up_to,
        fair_share::{FairShare, MemberState, Sharing},
    },
};

/// Stands for no limit of messages or bytes.
const UNLIMITED: usize = usize::MAX / 2;

/// A limit on the messages in flight of all workers of a process.
#[derive(Debug)]
pub(crate) struct SharedLimit(Mutex<SharedState>);

#[derive(Debug)]
struct SharedState {
    fair_share: FairShare,
    /// One for each member, for which one poll of the member waits.
    wakers: Vec<Arc<Notify>>,
    /// How often a poll has looked for capacity.
    #[cfg(test)]
    attempts: usize,
}

impl SharedState {
    /// Wakes the members that can take capacity after a change of this member.
    fn wake(&self, changed: usize) {
        let first = self.fair_share.first();
        for member in first.into_iter().chain((first != Some(changed)).then_some(changed)) {
            if self.fair_share.is_granted_any(member)
                && let Some(waker) = self.wakers.get(member)
            {
                // If the member does not wait yet, the notification is kept for it.
                waker.notify_one();
            }
        }
    }
}

impl SharedLimit {
    /// A limit of messages and of bytes of bodies in flight in all members; `None` is no limit.
    pub(crate) fn new(max_messages: Option<usize>, max_bytes: Option<usize>, sharing: Sharing) -> Arc<Self> {
        let (max_messages, max_bytes) = (or_unlimited(max_messages), or_unlimited(max_bytes));
        Arc::new(Self(Mutex::new(SharedState {
            fair_share: FairShare::new(max_messages, max_bytes, sharing),
            wakers: Vec::new(),
            #[cfg(test)]
            attempts: 0,
        })))
    }

    /// Changes the limit while members use it. Messages above a lower limit are finished.
    pub(crate) fn set(&self, max_messages: Option<usize>, max_bytes: Option<usize>, sharing: Sharing) {
        let mut state = self.lock();
        state.fair_share.set_limits(or_unlimited(max_messages), or_unlimited(max_bytes), sharing);
        // Any of them may have capacity now, and the order in which they get it may have changed.
        state.fair_share.waiting().filter_map(|member| state.wakers.get(member)).for_each(|waker| waker.notify_one());
    }

    /// Adds a member of this weight.
    pub(crate) fn join(self: &Arc<Self>, weight: u32) -> Arc<Membership> {
        let mut state = self.lock();
        let (member, waker) = (state.fair_share.join(weight), Arc::new(Notify::new()));
        match state.wakers.get_mut(member) {
            Some(vacant) => *vacant = Arc::clone(&waker),
            None => state.wakers.push(Arc::clone(&waker)),
        }
        drop(state);
        Arc::new(Membership { limit: Arc::clone(self), member, waker, turn: Turn::new(()) })
    }

    /// Messages in flight in all members, including the capacity that polls hold.
    #[cfg(test)]
    pub(crate) fn messages(&self) -> usize {
        self.lock().fair_share.messages()
    }

    /// The limit of messages, if there is one.
    pub(crate) fn max_messages(&self) -> Option<usize> {
        Some(self.lock().fair_share.max_messages()).filter(|most| *most != UNLIMITED)
    }

    /// The limit of bytes, if there is one.
    pub(crate) fn max_bytes(&self) -> Option<usize> {
        Some(self.lock().fair_share.max_bytes()).filter(|most| *most != UNLIMITED)
    }

    fn change(&self, of: usize, change: impl FnOnce(&mut MemberState)) {
        let mut state = self.lock();
        state.fair_share.change(of, change);
        state.wake(of);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SharedState> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn or_unlimited(limit: Option<usize>) -> usize {
    limit.unwrap_or(UNLIMITED)
}

/// The membership of one worker.
#[derive(Debug)]
pub(crate) struct Membership {
    limit: Arc<SharedLimit>,
    member: usize,
    waker: Arc<Notify>,
    /// Held by the one poll of the worker that waits at the shared limit.
    turn: Turn<()>,
}

impl Membership {
    /// Waits for capacity of the shared limit, and takes up to `want` messages of it.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it has taken nothing and wants nothing.
    pub(crate) async fn take(self: &Arc<Self>, want: usize) -> Claim {
        // Registered before its turn, because a worker's share depends on what all its polls want.
        let _demand = self.want(want);
        let _turn = self.turn.lock().await;
        acquire_up_to(&self.waker, |any| self.try_take(want, any)).await
    }

    /// Takes the granted capacity if it is enough, or `any` will do. Otherwise returns how much is granted.
    fn try_take(self: &Arc<Self>, want: usize, any: bool) -> Result<Claim, usize> {
        let mut state = self.limit.lock();
        #[cfg(test)]
        {
            state.attempts += 1;
        }
        let granted = state.fair_share.grant(self.member, want);
        let enough = state.fair_share.enough(self.member).min(want);
        if granted == 0 || (granted < enough && !any) {
            return Err(granted);
        }
        state.fair_share.take(self.member, granted);
        // There may be capacity left for the next member.
        state.wake(self.member);
        Ok(Claim { share: Arc::clone(self), messages: granted, bytes: MAX_BYTES })
    }

    /// Gives up the guaranteed message and the share, because the worker has ended. Capacity that it still holds
    /// stays counted until it is released.
    pub(crate) fn leave(&self) {
        let mut state = self.limit.lock();
        state.fair_share.leave(self.member);
        // Others may have room now.
        state.wake(self.member);
    }

    fn want(&self, messages: usize) -> Demand<'_> {
        self.limit.lock().fair_share.change(self.member, |member| member.wants += messages);
        Demand { share: self, messages }
    }
}

impl Drop for Membership {
    /// Claims keep their membership alive, so nothing is held any more.
    fn drop(&mut self) {
        let mut state = self.limit.lock();
        state.fair_share.vacate(self.member);
        state.wake(self.member);
    }
}

/// Registers what a poll wants while it waits at the shared limit.
struct Demand<'a> {
    share: &'a Membership,
    messages: usize,
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        // Capacity that was kept for it is available to others now.
        self.share.limit.change(self.share.member, |member| member.wants -= self.messages);
    }
}

/// Capacity of a shared limit. Dropping it releases the capacity.
#[derive(Debug)]
pub(crate) struct Claim {
    share: Arc<Membership>,
    messages: usize,
    bytes: usize,
}

impl Claim {
    /// The number of messages that there is capacity for.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// Releases all capacity but for `keep` messages.
    pub(crate) fn shrink(&mut self, keep: usize) {
        let surplus = self.messages.saturating_sub(keep);
        if surplus > 0 {
            self.messages -= surplus;
            self.share.limit.change(self.share.member, |member| member.messages -= surplus);
        }
    }

    /// Turns the claim into one for each message that arrived, by the size of its body, and releases the rest.
    pub(crate) fn split(mut self, sizes: &[usize]) -> Vec<Self> {
        let (messages, bytes) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.bytes));
        // The service may have sent more than was asked for. What arrived is counted, whatever the limit is.
        self.share.limit.change(self.share.member, |member| {
            member.messages = member.messages + sizes.len() - messages;
            member.bytes = member.bytes + sizes.iter().sum::<usize>() - bytes;
        });
        let one = |bytes: &usize| Self { share: Arc::clone(&self.share), messages: 1, bytes: *bytes };
        sizes.iter().map(one).collect()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (messages, bytes) = (self.messages, self.bytes);
        if (messages, bytes) != (0, 0) {
            self.share.limit.change(self.share.member, |member| {
                member.messages -= messages;
                member.bytes -= bytes;
            });
        }
    }
}

#[cfg(test)]
mod tests;
