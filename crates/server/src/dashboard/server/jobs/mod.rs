//! [`Jobs`]: redrives and discards of dead letters, in the background.
//!
//! A job acts on all dead letters of a group that its filter admits and that existed when it was prepared. Each dead letter is one
//! change of the broker, so a job can be stopped at any time: a message is where it was, or where it goes, and never at both places.
//! Redrives are kept in the data directory, or in PostgreSQL, and go on after a restart of the server. In a cluster another server goes
//! on with those of a server that is gone. Discards wait, so that they can be undone. A discard does not go on after a restart, because
//! nobody could undo it while the server was down: what is not discarded stays, and the job says so.

mod kept;
mod run;
mod shared;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::kept::Kept;
use crate::{broker::GroupPath, dashboard::server::filter::Filter};
use dms_protocol::queue::{GroupId, ProjectId, QueueId};

/// How long a discard can be undone.
pub(super) const UNDO: Duration = Duration::from_secs(60);
/// The number of ended jobs that are shown.
const MAX_ENDED: usize = 50;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Delivers dead letters to their group again.
    Redrive,
    /// Deletes them.
    Discard,
}

/// What a job is for. It is all that a restart needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) project: String,
    pub(super) queue: String,
    pub(super) group: String,
    /// The names of the queue and the group.
    pub(super) label: String,
    /// The path of the page of the group's dead letters.
    pub(super) page: String,
    pub(super) filter: Filter,
    /// Later dead letters are not touched.
    pub(super) up_to: u64,
    /// The number of dead letters that the dry run found.
    pub(super) expected: u64,
    /// Messages per second; 0 for as many as possible.
    pub(super) rate: u32,
    /// Who began it.
    pub(super) who: String,
    /// When it began, in Unix milliseconds.
    pub(super) began_ms: i64,
}

impl Order {
    pub(super) fn path(&self) -> GroupPath {
        GroupPath {
            project: ProjectId::from(self.project.as_str()),
            queue: QueueId::from(self.queue.as_str()),
            group: GroupId::from(self.group.as_str()),
        }
    }
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits until the time to undo it is over.
    Waiting,
    /// It runs.
    Running,
    /// It looked at everything.
    Done,
    /// It was cancelled, or undone.
    Cancelled,
    /// Another server of the cluster goes on with it.
    Moved,
    /// It is a discard whose server ended. Nothing was discarded if it had not begun; otherwise what is left stays.
    Interrupted {
        /// Whether something may have been discarded.
        has_begun: bool,
    },
    /// It cannot go on, because of this.
    Failed(String),
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) order: Order,
    /// Whether it was begun by a server that has ended since, and is continued here.
    pub(super) resumed: bool,
    /// Whether other servers of the cluster find it.
    is_shared: AtomicBool,
    done: AtomicU64,
    skipped: AtomicU64,
    state: Mutex<State>,
    starts: Option<Instant>,
    cancel: CancellationToken,
}

impl Job {
    fn new(order: Order, resumed: bool) -> Arc<Self> {
        let mut job = Self { resumed, ..Self::unstarted(order) };
        if job.order.kind == Kind::Discard {
            (job.starts, job.state) = (Some(Instant::now() + UNDO), Mutex::new(State::Waiting));
        }
        Arc::new(job)
    }

    fn unstarted(order: Order) -> Self {
        Self {
            order,
            resumed: false,
            is_shared: AtomicBool::new(false),
            done: AtomicU64::default(),
            skipped: AtomicU64::default(),
            state: Mutex::new(State::Running),
            starts: None,
            cancel: CancellationToken::new(),
        }
    }

    /// A discard that a server did not do, because it ended.
    fn interrupted(order: Order, has_begun: bool) -> Arc<Self> {
        let mut job = Self::unstarted(order);
        job.state = Mutex::new(State::Interrupted { has_begun });
        Arc::new(job)
    }

    /// The number of dead letters that it redrove or discarded.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// The number of dead letters that it left because a consumer holds them.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it can be cancelled or undone.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state(), State::Waiting | State::Running)
    }

    /// Whether another server goes on with it.
    fn has_moved(&self) -> bool {
        self.state() == State::Moved
    }

    /// The time until it begins.
    pub(super) fn waits(&self) -> Duration {
        self.starts.map_or(Duration::ZERO, |starts| starts.saturating_duration_since(Instant::now()))
    }

    /// Stops it. Nothing that it has done is taken back.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
        self.set(State::Cancelled);
    }

    /// Leaves it to another server.
    fn leave(&self) {
        self.set(State::Moved);
        self.cancel.cancel();
    }

    fn set(&self, new: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A cancelled job stays cancelled.
        if matches!(*state, State::Waiting | State::Running) {
            *state = new;
        }
    }
}

/// A job that another server of the cluster works on.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    pub(super) order: Order,
    /// The name of that server.
    pub(super) server: String,
}

/// The jobs of a server, newest first, and those of the other servers of its cluster.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    own: Mutex<Vec<Arc<Job>>>,
    elsewhere: Mutex<Vec<Elsewhere>>,
}

impl Jobs {
    /// All jobs, newest first.
    pub(super) fn all(&self) -> Vec<Arc<Job>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The jobs of other servers.
    pub(super) fn elsewhere(&self) -> Vec<Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The job with this id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.all().into_iter().find(|job| job.order.id == id)
    }

    /// The open job for a group, of which there is one at most.
    pub(super) fn open_for(&self, path: &GroupPath) -> Option<Arc<Job>> {
        self.all().into_iter().find(|job| job.is_open() && job.order.path() == *path)
    }

    /// The last job for a group, if it is a discard that was not done because its server ended.
    pub(super) fn interrupted_for(&self, path: &GroupPath) -> Option<Arc<Job>> {
        let last = self.all().into_iter().find(|job| job.order.path() == *path)?;
        Some(last).filter(|job| matches!(job.state(), State::Interrupted { .. }))
    }

    fn add(&self, job: &Arc<Job>) {
        let mut jobs = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(0, Arc::clone(job));
        let mut ended = 0;
        jobs.retain(|job| {
            ended += usize::from(!job.is_open());
            job.is_open() || ended <= MAX_ENDED
        });
    }

    /// Writes the jobs that a restart has to continue, or to report.
    fn keep(&self, directory: Option<&Path>) {
        let Some(directory) = directory else { return };
        // Locked while the file is written, so that an older list never replaces a newer one.
        let jobs = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |job: &Arc<Job>| Kept { order: job.order.clone(), has_begun: job.state() == State::Running };
        let open: Vec<_> = jobs.iter().filter(|job| job.is_open()).map(kept).collect();
        if let Err(error) = kept::write(directory, &open) {
            tracing::warn!(
                %error,
                "the redrives and discards in progress could not be written: a restart of the server ends them"
            );
        }
    }
}
