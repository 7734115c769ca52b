//! The one task that changes anything: gathers waiting work, has the store commit it as one, then applies and answers it.

use std::sync::{Arc, MutexGuard};

use tokio::sync::mpsc;

use crate::{
    broker::{
        BrokerError, Told,
        embedded::{
            command::{Job, Kind, Work},
            commit::prepare::Preparer,
            core::Core,
            health::watch,
            state::State,
        },
    },
    store::{Record, StoreError},
};

/// The most work of one commit, so that an answer does not wait long.
const MOST_JOBS: usize = 2_000;
/// The most bytes of one commit.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// Commits until it is told to stop or nobody is left to ask.
pub(crate) async fn run(core: Arc<Core>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut next = jobs.recv().await;
    while let Some(first) = next.take() {
        let mut group = vec![first];
        if !group[0].work.is_alone() {
            next = gather(&mut group, &mut jobs);
        }
        let stop = matches!(group[0].work, Work::Stop);
        commit(&core, group).await;
        if stop {
            return;
        }
        if next.is_none() {
            next = jobs.recv().await;
        }
    }
}

/// Adds the work that waits already; gives the job that has to wait for the next commit.
fn gather(group: &mut Vec<Job>, jobs: &mut mpsc::UnboundedReceiver<Job>) -> Option<Job> {
    let mut bytes = group.iter().map(|job| job.work.bytes()).sum::<usize>();
    while group.len() < MOST_JOBS {
        let job = jobs.try_recv().ok()?;
        bytes += job.work.bytes();
        if job.work.is_alone() || bytes > MOST_BYTES {
            return Some(job);
        }
        group.push(job);
    }
    None
}

/// Commits a group: everybody is answered after the commit, and the state changes only if it went well.
async fn commit(core: &Arc<Core>, group: Vec<Job>) {
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
            tracing::debug!(%error, works = accepted.len(), "the store could not commit works together; trying each alone");
            for job in accepted {
                Box::pin(commit(core, vec![job])).await;
            }
        }
        Err(error) => {
            tracing::debug!(%error, "the store could not commit; nothing was changed");
            kinds(&accepted).for_each(|kind| core.health.refused(kind, &error, core.clock.now_ms()));
            // Looks from time to time whether it could.
            core.housekeeper.notify_one();
            let mut state = core.lock();
            accepted.iter().for_each(|job| state.take_back(&job.work));
            answer(core, state, accepted, &Err(error));
        }
    }
    if core.store.wants_tidying() {
        core.housekeeper.notify_one();
    }
}

fn is_send(job: &Job) -> bool {
    job.work.kind() == Kind::Send
}

fn is_mixed(jobs: &[Job]) -> bool {
    jobs.iter().any(is_send) && !jobs.iter().all(is_send)
}

fn kinds(jobs: &[Job]) -> impl Iterator<Item = Kind> {
    jobs.iter().map(|job| job.work.kind())
}

async fn store(core: &Core, jobs: &[Job], records: &Arc<Vec<Record>>) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let records = records.clone();
    let committed = core.ask_store(move |store| store.commit(&records));
    let stuck = || {
        core.health.is_stuck(kinds(jobs), core.clock.now_ms());
        core.housekeeper.notify_one();
    };
    watch(committed, stuck).await
}

/// Answers everybody once the state can be looked at again.
fn answer(core: &Core, mut state: MutexGuard<'_, State>, jobs: Vec<Job>, outcome: &Result<(), StoreError>) {
    if std::mem::take(&mut state.timer_stale) {
        core.timer.notify_one();
    }
    drop(state);
    for job in jobs {
        // Nobody may be waiting any more: the work is done all the same.
        let _ = job.reply.send(outcome.clone().map_err(|error| BrokerError::Store(Arc::new(Told(error.0)))));
    }
}

/// The records of a group; work that is refused is answered at once and left out.
fn prepare(core: &Core, group: Vec<Job>) -> (Vec<Job>, Arc<Vec<Record>>) {
    let mut state = core.lock();
    let mut preparer = Preparer::new(&state, &core.config, core.clock.now_ms());
    let mut accepted = Vec::with_capacity(group.len());
    let mut refused = Vec::new();
    let mut records = Vec::new();
    for job in group {
        match preparer.prepare(&job.work) {
            Ok(more) => {
                records.extend(more);
                accepted.push(job);
            }
            Err(error) => refused.push((job, error)),
        }
    }
    for (job, error) in refused {
        state.take_back(&job.work);
        let _ = job.reply.send(Err(error));
    }
    (accepted, Arc::new(records))
}
