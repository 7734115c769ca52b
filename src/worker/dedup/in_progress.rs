//! [`RunRegistry`]: the handler of a message runs once at a time, and work that succeeded is not repeated.
//!
//! A message can be redelivered while its handler runs, or after it succeeded: if a message before it in its batch
//! failed, if an acknowledgement was lost or late, or if the service lost its leases in a restart. The second delivery
//! waits for the first run. If that run succeeds, the second delivery is acknowledged without a run. If it fails, the
//! second delivery is run; if several wait, one of them.
//!
//! A run is registered from its start until it has ended and its batch is acknowledged, whichever is later. If its
//! message is redelivered, its success is remembered for a while. A message that is settled for good stays registered
//! while another batch holds it too, because in an ordered batch its turn may come much later. Runs have numbers,
//! because the end of one says nothing about another run of the same message.

use std::{
    collections::{BTreeMap, btree_map},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    ttl_map::TtlMap,
    worker::dedup::identity::{CAPACITY, Identity},
};

/// The runs of a worker.
#[derive(Debug)]
pub(crate) struct RunRegistry(Mutex<Table>);

#[derive(Debug)]
struct Table {
    /// A B-tree, because there are few entries at a time and each is looked up several times: comparing a few keys
    /// costs less than hashing one.
    runs: BTreeMap<Identity, Entry>,
    /// Runs that succeeded and whose messages are redelivered.
    succeeded: TtlMap<Identity, ()>,
    keep: Duration,
    /// The number of runs that have started.
    begun: u64,
}

/// A message that a batch holds, or that is running.
#[derive(Debug, Default)]
struct Entry {
    /// The number of batches that hold the message. There are several if it was redelivered before the first batch
    /// released it.
    batches: u32,
    state: RunState,
}

impl Entry {
    fn is_over(&self) -> bool {
        self.batches == 0 && !matches!(self.state, RunState::Running { .. })
    }
}

#[derive(Debug, Default)]
enum RunState {
    /// The message may be run.
    #[default]
    Open,
    Running {
        /// The number of the run.
        number: u64,
        /// The batch that started the run. No other batch decides whether its success is remembered.
        batch: u64,
        fate: Fate,
        /// Dropped when the run ends. Created when somebody waits for that.
        ended: Option<watch::Sender<()>>,
    },
    /// This batch, which is not acknowledged yet, has run the message with success.
    Succeeded { batch: u64 },
    /// The message is settled, and another batch holds it too.
    Gone,
}

/// What becomes of a message when its batch is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterAck {
    /// The message is settled.
    Gone,
    /// The message is redelivered, or may be.
    Redelivered,
    /// The message is redelivered and has to be run again, because its turn had not come.
    RunAgain,
}

/// What becomes of the success of a run that is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its batch is not acknowledged yet.
    Open,
    /// Its batch is acknowledged, and the message will be redelivered.
    Remembered,
    /// Its batch is acknowledged, and the message has to be run again.
    Forgotten,
}

/// The state of a message that is about to be run.
enum Lookup {
    /// It is run now, with this number.
    Started(u64),
    Succeeded,
    /// Another run is in progress. The receiver returns an error when it ends, because its sender is dropped.
    Running(watch::Receiver<()>),
}

impl RunRegistry {
    /// Remembers successes for `keep`, which is longer than a redelivery can take.
    pub(crate) fn new(keep: Duration) -> Self {
        Self(Mutex::new(Table { runs: BTreeMap::new(), succeeded: TtlMap::new(CAPACITY), keep, begun: 0 }))
    }

    /// Starts a run for a batch; `None` if a run of the same message has succeeded.
    ///
    /// # Errors
    /// If a run is in progress, with a receiver that tells when it ends.
    pub(crate) fn begin_at_once(
        &self,
        identity: Identity,
        batch: u64,
    ) -> Result<Option<ActiveRun<'_>>, (Identity, watch::Receiver<()>)> {
        let known = self.lock().begin(&identity, batch);
        match known {
            Lookup::Started(number) => Ok(Some(ActiveRun { runs: self, identity, number, succeeded: false })),
            Lookup::Succeeded => Ok(None),
            Lookup::Running(ended) => Err((identity, ended)),
        }
    }

    /// Starts a run, after waiting for a run of the same message that is in progress; `None` if one has succeeded.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub(crate) async fn begin(&self, mut identity: Identity, batch: u64) -> Option<ActiveRun<'_>> {
        loop {
            match self.begin_at_once(identity, batch) {
                Ok(begun) => return begun,
                Err((same, mut ended)) => {
                    identity = same;
                    let _ = ended.changed().await;
                }
            }
        }
    }

    /// Registers that a batch holds these messages, until it [releases](Self::release) them.
    pub(crate) fn hold(&self, messages: impl Iterator<Item = Identity>) {
        let mut table = self.lock();
        messages.for_each(|identity| table.runs.entry(identity).or_default().batches += 1);
    }

    /// Registers that a batch is acknowledged.
    pub(crate) fn settled(&self, batch: u64, messages: impl Iterator<Item = (Identity, AfterAck)>) {
        let mut table = self.lock();
        messages.for_each(|(identity, next)| table.settled(batch, &identity, next));
    }

    /// A batch that [held](Self::hold) these messages is finished with them.
    pub(crate) fn release(&self, messages: impl Iterator<Item = Identity>) {
        let mut table = self.lock();
        messages.for_each(|identity| table.release(identity));
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn begin(&mut self, identity: &Identity, batch: u64) -> Lookup {
        if self.succeeded.get(identity).is_some() {
            return Lookup::Succeeded;
        }
        let held = match self.runs.get_mut(identity) {
            Some(held) => held,
            // No batch holds the message.
            None => self.runs.entry(identity.clone()).or_default(),
        };
        match &mut held.state {
            RunState::Succeeded { .. } | RunState::Gone => Lookup::Succeeded,
            RunState::Running { ended, .. } => {
                Lookup::Running(ended.get_or_insert_with(|| watch::Sender::new(())).subscribe())
            }
            RunState::Open => {
                self.begun += 1;
                held.state = RunState::Running { number: self.begun, batch, fate: Fate::Open, ended: None };
                Lookup::Started(self.begun)
            }
        }
    }

    fn ended(&mut self, identity: &Identity, run: u64, succeeded: bool) {
        let Some(held) = self.runs.get_mut(identity) else { return };
        let RunState::Running { number, batch, fate, .. } = held.state else { return };
        // Otherwise the entry belongs to a later run.
        if number == run {
            match fate {
                Fate::Open if succeeded => held.state = RunState::Succeeded { batch },
                Fate::Remembered if succeeded => self.remember(identity),
                Fate::Open | Fate::Remembered | Fate::Forgotten => self.forget(identity),
            }
        }
    }

    fn settled(&mut self, of: u64, identity: &Identity, next: AfterAck) {
        let Some(held) = self.runs.get_mut(identity) else { return };
        match &mut held.state {
            RunState::Running { batch, fate, .. } if *batch == of => {
                *fate = if next == AfterAck::Redelivered { Fate::Remembered } else { Fate::Forgotten };
            }
            RunState::Succeeded { batch } if *batch == of => match next {
                AfterAck::Gone if held.batches > 1 => held.state = RunState::Gone,
                AfterAck::Redelivered => self.remember(identity),
                AfterAck::Gone | AfterAck::RunAgain => self.forget(identity),
            },
            _ => {}
        }
    }

    fn remember(&mut self, identity: &Identity) {
        self.forget(identity);
        self.succeeded.insert(identity.clone(), (), self.keep);
    }

    /// Resets a message to one that has not been run.
    fn forget(&mut self, identity: &Identity) {
        if let Some(held) = self.runs.get_mut(identity) {
            held.state = RunState::Open;
            if held.is_over() {
                self.runs.remove(identity);
            }
        }
    }

    fn release(&mut self, identity: Identity) {
        if let btree_map::Entry::Occupied(mut held) = self.runs.entry(identity) {
            held.get_mut().batches = held.get().batches.saturating_sub(1);
            if held.get().is_over() {
                held.remove();
            }
        }
    }
}

/// A run in progress. Dropped, it has failed, unless it [succeeded](Self::succeeded).
#[derive(Debug)]
pub(crate) struct ActiveRun<'a> {
    runs: &'a RunRegistry,
    identity: Identity,
    number: u64,
    succeeded: bool,
}

impl ActiveRun<'_> {
    /// The run has succeeded.
    pub(crate) fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for ActiveRun<'_> {
    fn drop(&mut self) {
        self.runs.lock().ended(&self.identity, self.number, self.succeeded);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::poll;

    use super::*;

    const KEEP: Duration = Duration::from_secs(60);

    fn at(place: u64) -> Identity {
        Identity::Place(place, Some(5))
    }

    fn settled(runs: &RunRegistry, place: u64, next: AfterAck) {
        runs.settled(1, [(at(place), next)].into_iter());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_is_known_until_its_message_is_settled_or_for_a_while_if_it_is_redelivered() {
        let runs = RunRegistry::new(KEEP);
        for place in [1, 2] {
            runs.begin(at(place), 1).await.unwrap().succeeded();
            assert!(runs.begin(at(place), 1).await.is_none(), "before the acknowledgement");
        }
        settled(&runs, 1, AfterAck::Gone);
        settled(&runs, 2, AfterAck::Redelivered);
        assert!(runs.lock().runs.is_empty());
        drop(runs.begin(at(1), 1).await.unwrap());
        assert!(runs.begin(at(2), 1).await.is_none());
        tokio::time::advance(KEEP).await;
        assert!(runs.begin(at(2), 1).await.is_some());
    }

    /// In an ordered batch, the turn of a message may come long after it was redelivered, run and acknowledged.
    #[tokio::test(start_paused = true)]
    async fn a_settled_message_is_not_run_again_for_a_batch_that_still_holds_it() {
        let runs = RunRegistry::new(KEEP);
        let it = || [at(7)].into_iter();
        runs.hold(it());
        runs.hold(it());
        runs.begin(at(7), 2).await.unwrap().succeeded();
        runs.settled(2, it().map(|identity| (identity, AfterAck::Gone)));
        runs.release(it());
        assert!(runs.begin(at(7), 1).await.is_none(), "the other batch holds it");
        runs.release(it());
        assert!(runs.lock().runs.is_empty());
    }

    /// Whatever the result of a run, nothing remains of a message that no batch holds.
    #[tokio::test(start_paused = true)]
    async fn nothing_remains_of_a_message_that_no_batch_holds() {
        for next in [AfterAck::Gone, AfterAck::Redelivered, AfterAck::RunAgain] {
            for succeeds in [true, false] {
                for late in [true, false] {
                    let runs = RunRegistry::new(KEEP);
                    runs.hold([at(7)].into_iter());
                    let run = runs.begin(at(7), 1).await.unwrap();
                    let end = |run: ActiveRun<'_>| if succeeds { run.succeeded() } else { drop(run) };
                    let mut run = Some(run);
                    if !late {
                        run.take().into_iter().for_each(end);
                    }
                    settled(&runs, 7, next);
                    run.into_iter().for_each(end);
                    runs.release([at(7)].into_iter());
                    assert!(runs.lock().runs.is_empty(), "{next:?}, {succeeds}, {late}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_in_progress_is_waited_for() {
        for (again, succeeds) in [(false, true), (true, true), (false, false), (true, false)] {
            let runs = RunRegistry::new(KEEP);
            let first = runs.begin(at(7), 1).await.unwrap();
            if again {
                settled(&runs, 7, AfterAck::Redelivered);
            }
            let second = runs.begin(at(7), 1);
            tokio::pin!(second);
            assert!(poll!(&mut second).is_pending());
            if succeeds {
                first.succeeded();
            } else {
                drop(first);
            }
            assert_eq!(second.await.is_none(), succeeds);
        }
    }

    /// In an ordered batch the success of the old run must not count, but there is still one run at a time.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_outlasts_its_batch_stays_registered_until_it_ends() {
        for succeeds in [true, false] {
            let runs = RunRegistry::new(KEEP);
            let old = runs.begin(at(7), 1).await.unwrap();
            settled(&runs, 7, AfterAck::RunAgain);
            let second = runs.begin(at(7), 1);
            tokio::pin!(second);
            assert!(poll!(&mut second).is_pending(), "the old run goes on");
            if succeeds {
                old.succeeded();
            } else {
                drop(old);
            }
            let second = second.await.expect("nothing is remembered of the old run");
            assert!(runs.begin_at_once(at(7), 1).is_err(), "there is the new run now");
            second.succeeded();
            assert!(runs.begin(at(7), 1).await.is_none());
        }
    }

    /// For example an earlier batch whose acknowledgement was retried for long. It knows nothing of the later run.
    #[tokio::test(start_paused = true)]
    async fn a_batch_affects_only_its_own_runs() {
        for succeeds_before in [true, false] {
            let runs = RunRegistry::new(KEEP);
            let mut run = Some(runs.begin(at(7), 2).await.unwrap());
            if succeeds_before {
                run.take().unwrap().succeeded();
            }
            settled(&runs, 7, AfterAck::Gone);
            run.into_iter().for_each(ActiveRun::succeeded);
            assert!(runs.begin(at(7), 3).await.is_none(), "it succeeded");
        }
    }

    /// The end of an old run says nothing about a later run.
    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_old_run_does_not_affect_a_new_one() {
        let runs = RunRegistry::new(KEEP);
        let old = runs.begin(at(7), 1).await.unwrap();
        runs.lock().runs.clear();
        let _new = runs.begin(at(7), 1).await.unwrap();
        drop(old);
        assert!(runs.begin_at_once(at(7), 1).is_err(), "the new run goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn if_a_run_fails_one_of_those_that_wait_runs() {
        let runs = RunRegistry::new(KEEP);
        let first = runs.begin(at(7), 1).await.unwrap();
        let (second, third) = (runs.begin(at(7), 1), runs.begin(at(7), 1));
        tokio::pin!(second, third);
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        drop(first);
        let second = second.await.unwrap();
        assert!(poll!(&mut third).is_pending());
        second.succeeded();
        assert!(third.await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_after_the_acknowledgement_is_remembered() {
        let runs = RunRegistry::new(KEEP);
        let run = runs.begin(at(7), 1).await.unwrap();
        settled(&runs, 7, AfterAck::Redelivered);
        run.succeeded();
        assert!(runs.begin(at(7), 1).await.is_none());
        assert!(runs.lock().runs.is_empty());
    }
}
