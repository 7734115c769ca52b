//! [`Collector`]: collects messages for one call of a batch handler.
//!
//! Each message keeps its own run, with its permit, its key, its deadline and its failure policy; only the call is
//! shared. A run takes a [`Slot`], joins when it is ready, and receives its own outcome. If its time is over or its
//! batch is acknowledged, a message leaves the call as long as the call has not started; afterwards it ends the call
//! for all.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::worker::handler::{batch::Collect, delivery::Delivery, outcome::CallOutcome};

/// Collects messages for a call, and then for the next one.
#[derive(Debug)]
pub(crate) struct Collector {
    kind: CollectorKind,
    state: Mutex<CollectorState>,
}

#[derive(Clone, Copy, Debug)]
enum CollectorKind {
    /// The messages of one consumed batch. The call is complete when no other message will join.
    Consumed { in_order: bool },
    /// Messages of any batch.
    Collected(Collect),
}

#[derive(Debug, Default)]
struct CollectorState {
    /// Slots that may still be taken, for the messages of one batch.
    coming: usize,
    /// The first position at which the order was broken: no message after it may start.
    broken_at: Option<usize>,
    open: OpenCall,
}

/// The call that is being collected.
#[derive(Debug, Default)]
struct OpenCall {
    number: u64,
    members: Vec<CallMember>,
    /// The bytes of the bodies.
    bytes: usize,
    /// The end of the time that its first message may wait.
    linger_until: Option<Instant>,
    stop: CancellationToken,
}

/// A message in a call, and where its outcome goes.
#[derive(Debug)]
pub(crate) struct CallMember {
    pub(crate) position: usize,
    pub(crate) delivery: Delivery,
    pub(crate) answer: oneshot::Sender<CallOutcome>,
}

/// A call that can start.
#[derive(Debug)]
pub(crate) struct ReadyCall {
    pub(crate) members: Vec<CallMember>,
    /// Cancelled to end the call.
    pub(crate) stop: CancellationToken,
}

/// The view of one message on its call, which may not have started.
#[derive(Debug)]
pub(crate) struct PendingCall {
    pub(crate) answer: oneshot::Receiver<CallOutcome>,
    /// The end of the time that it waits for others.
    pub(crate) linger_until: Option<Instant>,
    /// Cancelled to end the call that it is in.
    pub(crate) stop: CancellationToken,
    collector: Arc<Collector>,
    round: u64,
}

impl Collector {
    /// Collects the `messages` of one consumed batch. If `in_order`, a message that is not done excludes those after
    /// it.
    pub(crate) fn consumed(messages: usize, in_order: bool) -> Arc<Self> {
        let state = CollectorState { coming: messages, ..CollectorState::default() };
        Arc::new(Self { kind: CollectorKind::Consumed { in_order }, state: Mutex::new(state) })
    }

    /// Collects messages of any batch.
    pub(crate) fn collected(limits: Collect) -> Arc<Self> {
        Arc::new(Self { kind: CollectorKind::Collected(limits), state: Mutex::default() })
    }

    /// The slot of the message at `position` of its batch.
    pub(crate) fn slot(self: &Arc<Self>, position: usize) -> Slot {
        Slot { collector: self.clone(), position, counted: true }
    }

    /// Adds a message, and returns the calls that can start now: the call that it completes, and the call that had no room
    /// for it.
    fn join(self: &Arc<Self>, position: usize, delivery: Delivery) -> (PendingCall, Vec<ReadyCall>) {
        let (send, answer) = oneshot::channel();
        let size = delivery.body().len();
        let mut state = self.lock();
        let mut complete = Vec::new();
        if let CollectorKind::Collected(limits) = self.kind
            && state.open.bytes + size > limits.max_bytes
        {
            complete.extend(self.close(&mut state));
        }
        if let CollectorKind::Consumed { .. } = self.kind {
            state.coming = state.coming.saturating_sub(1);
        }
        let OpenCall { number, members, bytes, linger_until, stop } = &mut state.open;
        members.push(CallMember { position, delivery, answer: send });
        *bytes += size;
        if let CollectorKind::Collected(limits) = self.kind {
            linger_until.get_or_insert_with(|| Instant::now() + limits.linger);
        }
        let joined = PendingCall {
            answer,
            linger_until: *linger_until,
            stop: stop.clone(),
            collector: self.clone(),
            round: *number,
        };
        if self.is_complete(&state) {
            complete.extend(self.close(&mut state));
        }
        (joined, complete)
    }

    fn is_complete(&self, state: &CollectorState) -> bool {
        match self.kind {
            CollectorKind::Consumed { .. } => state.coming == 0,
            CollectorKind::Collected(limits) => {
                state.open.members.len() >= limits.max_messages || state.open.bytes >= limits.max_bytes
            }
        }
    }

    /// Starts to collect the next call, and returns this one unless it is empty.
    fn close(&self, state: &mut CollectorState) -> Option<ReadyCall> {
        // Numbered, so that a message that withdraws late does not touch the call after its own.
        let next = OpenCall { number: state.open.number + 1, ..OpenCall::default() };
        let OpenCall { mut members, stop, .. } = mem::replace(&mut state.open, next);
        let in_order = matches!(self.kind, CollectorKind::Consumed { in_order: true });
        // Messages join when they are ready, in any order; the handler gets them in the order of their batch.
        members.sort_by_key(|member| member.position);
        if let Some(broken_at) = state.broken_at.filter(|_| in_order) {
            // Dropping a member tells its run that the handler was not called.
            members.retain(|member| member.position < broken_at);
        }
        (!members.is_empty()).then_some(ReadyCall { members, stop })
    }

    fn lock(&self) -> MutexGuard<'_, CollectorState> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of a message to join a call.
#[derive(Debug)]
pub(crate) struct Slot {
    collector: Arc<Collector>,
    position: usize,
    /// Whether the other messages of its batch wait for it.
    counted: bool,
}

impl Slot {
    /// Joins the call, and returns the calls that can start now.
    pub(crate) fn join(&mut self, delivery: Delivery) -> (PendingCall, Vec<ReadyCall>) {
        if !mem::replace(&mut self.counted, false) {
            // It had stepped aside, and counts again until it joins below.
            self.collector.lock().coming += 1;
        }
        self.collector.join(self.position, delivery)
    }

    /// Adds the message to a separate call, so that the others continue without it.
    pub(crate) fn join_own_call(&mut self, delivery: Delivery) -> (PendingCall, Vec<ReadyCall>) {
        let mut complete = Vec::from_iter(self.leave(true));
        let own = Collector::consumed(1, false);
        let (joined, begins) = own.join(self.position, delivery);
        complete.extend(begins);
        (joined, complete)
    }

    /// Lets the others continue without it. `done` if that breaks no order.
    pub(crate) fn leave(&mut self, done: bool) -> Option<ReadyCall> {
        let mut state = self.collector.lock();
        if !done {
            state.broken_at = Some(state.broken_at.map_or(self.position, |at| at.min(self.position)));
        }
        if mem::replace(&mut self.counted, false) {
            state.coming = state.coming.saturating_sub(1);
        }
        self.collector.is_complete(&state).then(|| self.collector.close(&mut state)).flatten()
    }

    /// Lets the others continue while the message waits for something else, if that breaks no order.
    pub(crate) fn step_aside(&mut self) -> Option<ReadyCall> {
        match self.collector.kind {
            CollectorKind::Consumed { in_order: false } => self.leave(true),
            CollectorKind::Consumed { in_order: true } | CollectorKind::Collected(_) => None,
        }
    }
}

impl PendingCall {
    /// Starts the call although it is not complete, unless it has started.
    pub(crate) fn close(&self) -> Option<ReadyCall> {
        let mut state = self.collector.lock();
        (state.open.number == self.round).then(|| self.collector.close(&mut state)).flatten()
    }

    /// Leaves the call unless it has started; returns whether it left.
    pub(crate) fn withdraw(&mut self) -> bool {
        let mut state = self.collector.lock();
        if state.open.number != self.round {
            return false;
        }
        self.answer.close();
        let OpenCall { members, bytes, .. } = &mut state.open;
        members.retain(|member| {
            let leaves = member.answer.is_closed();
            *bytes -= if leaves { member.delivery.body().len() } else { 0 };
            !leaves
        });
        true
    }
}
