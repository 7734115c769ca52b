//! [`BatchTasks`]: runs the messages of a batch in as few tasks as their handlers allow.
//!
//! A task costs more than a quick handler. So one task starts the runs one after the other, and runs that end without
//! waiting need no other task. If a run waits, its task stays with it, and another task continues with the remaining
//! messages, so handlers that wait run in parallel. A handler that blocks its thread would hold up the messages after
//! it. So each run gets its own task unless handlers are known to be quick, and if a quick handler is slow for once,
//! the other messages get tasks after a moment; see [`inline`](crate::worker::pipeline::inline).
//!
//! A task that another task wakes runs next on the same thread, and no other thread steals it. So a task wakes nobody
//! between two runs; it reports ends and releases permits when it ends or waits. Otherwise a handler that blocks would
//! also block the tasks that were woken.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use tokio::sync::Notify;

use crate::worker::{
    limit::inflight::InflightPermit,
    pipeline::{
        context::Context,
        inline::InlineRuns,
        process::{self, Job},
    },
    settlement::ledger::Verdict,
};

/// A message to be handled, with its permit, which is held until the run has ended.
#[derive(Debug)]
pub(crate) struct QueuedJob {
    pub(crate) job: Job,
    pub(crate) permit: InflightPermit,
}

/// The end of a run.
pub(crate) struct RunEnd {
    pub(crate) position: usize,
    pub(crate) verdict: Verdict,
    /// The permit, until it is released.
    permit: Option<InflightPermit>,
}

/// The runs of one batch.
pub(crate) struct BatchTasks {
    queue: Arc<TaskQueue>,
    /// The number of runs that have not been reported as ended.
    left: usize,
}

/// The state that the tasks of a batch share.
struct TaskQueue {
    context: Arc<Context>,
    state: Mutex<QueueState>,
    changed: Notify,
}

#[derive(Default)]
struct QueueState {
    /// Messages that have not started, in order.
    waiting: VecDeque<QueuedJob>,
    ended: VecDeque<RunEnd>,
}

impl BatchTasks {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let queue = TaskQueue { context, state: Mutex::default(), changed: Notify::new() };
        Self { queue: Arc::new(queue), left: 0 }
    }

    /// Starts runs.
    pub(crate) fn begin(&mut self, jobs: Vec<QueuedJob>) {
        self.left += jobs.len();
        let context = &self.queue.context;
        let share_a_task = jobs.len() > 1 && context.has_quick_handlers();
        let tasks = if share_a_task { 1 } else { jobs.len() };
        self.queue.lock().waiting.extend(jobs);
        if share_a_task {
            // Before the task of the runs is spawned: another thread cannot take over a task that was spawned last.
            let queue: Arc<dyn InlineRuns> = self.queue.clone();
            context.inline_batches.watch(Arc::downgrade(&queue));
        }
        (0..tasks).for_each(|_| spawn_next(&self.queue));
    }

    /// Whether all runs have ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Returns a run that has ended.
    pub(crate) fn ended(&mut self) -> Option<RunEnd> {
        let ended = self.queue.lock().ended.pop_front()?;
        self.left -= 1;
        Some(ended)
    }

    /// Waits for the end of a run; `None` if all have ended. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<RunEnd> {
        while self.left > 0 {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            self.queue.changed.notified().await;
        }
        None
    }

    /// Spawns a separate task for each message that has not started.
    pub(crate) fn spawn_waiting(&self) {
        self.queue.clone().spawn_waiting();
    }
}

impl InlineRuns for TaskQueue {
    fn are_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    fn spawn_waiting(self: Arc<Self>) {
        let waiting = self.lock().waiting.len();
        (0..waiting).for_each(|_| spawn_next(&self));
    }
}

impl TaskQueue {
    fn next(&self) -> Option<QueuedJob> {
        self.lock().waiting.pop_front()
    }

    /// Releases the permits of runs that have ended, and wakes the batch.
    fn notify(&self) {
        let freed: Vec<_> = self.lock().ended.iter_mut().filter_map(|ended| ended.permit.take()).collect();
        // Outside of the lock, because releasing capacity takes other locks and wakes the poller.
        drop(freed);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns a task for the messages that have not started, if there are any.
fn spawn_next(queue: &Arc<TaskQueue>) {
    if queue.are_waiting() {
        tokio::spawn(run_queue(queue.clone()));
    }
}

/// Runs messages until one waits, and that one to its end.
async fn run_queue(queue: Arc<TaskQueue>) {
    let _notify = NotifyOnDrop(&queue);
    while let Some(QueuedJob { job, permit }) = queue.next() {
        let mut ending = RunGuard {
            queue: &queue,
            position: job.delivery.position(),
            verdict: Verdict::Failed,
            permit: Some(permit),
        };
        // Not `tokio::pin`, which moves the future.
        let mut run = pin!(process::run(&queue.context, job));
        match futures_util::poll!(&mut run) {
            Poll::Ready(verdict) => ending.verdict = verdict,
            Poll::Pending => {
                // Before waiting: the runs that have ended must not wait for this one.
                queue.notify();
                spawn_next(&queue);
                ending.verdict = run.await;
                return;
            }
        }
    }
}

/// Reports ends when its task ends, for whatever reason.
struct NotifyOnDrop<'a>(&'a TaskQueue);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify();
    }
}

/// Records the end of a run. A run that ends without a verdict has failed.
struct RunGuard<'a> {
    queue: &'a TaskQueue,
    position: usize,
    verdict: Verdict,
    permit: Option<InflightPermit>,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let Self { queue, position, verdict, .. } = *self;
        // The capacity is free once the batch has taken this end.
        queue.lock().ended.push_back(RunEnd { position, verdict, permit: self.permit.take() });
    }
}
