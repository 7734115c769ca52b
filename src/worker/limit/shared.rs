//! [`SharedLimit`]: a limit that the workers of a process share, in addition to the limit of each.
//!
//! Each worker may always have one message in flight, so that none starves and none waits for the long poll of an idle
//! worker. Capacity beyond that goes to workers that want it. If it is scarce, it goes to the waiting worker that holds
//! the least in proportion to its weight, in messages or in bytes, whichever is the larger part of the limit. With
//! strict sharing it goes to the worker with the largest weight. Among equals, the worker that has waited longest is
//! first.
//!
//! [`FairShare`](crate::worker::limit::fair_share::FairShare) decides and is pure; this file waits, wakes and releases.
//! A change wakes the first worker in the queue and the one that has just released its last capacity, but never all of
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
        let (max_messages, max_bytes) = (max_messages.unwrap_or(UNLIMITED), max_bytes.unwrap_or(UNLIMITED));
        Arc::new(Self(Mutex::new(SharedState {
            fair_share: FairShare::new(max_messages, max_bytes, sharing),
            wakers: Vec::new(),
            #[cfg(test)]
            attempts: 0,
        })))
    }

    /// Adds a member of this weight.
    pub(crate) fn join(self: &Arc<Self>, weight: u32) -> Arc<Membership> {
        let mut state = self.lock();
        let (member, waker) = (state.fair_share.join(weight), Arc::new(Notify::new()));
        state.wakers.push(Arc::clone(&waker));
        drop(state);
        Arc::new(Membership { limit: Arc::clone(self), member, waker, turn: Turn::new(()) })
    }

    /// Messages in flight in all members, including the capacity that polls hold.
    pub(crate) fn messages(&self) -> usize {
        self.lock().fair_share.messages()
    }

    /// The limit of messages, if there is one.
    pub(crate) fn max_messages(&self) -> Option<usize> {
        Some(self.lock().fair_share.max_messages()).filter(|most| *most != UNLIMITED)
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

    /// Messages of this member in flight, including the capacity that its polls hold.
    pub(crate) fn messages(&self) -> usize {
        self.limit.lock().fair_share.messages_of(self.member)
    }

    fn want(&self, messages: usize) -> Demand<'_> {
        self.limit.lock().fair_share.change(self.member, |member| member.wants += messages);
        Demand { share: self, messages }
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use futures_util::poll;

    use super::*;
    use crate::worker::limit::acquire::GATHER_TIME;

    fn limit(messages: usize, weights: &[u32], sharing: Sharing) -> (Arc<SharedLimit>, Vec<Arc<Membership>>) {
        let limit = SharedLimit::new(Some(messages), None, sharing);
        let shares = weights.iter().map(|weight| limit.join(*weight)).collect();
        (limit, shares)
    }

    fn held(limit: &SharedLimit) -> Vec<usize> {
        limit.lock().fair_share.held()
    }

    /// Every worker wants ten messages at a time and holds each for a while. Returns the average that each one holds.
    async fn crowd(limit: &Arc<SharedLimit>, shares: &[Arc<Membership>]) -> Vec<f64> {
        let mut tasks = tokio::task::JoinSet::new();
        for share in shares.iter().flat_map(|share| vec![Arc::clone(share); 8]) {
            tasks.spawn(async move {
                loop {
                    let polled = share.take(10).await;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let sizes = vec![600; polled.messages()];
                    for (at, one) in polled.split(&sizes).into_iter().enumerate() {
                        let takes = Duration::from_millis(100 + 13 * at as u64);
                        tokio::spawn(async move {
                            tokio::time::sleep(takes).await;
                            drop(one);
                        });
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut sums = vec![0.0; shares.len()];
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(7)).await;
            sums.iter_mut().zip(held(limit)).for_each(|(sum, held)| *sum += held as f64 / 500.0);
        }
        tasks.shutdown().await;
        sums
    }

    #[tokio::test(start_paused = true)]
    async fn a_scarce_limit_is_shared_by_weight() {
        let (limit, shares) = limit(70, &[4, 2, 1], Sharing::Weighted);
        let held = crowd(&limit, &shares).await;
        for (held, fair) in held.iter().zip([40.0, 20.0, 10.0]) {
            assert!((held / fair - 1.0).abs() < 0.15, "{held:?} instead of {fair}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(self::held(&limit), [0, 0, 0], "nothing leaks when polls are given up");
        assert!(!limit.lock().fair_share.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_alone_gets_all_but_the_guaranteed_messages_of_others() {
        let (limit, shares) = limit(30, &[1, 5, 5], Sharing::Weighted);
        let held = crowd(&limit, &shares[..1]).await;
        assert!(held[0] > 26.0 && held[0] < 28.01, "{held:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_worker_starves_with_strict_sharing() {
        let (limit, shares) = limit(20, &[9, 1, 1], Sharing::Strict);
        let held = crowd(&limit, &shares).await;
        assert!(held[0] > 15.0, "the first takes what it wants: {held:?}");
        assert!(held[1] > 0.8 && held[2] > 0.8, "the others have their one place: {held:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_long_poll_holds_no_other_worker_back() {
        let (_ceiling, shares) = limit(4, &[1, 1, 1, 1], Sharing::Weighted);
        let _idle: Vec<Claim> = futures_util::future::join_all(shares.iter().take(3).map(|share| share.take(1))).await;
        let last = shares[3].take(10).await;
        assert_eq!(last.messages(), 1, "its own place is there, and no other");
        let second = shares[3].take(10);
        tokio::pin!(second);
        assert!(poll!(&mut second).is_pending());
        drop(last);
        assert_eq!(second.await.messages(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_shared_as_messages_are() {
        let limit = SharedLimit::new(None, Some(3 * MAX_BYTES), Sharing::Weighted);
        let (one, other) = (limit.join(1), limit.join(1));
        let first = one.take(10).await;
        let second = one.take(10).await;
        let third = one.take(10);
        tokio::pin!(third);
        assert!(poll!(&mut third).is_pending(), "the last poll's worth is the other's");
        assert_eq!(other.take(10).await.messages(), 10);
        let messages = first.split(&[600, 700]);
        assert!(poll!(&mut third).is_pending(), "1300 bytes of a poll are still there");
        drop(messages);
        assert_eq!(third.await.messages(), 10);
        drop(second);
        assert_eq!(held(&limit), [0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_that_stops_waiting_passes_its_turn_on() {
        let (limit, shares) = limit(12, &[1, 9], Sharing::Weighted);
        let all = shares[0].take(11).await;
        let mut waiting = Box::pin(shares[1].take(10));
        let one = tokio::time::timeout(GATHER_TIME * 2, &mut waiting).await;
        assert_eq!(one.map(|held| held.messages()), Ok(1), "only its own place is free");
        let mut waiting = Box::pin(shares[1].take(10));
        let mut other = Box::pin(shares[0].take(1));
        assert!(poll!(&mut waiting).is_pending() && poll!(&mut other).is_pending());
        drop(all);
        drop(waiting);
        assert_eq!(other.await.messages(), 1);
        assert_eq!(held(&limit), [0, 0]);
    }

    /// A thousand workers wait for capacity. Released capacity wakes only the workers concerned, so the work of a
    /// change does not grow with their number, and each worker gets its turn.
    #[tokio::test(start_paused = true)]
    async fn a_change_wakes_few_of_a_thousand_workers_and_each_gets_its_turn() {
        const MEMBERS: usize = 1_000;
        let (limit, shares) = limit(MEMBERS + 100, &[1; MEMBERS], Sharing::Weighted);
        let served = Arc::new(Mutex::new(vec![0_usize; MEMBERS]));
        let mut tasks = tokio::task::JoinSet::new();
        // Three polls for each worker: one has the guaranteed message, and a hundred of the others share the rest.
        for (member, share) in shares.iter().enumerate().flat_map(|one| [one; 3]) {
            let (share, served) = (Arc::clone(share), Arc::clone(&served));
            tasks.spawn(async move {
                loop {
                    let held = share.take(1).await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    served.lock().unwrap()[member] += held.messages();
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        tasks.shutdown().await;
        let served = served.lock().unwrap().clone();
        let (changes, attempts) = (served.iter().sum::<usize>(), limit.lock().attempts);
        assert!(changes > 25_000, "the places are used: {changes}");
        assert!(attempts < 4 * changes, "{attempts} attempts for {changes} changes");
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        assert!(*most <= *least + 8, "each got about as much: {least} to {most}");
        assert_eq!((limit.messages(), limit.lock().fair_share.is_wanted()), (0, false));
    }
}
