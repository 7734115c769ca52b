//! The one task that changes anything: gathers waiting work, has the store commit it as one, then applies and answers it.

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
            state::State,
        },
    },
    store::{Record, StoreError},
};

/// The most work of one commit, so that an answer does not wait long.
const MAX_REQUESTS: usize = 2_000;
/// The most bytes of one commit.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Commits until it is told to stop or nobody is left to ask.
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

/// Adds the work that waits already; gives the job that has to wait for the next commit.
fn gather(group: &mut Vec<Request>, requests: &mut mpsc::UnboundedReceiver<Request>) -> Option<Request> {
    let mut bytes = group.iter().map(|request| request.command.bytes()).sum::<usize>();
    while group.len() < MAX_REQUESTS {
        let request = requests.try_recv().ok()?;
        bytes += request.command.bytes();
        if request.command.commits_alone() || bytes > MAX_BYTES {
            return Some(request);
        }
        group.push(request);
    }
    None
}

/// Commits a group: everybody is answered after the commit, and the state changes only if it went well.
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
        // What makes room needs little of its own: it goes together, so that a full disk costs one sync for all of it.
        Err(error) if error.is_full() && is_mixed(&accepted) => {
            let (sends, rest): (Vec<_>, Vec<_>) = accepted.into_iter().partition(is_send);
            Box::pin(commit(core, rest)).await;
            Box::pin(commit(core, sends)).await;
        }
        // On a full disk what needs no room still goes: each for itself then.
        Err(error) if accepted.len() > 1 => {
            tracing::debug!(%error, commands = accepted.len(), "the store could not commit works together; trying each alone");
            for request in accepted {
                Box::pin(commit(core, vec![request])).await;
            }
        }
        Err(error) => {
            tracing::debug!(%error, "the store could not commit; nothing was changed");
            kinds(&accepted).for_each(|kind| core.health.refused(kind, &error, core.clock.now_ms()));
            // Looks from time to time whether it could.
            core.maintenance.notify_one();
            let mut state = core.lock();
            accepted.iter().for_each(|request| state.roll_back(&request.command));
            answer(core, state, accepted, &Err(error));
        }
    }
    if core.store.needs_maintenance() {
        core.maintenance.notify_one();
    }
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
        core.health.is_stuck(kinds(requests), core.clock.now_ms());
        core.maintenance.notify_one();
    };
    watch(committed, stuck).await
}

/// Answers everybody once the state can be looked at again.
fn answer(core: &Core, mut state: MutexGuard<'_, State>, requests: Vec<Request>, outcome: &Result<(), StoreError>) {
    if std::mem::take(&mut state.timer_is_stale) {
        core.timer.notify_one();
    }
    drop(state);
    for request in requests {
        // Nobody may be waiting any more: the work is done all the same.
        let _ =
            request.reply.send(outcome.clone().map_err(|error| BrokerError::Store(Arc::new(AlreadyLogged(error.0)))));
    }
}

/// The records of a group; work that is refused is answered at once and left out.
fn prepare(core: &Core, group: Vec<Request>) -> (Vec<Request>, Arc<Vec<Record>>) {
    let mut state = core.lock();
    let mut preparer = Preparer::new(&state, &core.config, core.clock.now_ms());
    let mut accepted = Vec::with_capacity(group.len());
    let mut refused = Vec::new();
    let mut records = Vec::new();
    for request in group {
        match preparer.prepare(&request.command) {
            Ok(more) => {
                records.extend(more);
                accepted.push(request);
            }
            Err(error) => refused.push((request, error)),
        }
    }
    for (request, error) in refused {
        state.roll_back(&request.command);
        let _ = request.reply.send(Err(error));
    }
    (accepted, Arc::new(records))
}
