//! The runs of a batch's messages, in as few tasks as their handlers allow.
//!
//! A task of its own costs more than a quick handler. So one task begins the runs one after the other, and those that end without
//! waiting cost no further task. A run that waits keeps the task, and another goes on with those behind it: handlers that wait run side
//! by side. A handler that blocks its thread would hold up those behind it. Therefore each run has a task where handlers are not known
//! to be quick, and where one of the quick ones is not, the others go on elsewhere after [`HELD_UP`].
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
    limit::inflight::Permit,
    pipeline::{
        context::Shared,
        process::{self, Job},
    },
    settlement::ledger::Verdict,
};

/// How long those that have not begun wait for the handlers before them.
const HELD_UP: Duration = Duration::from_millis(1);

/// A message that is to be handled, with its place: that is held until the run has ended.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) job: Job,
    pub(crate) permit: Permit,
}

/// The end of a run.
pub(crate) struct Ended {
    pub(crate) position: usize,
    pub(crate) verdict: Verdict,
    /// Its place, until it is freed.
    permit: Option<Permit>,
}

/// The runs of one batch.
pub(crate) struct Runs {
    shared: Arc<Shared>,
    line: Arc<Line>,
    /// How many have not ended, as far as was told.
    left: usize,
    /// When those that have not begun get tasks of their own.
    spread_at: Option<Instant>,
}

/// What the tasks of a batch share.
#[derive(Default)]
struct Line {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Default)]
struct State {
    /// Those that have not begun, in their order.
    waiting: VecDeque<Placed>,
    ended: VecDeque<Ended>,
}

impl Runs {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, line: Arc::default(), left: 0, spread_at: None }
    }

    /// Begins some runs.
    pub(crate) fn begin(&mut self, jobs: Vec<Placed>) {
        self.left += jobs.len();
        let tasks = if jobs.len() > 1 && self.shared.has_quick_handlers() {
            self.spread_at = Some(Instant::now() + HELD_UP);
            1
        } else {
            jobs.len()
        };
        self.line.lock().waiting.extend(jobs);
        (0..tasks).for_each(|_| go_on(&self.shared, &self.line));
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// A run that has ended.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        let ended = self.line.lock().ended.pop_front()?;
        self.left -= 1;
        Some(ended)
    }

    /// Waits for the end of a run; `None` when none is left. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Ended> {
        while self.left > 0 {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            match self.spread_at {
                None => self.line.told.notified().await,
                Some(spread_at) => tokio::select! {
                    biased;
                    () = self.line.told.notified() => {}
                    () = sleep_until(spread_at) => self.spread(),
                },
            }
        }
        None
    }

    /// Gives each run that has not begun a task.
    pub(crate) fn spread(&mut self) {
        if self.spread_at.take().is_some() {
            let waiting = self.line.lock().waiting.len();
            (0..waiting).for_each(|_| go_on(&self.shared, &self.line));
        }
    }
}

impl Line {
    fn next(&self) -> Option<Placed> {
        self.lock().waiting.pop_front()
    }

    /// Frees the places of those that have ended, and tells their batch.
    fn tell(&self) {
        let freed: Vec<_> = self.lock().ended.iter_mut().filter_map(|ended| ended.permit.take()).collect();
        drop(freed);
        self.told.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has another task go on with what has not begun, if there is anything.
fn go_on(shared: &Arc<Shared>, line: &Arc<Line>) {
    if !line.lock().waiting.is_empty() {
        tokio::spawn(work(shared.clone(), line.clone()));
    }
}

/// Begins runs until one waits, and sees that one to its end.
async fn work(shared: Arc<Shared>, line: Arc<Line>) {
    let _telling = Telling(&line);
    while let Some(Placed { job, permit }) = line.next() {
        let mut ending =
            Ending { line: &line, position: job.delivery.position(), verdict: Verdict::Failed, permit: Some(permit) };
        let run = process::run(&shared, job);
        tokio::pin!(run);
        match futures_util::poll!(&mut run) {
            Poll::Ready(verdict) => ending.verdict = verdict,
            Poll::Pending => {
                line.tell();
                go_on(&shared, &line);
                ending.verdict = run.await;
                return;
            }
        }
    }
}

/// Tells of ends when a task ends, whatever ends it.
struct Telling<'a>(&'a Line);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.tell();
    }
}

/// Notes the end of a run, whatever it was: one that ends without a verdict has failed.
struct Ending<'a> {
    line: &'a Line,
    position: usize,
    verdict: Verdict,
    permit: Option<Permit>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Self { line, position, verdict, .. } = *self;
        // Once the batch has taken this in, the place is free.
        line.lock().ended.push_back(Ended { position, verdict, permit: self.permit.take() });
    }
}
