//! Messages on their way into one call of a batch handler: who is in it, who may still come, and when it begins.
//!
//! Every message keeps its own run with its permit, its lane, its deadline and its failure policy; only the call is shared. A run
//! takes a [`Slot`], joins when it is ready, and gets its own answer back. A message whose time is over, or whose batch is
//! acknowledged, leaves while the call has not begun; afterwards it ends the call for all.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::worker::handler::{batch::Collect, delivery::Delivery, outcome::CallOutcome};

/// A place where messages meet for a call, and then for the next one.
#[derive(Debug)]
pub(crate) struct Collector {
    kind: CollectorKind,
    state: Mutex<CollectorState>,
}

#[derive(Clone, Copy, Debug)]
enum CollectorKind {
    /// The messages of one consumed batch: complete when nobody else is coming.
    Consumed { in_order: bool },
    /// Whatever arrives.
    Collected(Collect),
}

#[derive(Debug, Default)]
struct CollectorState {
    /// Seats that may still be taken, where the messages of one batch meet.
    coming: usize,
    /// Where an order was broken: nobody behind this position may begin.
    broken_at: Option<usize>,
    open: OpenCall,
}

/// One call in the making.
#[derive(Debug, Default)]
struct OpenCall {
    number: u64,
    members: Vec<CallMember>,
    bytes: usize,
    /// When holding the first member for longer would be too long.
    linger_until: Option<Instant>,
    stop: CancellationToken,
}

/// A message in a call, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct CallMember {
    pub(crate) position: usize,
    pub(crate) delivery: Delivery,
    pub(crate) answer: oneshot::Sender<CallOutcome>,
}

/// A call that can begin.
#[derive(Debug)]
pub(crate) struct ReadyCall {
    pub(crate) members: Vec<CallMember>,
    /// Ends the call.
    pub(crate) stop: CancellationToken,
}

/// A message in a call that may not have begun.
#[derive(Debug)]
pub(crate) struct PendingCall {
    pub(crate) answer: oneshot::Receiver<CallOutcome>,
    /// Until when it waits for others, at most.
    pub(crate) linger_until: Option<Instant>,
    /// Ends the call that it is in.
    pub(crate) stop: CancellationToken,
    collector: Arc<Collector>,
    round: u64,
}

impl Collector {
    /// For the `messages` of one consumed batch. `in_order`: one that is not done keeps those behind it from counting.
    pub(crate) fn consumed(messages: usize, in_order: bool) -> Arc<Self> {
        let state = CollectorState { coming: messages, ..CollectorState::default() };
        Arc::new(Self { kind: CollectorKind::Consumed { in_order }, state: Mutex::new(state) })
    }

    /// For whatever arrives.
    pub(crate) fn collected(limits: Collect) -> Arc<Self> {
        Arc::new(Self { kind: CollectorKind::Collected(limits), state: Mutex::default() })
    }

    /// The seat of the message at `position` of its batch.
    pub(crate) fn slot(self: &Arc<Self>, position: usize) -> Slot {
        Slot { collector: self.clone(), position, counted: true }
    }

    /// Takes a message in, and gives the calls that can begin now: the one that it completes, or the one that it does not fit into.
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

    /// Begins the next round; gives the members of this one, if there are any.
    fn close(&self, state: &mut CollectorState) -> Option<ReadyCall> {
        let next = OpenCall { number: state.open.number + 1, ..OpenCall::default() };
        let OpenCall { mut members, stop, .. } = mem::replace(&mut state.open, next);
        let in_order = matches!(self.kind, CollectorKind::Consumed { in_order: true });
        members.sort_by_key(|member| member.position);
        if let Some(broken_at) = state.broken_at.filter(|_| in_order) {
            // Dropped, they learn that their handler was not called.
            members.retain(|member| member.position < broken_at);
        }
        (!members.is_empty()).then_some(ReadyCall { members, stop })
    }

    fn lock(&self) -> MutexGuard<'_, CollectorState> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message's right to join its gathering.
#[derive(Debug)]
pub(crate) struct Slot {
    collector: Arc<Collector>,
    position: usize,
    /// Whether the others of its batch wait for it.
    counted: bool,
}

impl Slot {
    /// Takes part. Gives the calls that can begin now.
    pub(crate) fn join(&mut self, delivery: Delivery) -> (PendingCall, Vec<ReadyCall>) {
        if !mem::replace(&mut self.counted, false) {
            self.collector.lock().coming += 1;
        }
        self.collector.join(self.position, delivery)
    }

    /// Takes part in a call of its own, and lets the others go without it.
    pub(crate) fn alone(&mut self, delivery: Delivery) -> (PendingCall, Vec<ReadyCall>) {
        let mut complete = Vec::from_iter(self.leave(true));
        let own = Collector::consumed(1, false);
        let (joined, begins) = own.join(self.position, delivery);
        complete.extend(begins);
        (joined, complete)
    }

    /// Lets the others go without it. `done` where nothing of an order is broken thereby.
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

    /// Lets the others go without it while it waits for something else, where that breaks no order.
    pub(crate) fn step_aside(&mut self) -> Option<ReadyCall> {
        match self.collector.kind {
            CollectorKind::Consumed { in_order: false } => self.leave(true),
            CollectorKind::Consumed { in_order: true } | CollectorKind::Collected(_) => None,
        }
    }
}

impl PendingCall {
    /// Begins the call although it is not complete, if that has not happened.
    pub(crate) fn close(&self) -> Option<ReadyCall> {
        let mut state = self.collector.lock();
        (state.open.number == self.round).then(|| self.collector.close(&mut state)).flatten()
    }

    /// Leaves the call if it has not begun. Says whether it could.
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
