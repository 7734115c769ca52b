//! How a ceiling is divided among its members: who is next, and for how many messages. Pure; a change costs the logarithm of the
//! number of members, and nothing looks at all of them.

use std::{cmp::Reverse, collections::BTreeSet};

use crate::limits::MAX_BYTES;

/// A whole ceiling in the fixed-point numbers in which shares of it are compared.
const WHOLE: u128 = 1 << 40;

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

/// What the members of a ceiling hold and want.
#[derive(Debug)]
pub(super) struct FairShare {
    max: Capacity,
    sharing: Sharing,
    members: Vec<MemberState>,
    /// The members that want something: the next one first.
    queue: BTreeSet<QueuePosition>,
    /// What all members together hold, those that hold nothing counted with their sure place.
    charged: Capacity,
    /// Messages in flight in all members.
    messages: usize,
    /// The weights of all members.
    weights: u64,
    /// The number of the next one that begins to wait.
    next_turn: u64,
}

/// One worker's part.
#[derive(Debug)]
pub(super) struct MemberState {
    weight: u32,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// For how many messages its polls wait.
    pub(super) wants: usize,
    /// When it began to wait, or last took something, in the order of all.
    turn: u64,
}

/// A place in the queue: whose turn it is is decided by the rank, then by the time of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueuePosition {
    rank: Rank,
    turn: u64,
    member: usize,
}

/// The smaller, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Where that comes first, the larger weight.
    weight: Reverse<u32>,
    /// What is held in proportion to the weight.
    held: u128,
}

/// Messages, and bytes of them.
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
    /// What it is counted with: at least the one poll that it is sure of.
    fn charge(&self) -> Capacity {
        Capacity { messages: self.messages.max(1), bytes: self.bytes.max(MAX_BYTES) }
    }

    /// Whether it may have one message whatever the others hold.
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
            queue: BTreeSet::new(),
            charged: Capacity { messages: 0, bytes: 0 },
            messages: 0,
            weights: 0,
            next_turn: 0,
        }
    }

    /// Adds a member, and returns its number.
    pub(super) fn join(&mut self, weight: u32) -> usize {
        let member = MemberState { weight, messages: 0, bytes: 0, wants: 0, turn: 0 };
        self.charged = self.charged.plus(member.charge());
        self.weights += u64::from(weight);
        self.members.push(member);
        self.members.len() - 1
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn max_messages(&self) -> usize {
        self.max.messages
    }

    pub(super) fn messages_of(&self, member: usize) -> usize {
        self.members.get(member).map_or(0, |member| member.messages)
    }

    /// The member whose turn it is.
    pub(super) fn first(&self) -> Option<usize> {
        self.queue.first().map(|place| place.member)
    }

    /// Whether a member wants something and would be granted it.
    pub(super) fn is_granted_any(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|of| of.wants > 0 && self.grant(member, of.wants) > 0)
    }

    /// For how many messages a poll of a member may ask now.
    ///
    /// The first in the queue gets what is free, up to where another's turn comes; the others get the place that they are sure of.
    pub(super) fn grant(&self, to: usize, want: usize) -> usize {
        let Some(member) = self.members.get(to) else { return 0 };
        let sure = usize::from(member.is_sure()).min(want);
        let mut queue = self.queue.iter();
        if queue.next().is_none_or(|place| place.member != to) {
            return sure;
        }
        let free = self.max.less(self.charged);
        // A poll counts as the most that it can bring.
        if free.bytes < (member.bytes + MAX_BYTES).saturating_sub(member.charge().bytes) {
            return 0;
        }
        let fair = queue.next().map_or(usize::MAX, |next| self.up_to(to, next.rank));
        want.min(free.messages + sure).min(fair.max(self.enough(to)))
    }

    /// How many more messages a member may have before it is the turn of one with this rank.
    fn up_to(&self, member: usize, rank: Rank) -> usize {
        let Some(of) = self.members.get(member) else { return 0 };
        if self.rank(of).weight != rank.weight {
            return usize::MAX;
        }
        let weight = match self.sharing {
            Sharing::Weighted => u128::from(of.weight.max(1)),
            Sharing::Strict => 1,
        };
        let level = rank.held.saturating_mul(weight).saturating_mul(self.max.messages as u128) / WHOLE;
        usize::try_from(level).unwrap_or(usize::MAX).saturating_sub(of.messages)
    }

    /// Notes that a poll of a member has taken places.
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
        self.queue.remove(&place);
        let Some(member) = self.members.get_mut(of) else { return };
        let (messages, charge, waited) = (member.messages, member.charge(), member.wants > 0);
        change(member);
        if !waited {
            member.turn = turn;
        }
        let wants = member.wants > 0;
        self.messages = self.messages + member.messages - messages;
        self.charged = self.charged.less(charge).plus(member.charge());
        if let Some(place) = self.place(of).filter(|_| wants) {
            self.queue.insert(place);
        }
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// Where a member stands, or would stand, in the queue.
    fn place(&self, member: usize) -> Option<QueuePosition> {
        let of = self.members.get(member)?;
        Some(QueuePosition { rank: self.rank(of), turn: of.turn, member })
    }

    fn rank(&self, member: &MemberState) -> Rank {
        let part = |held: usize, of: usize| held as u128 * WHOLE / of.max(1) as u128;
        let held = part(member.messages, self.max.messages).max(part(member.bytes, self.max.bytes));
        match self.sharing {
            Sharing::Weighted => Rank { weight: Reverse(0), held: held / u128::from(member.weight.max(1)) },
            Sharing::Strict => Rank { weight: Reverse(member.weight), held },
        }
    }

    /// For how many places it is worth to wait a moment: a fifth of what the member has when all want something.
    pub(super) fn enough(&self, of: usize) -> usize {
        let own = self.members.get(of).map_or(0, |member| u128::from(member.weight));
        let share = self.max.messages as u128 * own / u128::from(self.weights.max(1));
        usize::try_from(share.div_ceil(5)).unwrap_or(1).max(1)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.messages).collect()
    }

    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        !self.queue.is_empty()
    }
}
