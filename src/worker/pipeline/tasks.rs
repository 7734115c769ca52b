//! The runs of a batch's messages, in as few tasks as their handlers allow.
//!
//! A task of its own costs more than a quick handler. So one task begins the runs one after the other, and those that end without
//! waiting cost no further task. A run that waits keeps the task, and another goes on with those behind it: handlers that wait run side
//! by side. A handler that blocks its thread would hold up those behind it. Therefore each run has a task where handlers are not known
//! to be quick, and where one of the quick ones is not, the others go on elsewhere after [`INLINE_RUN_LIMIT`].
//!
//! What a task wakes is the next to run on its thread, and no other thread takes it over. So a task wakes nobody between two runs: it tells
//! of ends, and frees places, when it ends or waits. A handler that blocks would else block those who have to do without it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::worker::{
    limit::inflight::InflightPermit,
    pipeline::{
        context::Context,
        process::{self, Job},
    },
    settlement::ledger::Verdict,
};

/// How long those that have not begun wait for the handlers before them.
const INLINE_RUN_LIMIT: Duration = Duration::from_millis(1);

/// A message that is to be handled, with its place: that is held until the run has ended.
#[derive(Debug)]
pub(crate) struct QueuedJob {
    pub(crate) job: Job,
    pub(crate) permit: InflightPermit,
}

/// The end of a run.
pub(crate) struct RunEnd {
    pub(crate) position: usize,
    pub(crate) verdict: Verdict,
    /// Its place, until it is freed.
    permit: Option<InflightPermit>,
}

/// The runs of one batch.
pub(crate) struct BatchTasks {
    context: Arc<Context>,
    queue: Arc<TaskQueue>,
    /// How many have not ended, as far as was told.
    left: usize,
    /// When those that have not begun get tasks of their own.
    spawn_waiting_at: Option<Instant>,
}

/// What the tasks of a batch share.
#[derive(Default)]
struct TaskQueue {
    state: Mutex<QueueState>,
    changed: Notify,
}

#[derive(Default)]
struct QueueState {
    /// Those that have not begun, in their order.
    waiting: VecDeque<QueuedJob>,
    ended: VecDeque<RunEnd>,
}

impl BatchTasks {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, queue: Arc::default(), left: 0, spawn_waiting_at: None }
    }

    /// Begins some runs.
    pub(crate) fn begin(&mut self, jobs: Vec<QueuedJob>) {
        self.left += jobs.len();
        let tasks = if jobs.len() > 1 && self.context.has_quick_handlers() {
            self.spawn_waiting_at = Some(Instant::now() + INLINE_RUN_LIMIT);
            1
        } else {
            jobs.len()
        };
        self.queue.lock().waiting.extend(jobs);
        (0..tasks).for_each(|_| spawn_next(&self.context, &self.queue));
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// A run that has ended.
    pub(crate) fn ended(&mut self) -> Option<RunEnd> {
        let ended = self.queue.lock().ended.pop_front()?;
        self.left -= 1;
        Some(ended)
    }

    /// Waits for the end of a run; `None` when none is left. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<RunEnd> {
        while self.left > 0 {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            match self.spawn_waiting_at {
                None => self.queue.changed.notified().await,
                Some(spawn_waiting_at) => tokio::select! {
                    biased;
                    () = self.queue.changed.notified() => {}
                    () = sleep_until(spawn_waiting_at) => self.spawn_waiting(),
                },
            }
        }
        None
    }

    /// Gives each run that has not begun a task.
    pub(crate) fn spawn_waiting(&mut self) {
        if self.spawn_waiting_at.take().is_some() {
            let waiting = self.queue.lock().waiting.len();
            (0..waiting).for_each(|_| spawn_next(&self.context, &self.queue));
        }
    }
}

impl TaskQueue {
    fn next(&self) -> Option<QueuedJob> {
        self.lock().waiting.pop_front()
    }

    /// Frees the places of those that have ended, and tells their batch.
    fn notify(&self) {
        let freed: Vec<_> = self.lock().ended.iter_mut().filter_map(|ended| ended.permit.take()).collect();
        drop(freed);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has another task go on with what has not begun, if there is anything.
fn spawn_next(context: &Arc<Context>, queue: &Arc<TaskQueue>) {
    if !queue.lock().waiting.is_empty() {
        tokio::spawn(run_queue(context.clone(), queue.clone()));
    }
}

/// Begins runs until one waits, and sees that one to its end.
async fn run_queue(context: Arc<Context>, queue: Arc<TaskQueue>) {
    let _notify = NotifyOnDrop(&queue);
    while let Some(QueuedJob { job, permit }) = queue.next() {
        let mut ending = RunGuard {
            queue: &queue,
            position: job.delivery.position(),
            verdict: Verdict::Failed,
            permit: Some(permit),
        };
        let run = process::run(&context, job);
        tokio::pin!(run);
        match futures_util::poll!(&mut run) {
            Poll::Ready(verdict) => ending.verdict = verdict,
            Poll::Pending => {
                queue.notify();
                spawn_next(&context, &queue);
                ending.verdict = run.await;
                return;
            }
        }
    }
}

/// Tells of ends when a task ends, whatever ends it.
struct NotifyOnDrop<'a>(&'a TaskQueue);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify();
    }
}

/// Notes the end of a run, whatever it was: one that ends without a verdict has failed.
struct RunGuard<'a> {
    queue: &'a TaskQueue,
    position: usize,
    verdict: Verdict,
    permit: Option<InflightPermit>,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let Self { queue, position, verdict, .. } = *self;
        // Once the batch has taken this in, the place is free.
        queue.lock().ended.push_back(RunEnd { position, verdict, permit: self.permit.take() });
    }
}
