//! [`FairShare`]: how a shared limit is divided among its members. Pure.
//!
//! It decides which member is next, and for how many messages. A change takes time logarithmic in the number of
//! members; nothing iterates over all of them.

use std::{cmp::Reverse, collections::BTreeSet};

use crate::limits::MAX_BYTES;

/// The whole limit, in the fixed-point numbers in which shares are compared.
const FULL_SHARE: u128 = 1 << 40;

/// How a shared limit is divided when it is scarce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sharing {
    /// In proportion to the weights of the workers that want capacity. The default.
    #[default]
    Weighted,
    /// The worker with the largest weight first, for as much as it wants; equal weights alike. The other workers keep
    /// one message each.
    Strict,
}

/// What the members of a shared limit hold and want.
#[derive(Debug)]
pub(super) struct FairShare {
    max: Capacity,
    sharing: Sharing,
    members: Vec<MemberState>,
    /// Places in `members` that belong to nobody, for the next members.
    vacant: Vec<usize>,
    /// The members that want capacity, the next one first.
    queue: BTreeSet<QueuePosition>,
    /// The capacity that is reserved for all members together.
    reserved: Capacity,
    /// Messages in flight in all members.
    messages: usize,
    /// The sum of the weights of all members.
    weights: u64,
    /// The turn of the next member that starts to wait.
    next_turn: u64,
}

/// The part of one worker.
#[derive(Debug)]
pub(super) struct MemberState {
    weight: u32,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// The number of messages that its polls wait for.
    pub(super) wants: usize,
    /// When it started to wait or last took something, in the order of all members.
    turn: u64,
    /// Whether its worker has ended. Then nothing is reserved beyond the capacity that it still holds.
    left: bool,
}

/// A position in the queue, ordered by rank and then by the time of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueuePosition {
    rank: Rank,
    turn: u64,
    member: usize,
}

/// Lower ranks come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// With strict sharing, the larger weight first.
    weight: Reverse<u32>,
    /// What the member holds, in proportion to its weight.
    used: u128,
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capacity {
    messages: usize,
    bytes: usize,
}

impl Capacity {
    fn less(self, other: Self) -> Self {
        Self { messages: self.messages.saturating_sub(other.messages), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn plus(self, other: Self) -> Self {
        Self { messages: self.messages.saturating_add(other.messages), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl MemberState {
    /// The capacity that is reserved for the member: the held capacity, and at least one poll until it has left.
    fn reserved(&self) -> Capacity {
        if self.left {
            return Capacity { messages: self.messages, bytes: self.bytes };
        }
        Capacity { messages: self.messages.max(1), bytes: self.bytes.max(MAX_BYTES) }
    }

    /// Whether the member holds nothing, so that it may have one message whatever the others hold.
    fn is_sure(&self) -> bool {
        self.messages == 0 && self.bytes == 0
    }
}

impl FairShare {
    pub(super) fn new(max_messages: usize, max_bytes: usize, sharing: Sharing) -> Self {
        Self {
            max: Capacity { messages: max_messages, bytes: max_bytes },
            sharing,
            members: Vec::new(),
            vacant: Vec::new(),
            queue: BTreeSet::new(),
            reserved: Capacity { messages: 0, bytes: 0 },
            messages: 0,
            weights: 0,
            next_turn: 0,
        }
    }

    /// Adds a member and returns its number.
    pub(super) fn join(&mut self, weight: u32) -> usize {
        let member = MemberState { weight, messages: 0, bytes: 0, wants: 0, turn: 0, left: false };
        self.reserved = self.reserved.plus(member.reserved());
        self.weights += u64::from(weight);
        // Numbers are used again, because a process that adds and removes workers for years must not grow with them.
        if let Some(place) = self.vacant.pop()
            && let Some(vacant) = self.members.get_mut(place)
        {
            *vacant = member;
            return place;
        }
        self.members.push(member);
        self.members.len() - 1
    }

    /// The worker of a member has ended: its guaranteed message and its weight no longer reduce the shares of others.
    pub(super) fn leave(&mut self, member: usize) {
        let Some(of) = self.members.get(member).filter(|member| !member.left) else { return };
        self.weights -= u64::from(of.weight);
        self.change(member, |member| member.left = true);
    }

    /// Nothing refers to a member any more, so its number is free for the next one.
    pub(super) fn vacate(&mut self, member: usize) {
        self.leave(member);
        self.vacant.push(member);
    }

    /// Changes the limits and how they are divided.
    pub(super) fn set_limits(&mut self, max_messages: usize, max_bytes: usize, sharing: Sharing) {
        (self.max, self.sharing) = (Capacity { messages: max_messages, bytes: max_bytes }, sharing);
        // The order of the queue depends on both.
        let waiting: Vec<usize> = self.waiting().collect();
        self.queue = waiting.into_iter().filter_map(|member| self.place(member)).collect();
    }

    /// The members that want capacity, the next one first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
        self.queue.iter().map(|place| place.member)
    }

    #[cfg(test)]
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn max_messages(&self) -> usize {
        self.max.messages
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max.bytes
    }

    /// The member that is next.
    pub(super) fn first(&self) -> Option<usize> {
        self.queue.first().map(|place| place.member)
    }

    /// Whether a member wants something and would be granted it.
    pub(super) fn is_granted_any(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|of| of.wants > 0 && self.grant(member, of.wants) > 0)
    }

    /// The number of messages that a poll of a member may ask for now.
    ///
    /// The first member in the queue gets the free capacity, up to the point where the next member would be first. The
    /// others get their guaranteed message.
    pub(super) fn grant(&self, to: usize, want: usize) -> usize {
        let Some(member) = self.members.get(to) else { return 0 };
        // Without this one message a worker could starve, or wait for the long poll of an idle one to end.
        let sure = usize::from(member.is_sure()).min(want);
        let mut queue = self.queue.iter();
        if queue.next().is_none_or(|place| place.member != to) {
            return sure;
        }
        let free = self.max.less(self.reserved);
        // A poll needs room for the most bytes that it can return.
        if free.bytes < (member.bytes + MAX_BYTES).saturating_sub(member.reserved().bytes) {
            return 0;
        }
        let fair = queue.next().map_or(usize::MAX, |next| self.up_to(to, next.rank));
        // At least as much as is worth a request: members on the same level would otherwise take single messages in
        // turn.
        want.min(free.messages + sure).min(fair.max(self.enough(to)))
    }

    /// The number of further messages that a member may have until a member of this rank would be before it.
    fn up_to(&self, member: usize, rank: Rank) -> usize {
        let Some(of) = self.members.get(member) else { return 0 };
        // With strict sharing a member with a smaller weight never comes first, however much this one holds.
        if self.rank(of).weight != rank.weight {
            return usize::MAX;
        }
        let weight = match self.sharing {
            Sharing::Weighted => u128::from(of.weight.max(1)),
            Sharing::Strict => 1,
        };
        let level = rank.used.saturating_mul(weight).saturating_mul(self.max.messages as u128) / FULL_SHARE;
        usize::try_from(level).unwrap_or(usize::MAX).saturating_sub(of.messages)
    }

    /// Records that a poll of a member has taken capacity.
    pub(super) fn take(&mut self, member: usize, messages: usize) {
        let turn = self.take_turn();
        self.change(member, |member| {
            member.messages += messages;
            member.bytes += MAX_BYTES;
            member.turn = turn;
        });
    }

    /// Changes what a member holds or wants.
    pub(super) fn change(&mut self, of: usize, change: impl FnOnce(&mut MemberState)) {
        let turn = self.take_turn();
        let Some(place) = self.place(of) else { return };
        // Removed before the change: the rank is the key in the queue, and the change may alter it.
        self.queue.remove(&place);
        let Some(member) = self.members.get_mut(of) else { return };
        let (messages, before, waited) = (member.messages, member.reserved(), member.wants > 0);
        change(member);
        // A member that waits already keeps its turn, or it would fall behind with each change.
        if !waited {
            member.turn = turn;
        }
        let wants = member.wants > 0;
        self.messages = self.messages + member.messages - messages;
        self.reserved = self.reserved.less(before).plus(member.reserved());
        if let Some(place) = self.place(of).filter(|_| wants) {
            self.queue.insert(place);
        }
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// The position that a member has, or would have, in the queue.
    fn place(&self, member: usize) -> Option<QueuePosition> {
        let of = self.members.get(member)?;
        Some(QueuePosition { rank: self.rank(of), turn: of.turn, member })
    }

    fn rank(&self, member: &MemberState) -> Rank {
        let part = |used: usize, of: usize| used as u128 * FULL_SHARE / of.max(1) as u128;
        // The larger of the two parts, because a member with a few large messages holds as much as one with many
        // small ones.
        let used = part(member.messages, self.max.messages).max(part(member.bytes, self.max.bytes));
        match self.sharing {
            Sharing::Weighted => Rank { weight: Reverse(0), used: used / u128::from(member.weight.max(1)) },
            Sharing::Strict => Rank { weight: Reverse(member.weight), used },
        }
    }

    /// The amount of capacity worth waiting for: a fifth of the member's share when all members want something.
    pub(super) fn enough(&self, of: usize) -> usize {
        let own = self.members.get(of).map_or(0, |member| u128::from(member.weight));
        let share = self.max.messages as u128 * own / u128::from(self.weights.max(1));
        usize::try_from(share.div_ceil(5)).unwrap_or(1).max(1)
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.messages).collect()
    }

    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        !self.queue.is_empty()
    }
}
