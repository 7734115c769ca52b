//! The one task that changes the stored data. It gathers waiting requests, has the store commit them together, then applies the
//! records to the state and answers.

use std::sync::{Arc, MutexGuard};

use tokio::sync::mpsc;

use crate::{
    broker::{
        AlreadyLogged, BrokerError,
        embedded::{
            command::{Command, CommandKind, Request},
            commit::prepare::Preparer,
            core::Core,
            health::watch,
            state::BrokerState,
        },
    },
    store::{Record, StoreError},
};

/// The maximum number of requests in one commit, so that no answer waits long.
const MAX_REQUESTS: usize = 2_000;
/// The maximum number of bytes in one commit.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Commits requests until one of them says stop, or every sender is gone.
pub(crate) async fn run(core: Arc<Core>, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut next = requests.recv().await;
    while let Some(first) = next.take() {
        let mut group = vec![first];
        if !group[0].command.commits_alone() {
            next = gather(&mut group, &mut requests);
        }
        let stop = matches!(group[0].command, Command::Stop);
        commit(&core, group).await;
        if stop {
            return;
        }
        if next.is_none() {
            next = requests.recv().await;
        }
    }
}

/// Adds requests that are waiting already. Returns a request that did not fit, for the next commit.
fn gather(group: &mut Vec<Request>, requests: &mut mpsc::UnboundedReceiver<Request>) -> Option<Request> {
    let mut bytes = group.iter().map(|request| request.command.bytes()).sum::<usize>();
    while group.len() < MAX_REQUESTS {
        // Only requests that have arrived already. Waiting for more would delay every answer, and requests gather during a sync anyway.
        let request = requests.try_recv().ok()?;
        bytes += request.command.bytes();
        if request.command.commits_alone() || bytes > MAX_BYTES {
            return Some(request);
        }
        group.push(request);
    }
    None
}

/// Commits a group and answers its requests. The state changes only after the commit, because a crash in between must not leave an
/// answer, or a lease, that rests on records which are not stored.
async fn commit(core: &Arc<Core>, group: Vec<Request>) {
    let (accepted, records) = prepare(core, group);
    match store(core, &accepted, &records).await {
        Ok(()) => {
            if !records.is_empty() {
                core.health.committed(kinds(&accepted));
            }
            let mut state = core.lock();
            state.apply(&records, &core.config);
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
            Box::pin(commit(core, rest)).await;
            Box::pin(commit(core, sends)).await;
        }
        // One request may be too large for the disk, or never acceptable, while the others are fine.
        Err(error) if accepted.len() > 1 => {
            tracing::debug!(%error, commands = accepted.len(), "the store could not commit these changes together; trying each alone");
            for request in accepted {
                Box::pin(commit(core, vec![request])).await;
            }
        }
        Err(error) => fail(core, accepted, error),
    }
    if core.store.needs_maintenance() {
        core.maintenance.notify_one();
    }
}

/// Answers requests whose commit failed, and undoes their reservations.
fn fail(core: &Core, requests: Vec<Request>, error: StoreError) {
    tracing::debug!(%error, "the store could not commit; nothing was changed");
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

async fn store(core: &Core, requests: &[Request], records: &Arc<Vec<Record>>) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let records = records.clone();
    let committed = core.ask_store(move |store| store.commit(&records));
    let stuck = || {
        core.health.commit_is_stuck(kinds(requests), core.clock.now_ms());
        core.maintenance.notify_one();
    };
    watch(committed, stuck).await
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
            error => BrokerError::Store(Arc::new(AlreadyLogged(error.cause().clone()))),
        };
        // The caller may be gone. The change is made anyway.
        request.reply.send(outcome.clone().map(|()| request.appended).map_err(logged));
    }
}

/// Turns a group into records. Commands that are refused are answered at once and left out.
fn prepare(core: &Core, group: Vec<Request>) -> (Vec<Request>, Arc<Vec<Record>>) {
    let mut state = core.lock();
    let mut preparer = Preparer::new(&state, &core.config, core.clock.now_ms());
    let mut accepted = Vec::with_capacity(group.len());
    let mut refused = Vec::new();
    let mut records = Vec::new();
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
    (accepted, Arc::new(records))
}
