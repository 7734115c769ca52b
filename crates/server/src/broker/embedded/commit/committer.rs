//! The one task that changes the stored data. It gathers waiting requests, has the store commit them together, then applies the
//! records to the state and answers.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;
use tracing::dispatcher;

use crate::{
    broker::{
        AlreadyLogged, BrokerError,
        embedded::{
            command::{Command, CommandKind, Request},
            commit::prepare::Preparer,
            core::Core,
            state::BrokerState,
        },
    },
    store::{Record, StoreError},
};

/// The maximum number of requests in one commit, so that no answer waits long.
const MAX_REQUESTS: usize = 2_000;
/// The maximum number of bytes in one commit.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Why the outcome of a change is not known.
const LOST_MEANWHILE: &str = "the queue moved to another server while it was being stored";

/// Commits requests until one of them says stop, or every sender is gone.
///
/// # Cancel safety
/// If the call is dropped, the requests that wait are answered at once, also while the store hangs, and no further commit begins.
pub(crate) async fn run(core: Arc<Core>, requests: mpsc::UnboundedReceiver<Request>) {
    let committer = Committer { core: core.clone(), open: Arc::new(Mutex::new(OpenRequests::new(requests))) };
    let _guard = AnswerOnDrop(committer.clone());
    while committer.wait().await {
        if !core.store.blocks() {
            committer.commit_next();
            continue;
        }
        let busy = committer.clone();
        // Its log lines go to the subscriber of this task, which may be set for this thread alone, as in tests.
        let log = dispatcher::get_default(Clone::clone);
        // For as long as requests are waiting, so that a busy broker does not change threads twice for each commit. Not a thread of our
        // own: under a paused clock time stands still while a blocking task of tokio runs.
        let commits = tokio::task::spawn_blocking(move || {
            dispatcher::with_default(&log, || while busy.has_next() && busy.commit_next() {});
        });
        let watched = core.health.watch_commits(commits, || core.clock.now_ms(), || core.maintenance.notify_one());
        if let Err(ended) = watched.await {
            match ended.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => return,
            }
        }
    }
}

/// Gathers waiting requests and commits them.
#[derive(Clone)]
struct Committer {
    core: Arc<Core>,
    open: Arc<Mutex<OpenRequests>>,
}

/// The requests that are not answered yet. Outside of the thread that commits, because that may hang.
#[derive(Default)]
struct OpenRequests {
    /// What the store is committing.
    storing: Vec<Request>,
    /// Groups that are committed next, each alone.
    groups: VecDeque<Vec<Request>>,
    /// A request that did not fit into the last group, or that was waited for.
    next: Option<Request>,
    /// Where requests arrive. `None` while one is waited for, and after the end.
    arriving: Option<mpsc::UnboundedReceiver<Request>>,
    /// Whether no commit may begin any more, except for one that is under way.
    is_stopped: bool,
}

/// Answers all requests when it is dropped.
struct AnswerOnDrop(Committer);

impl Drop for AnswerOnDrop {
    fn drop(&mut self) {
        let open = self.0.open().stop();
        // Outside of the lock. Requests that are dropped answer whether their change may have been made.
        drop(open);
    }
}

impl OpenRequests {
    fn new(arriving: mpsc::UnboundedReceiver<Request>) -> Self {
        Self { arriving: Some(arriving), ..Self::default() }
    }

    /// Lets no commit begin any more, and returns the requests.
    fn stop(&mut self) -> Self {
        std::mem::replace(self, Self { is_stopped: true, ..Self::default() })
    }

    /// Whether a request is waiting to be committed.
    fn has_next(&mut self) -> bool {
        if self.groups.is_empty() && self.next.is_none() {
            self.next = self.arriving.as_mut().and_then(|arriving| arriving.try_recv().ok());
        }
        !self.is_stopped && (!self.groups.is_empty() || self.next.is_some())
    }

    /// The next group.
    fn take_group(&mut self) -> Vec<Request> {
        self.groups.pop_front().or_else(|| self.gather()).unwrap_or_default()
    }

    /// The requests that have arrived already. One that does not fit is kept for the next group.
    fn gather(&mut self) -> Option<Vec<Request>> {
        let first = self.next.take()?;
        let mut bytes = first.command.bytes();
        let mut is_full = first.command.commits_alone();
        let mut group = vec![first];
        while !is_full && group.len() < MAX_REQUESTS {
            // Waiting for more would delay every answer, and requests gather during a sync anyway.
            let Some(request) = self.arriving.as_mut().and_then(|arriving| arriving.try_recv().ok()) else { break };
            bytes += request.command.bytes();
            if request.command.commits_alone() || bytes > MAX_BYTES {
                self.next = Some(request);
                is_full = true;
            } else {
                group.push(request);
            }
        }
        Some(group)
    }
}

impl Committer {
    fn open(&self) -> MutexGuard<'_, OpenRequests> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request. Returns whether there is one to commit.
    async fn wait(&self) -> bool {
        let mut arriving = {
            let mut open = self.open();
            if open.is_stopped || !open.groups.is_empty() || open.next.is_some() {
                return !open.is_stopped;
            }
            let Some(arriving) = open.arriving.take() else { return false };
            arriving
        };
        let next = arriving.recv().await;
        let mut open = self.open();
        (open.next, open.arriving) = (next, Some(arriving));
        open.next.is_some()
    }

    fn has_next(&self) -> bool {
        self.open().has_next()
    }

    /// Commits the requests that are waiting, and answers them. Returns whether another commit may begin.
    ///
    /// The state changes only after the commit, because a crash in between must not leave an answer, or a lease, that rests on
    /// records which are not stored.
    fn commit_next(&self) -> bool {
        let core = &*self.core;
        let Some(records) = self.prepare_next() else { return false };
        let committed = self.store(&records);
        let (accepted, may_go_on) = {
            let mut open = self.open();
            // Dropped meanwhile: the requests were answered, and the state is nobody's any more.
            if open.arriving.is_none() {
                return false;
            }
            (std::mem::take(&mut open.storing), !open.is_stopped)
        };
        match committed {
            Ok(()) => {
                if !records.is_empty() {
                    core.health.committed(kinds(&accepted));
                }
                let mut state = core.lock();
                let config = Arc::clone(&state.config);
                state.apply(&records, &config);
                answer(core, state, accepted, &Ok(()));
            }
            // Not one by one: another process may have changed the stored data, so nothing may be committed or answered any more.
            Err(error) if error.is_lost() => {
                core.lose(&error);
                fail(core, accepted, error);
            }
            // Changes without new messages need little room. They go together, so that a full disk costs one sync for all of them.
            Err(error) if error.is_full() && is_mixed(&accepted) => {
                let (sends, rest): (Vec<_>, Vec<_>) = accepted.into_iter().partition(is_send);
                self.again([rest, sends]);
            }
            // One request may be too large for the disk, or never acceptable, while the others are fine.
            Err(error) if accepted.len() > 1 => {
                tracing::debug!(%error, commands = accepted.len(), "the store could not commit these changes together; trying each alone");
                self.again(accepted.into_iter().map(|request| vec![request]));
            }
            Err(error) => fail(core, accepted, error),
        }
        if core.store.needs_maintenance() {
            core.maintenance.notify_one();
        }
        may_go_on
    }

    /// Turns the next group into records. `None` if the committer was stopped.
    fn prepare_next(&self) -> Option<Vec<Record>> {
        let mut open = self.open();
        // Dropped meanwhile.
        open.arriving.as_ref()?;
        let group = open.take_group();
        if group.iter().any(|request| matches!(request.command, Command::Stop)) {
            open.is_stopped = true;
        }
        let (accepted, records) = prepare(&self.core, group);
        open.storing = accepted;
        Some(records)
    }

    /// Has groups committed next, in this order. Their requests were not answered.
    fn again<I: IntoIterator<Item = Vec<Request>, IntoIter: DoubleEndedIterator>>(&self, groups: I) {
        let mut open = self.open();
        if !open.is_stopped {
            groups.into_iter().rev().for_each(|group| open.groups.push_front(group));
        }
    }

    fn store(&self, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let _running = self.core.health.begin_commit(kinds(&self.open().storing));
        // A panic of the store is a failure of this commit, not the end of the committer. It can leave nothing half done in this
        // process: what the store keeps in memory is behind its own locks.
        let committed = catch_unwind(AssertUnwindSafe(|| self.core.store.commit(records)));
        committed.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            Err(StoreError::new(format!("the store panicked: {}", text.unwrap_or("without a text"))))
        })
    }
}

/// Answers requests whose commit failed, and undoes their reservations.
fn fail(core: &Core, requests: Vec<Request>, error: StoreError) {
    let is_known = !matches!(error, StoreError::Unsure(_));
    tracing::debug!(%error, is_known, "the store could not commit; nothing was changed, if that is known");
    // A refused record says nothing about the store's health.
    if !matches!(error, StoreError::Refused(_)) {
        kinds(&requests).for_each(|kind| core.health.refused(kind, &error, core.clock.now_ms()));
        // Maintenance probes a store that fails, so that the server notices when it works again.
        core.maintenance.notify_one();
    }
    let mut state = core.lock();
    requests.iter().for_each(|request| state.roll_back(&request.command));
    answer(core, state, requests, &Err(error));
}

fn is_send(request: &Request) -> bool {
    request.command.kind() == CommandKind::Send
}

fn is_mixed(requests: &[Request]) -> bool {
    requests.iter().any(is_send) && !requests.iter().all(is_send)
}

fn kinds(requests: &[Request]) -> impl Iterator<Item = CommandKind> {
    requests.iter().map(|request| request.command.kind())
}

/// Answers requests after releasing the state, so that the callers find it unlocked when they wake.
fn answer(
    core: &Core,
    mut state: MutexGuard<'_, BrokerState>,
    requests: Vec<Request>,
    outcome: &Result<(), StoreError>,
) {
    if std::mem::take(&mut state.timer_is_stale) {
        core.timer.notify_one();
    }
    drop(state);
    for request in requests {
        let logged = |error: StoreError| match error {
            // A cluster makes the call at the next owner.
            StoreError::Fenced(_) => BrokerError::Unavailable,
            // The caller must not be told that nothing happened, and a cluster makes only those calls again that do no harm.
            StoreError::Unsure(_) => BrokerError::Unsure(LOST_MEANWHILE.into()),
            error => BrokerError::Store(Arc::new(AlreadyLogged(error.cause().clone()))),
        };
        // The caller may be gone. The change is made anyway.
        request.reply.send(outcome.clone().map(|()| request.appended).map_err(logged));
    }
}

/// Turns a group into records. Commands that are refused are answered at once and left out.
fn prepare(core: &Core, group: Vec<Request>) -> (Vec<Request>, Vec<Record>) {
    let mut state = core.lock();
    let mut preparer = Preparer::new(&state, &state.config, core.clock.now_ms());
    let mut accepted = Vec::with_capacity(group.len());
    let mut refused = Vec::new();
    // Most commands make one record, and records are large.
    let mut records = Vec::with_capacity(group.len());
    for mut request in group {
        match preparer.prepare(&request.command) {
            Ok(more) => {
                if is_send(&request) {
                    request.appended = preparer.appended(&more);
                }
                request.reply.begin();
                records.extend(more);
                accepted.push(request);
            }
            Err(error) => refused.push((request, error)),
        }
    }
    records.extend(preparer.sent_keys());
    // After the loop, because the preparer borrows the state.
    for (request, error) in refused {
        state.roll_back(&request.command);
        request.reply.send(Err(error));
    }
    (accepted, records)
}
