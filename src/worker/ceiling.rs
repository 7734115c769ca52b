//! What the workers of a process share: a ceiling over the limits that each of them has, and how it is divided when it is scarce.
//!
//! Every worker is sure of one message in flight, whatever the others do: so nobody starves, and nobody waits for the long poll
//! of an idle worker. What the ceiling has beyond that goes to those that want it. When it does not suffice, the next place goes to
//! the worker that holds the least in proportion to its weight, in messages or in bytes, whichever is the larger part of the
//! ceiling; in strict order to the one with the largest weight.
//!
//! `State` decides and is pure; the rest waits, wakes and gives back.

use std::{
    cmp::Reverse,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as Turn, Notify};

use super::enough::until_enough;
use crate::limits::{MAX_BYTES, MAX_MESSAGES};

/// A whole ceiling in the fixed-point numbers in which shares of it are compared.
const WHOLE: u128 = 1 << 40;

/// In how many rounds at most places are dealt out.
const ROUNDS: usize = 256;

/// What stands for no limit on one side of a ceiling.
const UNLIMITED: usize = usize::MAX / 2;

/// How a ceiling is divided when it does not suffice for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sharing {
    /// In proportion to the weights of the workers that want something. The default.
    #[default]
    Weighted,
    /// The worker with the largest weight first, as much as it wants; equal ones alike. The others keep one place each.
    Strict,
}

/// A limit on what is in flight in all workers of a process.
#[derive(Debug)]
pub(crate) struct Ceiling {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    max_messages: usize,
    max_bytes: usize,
    sharing: Sharing,
    members: Vec<Member>,
}

/// One worker's part.
#[derive(Clone, Debug)]
struct Member {
    weight: u32,
    messages: usize,
    bytes: usize,
    /// For how many messages its polls wait.
    wants: usize,
}

impl Member {
    /// What it is counted with: at least the one poll that it is sure of.
    fn charge(&self) -> Room {
        Room { messages: self.messages.max(1), bytes: self.bytes.max(MAX_BYTES) }
    }

    /// What so many places more add to that. Every ten are a poll, which counts as the most that it can bring.
    fn cost(&self, dealt: usize, more: usize) -> Room {
        let polls = (dealt + more).div_ceil(MAX_MESSAGES) - dealt.div_ceil(MAX_MESSAGES);
        let after = Self { messages: self.messages + more, bytes: self.bytes + polls * MAX_BYTES, ..self.clone() };
        after.charge().less(self.charge())
    }

    fn take(&mut self, dealt: usize, more: usize) {
        let polls = (dealt + more).div_ceil(MAX_MESSAGES) - dealt.div_ceil(MAX_MESSAGES);
        self.messages += more;
        self.bytes += polls * MAX_BYTES;
    }
}

/// What a member has been dealt so far.
struct Hand {
    member: Member,
    dealt: usize,
}

impl Hand {
    /// What the next round for this member costs; more than there can be when it wants nothing more.
    fn next(&self, round: usize) -> Room {
        match round.min(self.member.wants.saturating_sub(self.dealt)) {
            0 => Room { messages: usize::MAX, bytes: usize::MAX },
            more => self.member.cost(self.dealt, more),
        }
    }

    fn deal(&mut self, round: usize) {
        let more = round.min(self.member.wants.saturating_sub(self.dealt));
        self.member.take(self.dealt, more);
        self.dealt += more;
    }
}

/// Messages, and bytes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    messages: usize,
    bytes: usize,
}

impl Room {
    fn less(self, other: Self) -> Self {
        Self { messages: self.messages.saturating_sub(other.messages), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn has(self, other: Self) -> bool {
        other.messages <= self.messages && other.bytes <= self.bytes
    }
}

impl State {
    /// How many messages a poll of a member may ask for now, beside all that wait.
    ///
    /// The places that are free are dealt out one after the other, each to the waiting member whose turn it is; many at once in
    /// rounds of some.
    fn grant(&self, to: usize, want: usize) -> usize {
        let mut free = Room { messages: self.max_messages, bytes: self.max_bytes };
        free = self.members.iter().fold(free, |free, member| free.less(member.charge()));
        let wanted: usize = self.members.iter().map(|member| member.wants).sum();
        let round = (free.messages.min(wanted) / ROUNDS).max(1);
        let mut hands: Vec<Hand> =
            self.members.iter().map(|member| Hand { member: member.clone(), dealt: 0 }).collect();
        while hands.get(to).is_some_and(|hand| hand.dealt < want) {
            let open = |hand: &&mut Hand| free.has(hand.next(round));
            let Some(next) = hands.iter_mut().filter(open).min_by_key(|hand| self.rank(&hand.member)) else { break };
            free = free.less(next.next(round));
            next.deal(round);
        }
        hands.get(to).map_or(0, |hand| hand.dealt.min(want))
    }

    /// Whose turn it is: the smallest first.
    fn rank(&self, member: &Member) -> (Reverse<u32>, u128) {
        let part = |held: usize, of: usize| held as u128 * WHOLE / of.max(1) as u128;
        let held = part(member.messages, self.max_messages).max(part(member.bytes, self.max_bytes));
        match self.sharing {
            Sharing::Weighted => (Reverse(0), held / u128::from(member.weight.max(1))),
            Sharing::Strict => (Reverse(member.weight), held),
        }
    }

    /// For how many places it is worth to wait a moment: a fifth of what the member has when all want something.
    fn enough(&self, of: usize) -> usize {
        let all: u128 = self.members.iter().map(|member| u128::from(member.weight)).sum();
        let own = self.members.get(of).map_or(0, |member| u128::from(member.weight));
        let share = self.max_messages as u128 * own / all.max(1);
        usize::try_from(share.div_ceil(5)).unwrap_or(1).max(1)
    }

    fn change(&mut self, of: usize, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(of) {
            change(member);
        }
    }

    fn is_wanted(&self) -> bool {
        self.members.iter().any(|member| member.wants > 0)
    }
}

impl Ceiling {
    /// At most so many messages and bytes of bodies in flight in all members; `None` is no limit.
    pub(crate) fn new(max_messages: Option<usize>, max_bytes: Option<usize>, sharing: Sharing) -> Arc<Self> {
        let (max_messages, max_bytes) = (max_messages.unwrap_or(UNLIMITED), max_bytes.unwrap_or(UNLIMITED));
        let state = State { max_messages, max_bytes, sharing, members: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), freed: Notify::new() })
    }

    /// Adds a member of this weight.
    pub(crate) fn join(self: &Arc<Self>, weight: u32) -> Arc<Share> {
        let mut state = self.lock();
        let member = state.members.len();
        state.members.push(Member { weight, messages: 0, bytes: 0, wants: 0 });
        drop(state);
        Arc::new(Share { ceiling: Arc::clone(self), member, turn: Turn::new(()) })
    }

    /// Messages in flight in all members, places that polls hold included.
    pub(crate) fn messages(&self) -> usize {
        self.lock().members.iter().map(|member| member.messages).sum()
    }

    /// The most messages that there may be; `None` without a limit.
    pub(crate) fn max_messages(&self) -> Option<usize> {
        Some(self.lock().max_messages).filter(|most| *most != UNLIMITED)
    }

    fn change(&self, of: usize, change: impl FnOnce(&mut Member)) {
        let mut state = self.lock();
        state.change(of, change);
        let wanted = state.is_wanted();
        drop(state);
        if wanted {
            self.freed.notify_waiters();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's membership.
#[derive(Debug)]
pub(crate) struct Share {
    ceiling: Arc<Ceiling>,
    member: usize,
    /// One poll of a worker waits at the ceiling; the others wait for it.
    turn: Turn<()>,
}

impl Share {
    /// Waits for places under the ceiling and takes up to `want` of them.
    ///
    /// Cancel-safe: dropped before it is done, it has taken nothing and wants nothing.
    pub(crate) async fn take(self: &Arc<Self>, want: usize) -> Held {
        // Wanted from here on, not only at its turn: what a worker wants as a whole decides about its part.
        let _wanting = self.want(want);
        let _turn = self.turn.lock().await;
        until_enough(&self.ceiling.freed, |any| self.try_take(want, any)).await
    }

    /// Takes what is granted, if that is enough or `any` will do; else says how much it is.
    fn try_take(self: &Arc<Self>, want: usize, any: bool) -> Result<Held, usize> {
        let mut state = self.ceiling.lock();
        let granted = state.grant(self.member, want);
        let enough = state.enough(self.member).min(want);
        if granted == 0 || (granted < enough && !any) {
            return Err(granted);
        }
        state.change(self.member, |member| {
            member.messages += granted;
            member.bytes += MAX_BYTES;
        });
        Ok(Held { share: Arc::clone(self), messages: granted, bytes: MAX_BYTES })
    }

    /// Messages of this member in flight, places that its polls hold included.
    pub(crate) fn messages(&self) -> usize {
        self.ceiling.lock().members.get(self.member).map_or(0, |member| member.messages)
    }

    fn want(&self, messages: usize) -> Wanting<'_> {
        self.ceiling.lock().change(self.member, |member| member.wants += messages);
        Wanting { share: self, messages }
    }
}

/// A poll that waits at the ceiling.
struct Wanting<'a> {
    share: &'a Share,
    messages: usize,
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        // What was kept for it is the others' now.
        self.share.ceiling.change(self.share.member, |member| member.wants -= self.messages);
    }
}

/// Places taken under a ceiling; dropping this gives them back.
#[derive(Debug)]
pub(crate) struct Held {
    share: Arc<Share>,
    messages: usize,
    bytes: usize,
}

impl Held {
    /// How many messages there is room for.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// Gives back all places but `keep`.
    pub(crate) fn shrink(&mut self, keep: usize) {
        let surplus = self.messages.saturating_sub(keep);
        if surplus > 0 {
            self.messages -= surplus;
            self.share.ceiling.change(self.share.member, |member| member.messages -= surplus);
        }
    }

    /// One place for each message that arrived, by the size of its body; the rest goes back.
    pub(crate) fn split(mut self, sizes: &[usize]) -> Vec<Self> {
        let (messages, bytes) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.bytes));
        // The service may have sent more than was asked for: what arrived is counted, whatever the ceiling says.
        self.share.ceiling.change(self.share.member, |member| {
            member.messages = member.messages + sizes.len() - messages;
            member.bytes = member.bytes + sizes.iter().sum::<usize>() - bytes;
        });
        let one = |bytes: &usize| Self { share: Arc::clone(&self.share), messages: 1, bytes: *bytes };
        sizes.iter().map(one).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (messages, bytes) = (self.messages, self.bytes);
        if (messages, bytes) != (0, 0) {
            self.share.ceiling.change(self.share.member, |member| {
                member.messages -= messages;
                member.bytes -= bytes;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::poll;

    use super::{super::enough::GATHER, *};

    fn ceiling(messages: usize, weights: &[u32], sharing: Sharing) -> (Arc<Ceiling>, Vec<Arc<Share>>) {
        let ceiling = Ceiling::new(Some(messages), None, sharing);
        let shares = weights.iter().map(|weight| ceiling.join(*weight)).collect();
        (ceiling, shares)
    }

    fn held(ceiling: &Ceiling) -> Vec<usize> {
        ceiling.lock().members.iter().map(|member| member.messages).collect()
    }

    /// Everybody wants ten at a time and holds each message for a while: what everybody holds after that, seen often.
    async fn crowd(ceiling: &Arc<Ceiling>, shares: &[Arc<Share>]) -> Vec<f64> {
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
            sums.iter_mut().zip(held(ceiling)).for_each(|(sum, held)| *sum += held as f64 / 500.0);
        }
        tasks.shutdown().await;
        sums
    }

    #[tokio::test(start_paused = true)]
    async fn a_scarce_ceiling_is_shared_by_weight() {
        let (ceiling, shares) = ceiling(70, &[4, 2, 1], Sharing::Weighted);
        let held = crowd(&ceiling, &shares).await;
        for (held, fair) in held.iter().zip([40.0, 20.0, 10.0]) {
            assert!((held / fair - 1.0).abs() < 0.15, "{held:?} instead of {fair}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(self::held(&ceiling), [0, 0, 0], "nothing leaks when polls are given up");
        assert!(!ceiling.lock().is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_alone_has_all_but_what_the_others_are_sure_of() {
        let (ceiling, shares) = ceiling(30, &[1, 5, 5], Sharing::Weighted);
        let held = crowd(&ceiling, &shares[..1]).await;
        assert!(held[0] > 26.0 && held[0] < 28.01, "{held:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_starves_behind_a_strict_order() {
        let (ceiling, shares) = ceiling(20, &[9, 1, 1], Sharing::Strict);
        let held = crowd(&ceiling, &shares).await;
        assert!(held[0] > 15.0, "the first takes what it wants: {held:?}");
        assert!(held[1] > 0.8 && held[2] > 0.8, "the others have their one place: {held:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_long_poll_holds_nobody_else() {
        let (_ceiling, shares) = ceiling(4, &[1, 1, 1, 1], Sharing::Weighted);
        let _idle: Vec<Held> = futures_util::future::join_all(shares.iter().take(3).map(|share| share.take(1))).await;
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
        let ceiling = Ceiling::new(None, Some(3 * MAX_BYTES), Sharing::Weighted);
        let (one, other) = (ceiling.join(1), ceiling.join(1));
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
        assert_eq!(held(&ceiling), [0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_that_stops_waiting_leaves_its_turn_to_others() {
        let (ceiling, shares) = ceiling(12, &[1, 9], Sharing::Weighted);
        let all = shares[0].take(11).await;
        let mut waiting = Box::pin(shares[1].take(10));
        let one = tokio::time::timeout(GATHER * 2, &mut waiting).await;
        assert_eq!(one.map(|held| held.messages()), Ok(1), "only its own place is free");
        let mut waiting = Box::pin(shares[1].take(10));
        let mut other = Box::pin(shares[0].take(1));
        assert!(poll!(&mut waiting).is_pending() && poll!(&mut other).is_pending());
        drop(all);
        drop(waiting);
        assert_eq!(other.await.messages(), 1);
        assert_eq!(held(&ceiling), [0, 0]);
    }
}
