//! Each message's handler runs once at a time, and work that succeeded is not done again.
//!
//! A message can come again while its handler runs, or after it has succeeded: when one before it in its batch fails, when an
//! acknowledgement is lost or late, when the service loses its leases in a restart. The second delivery waits for the first run;
//! if that succeeds it is acknowledged without a run of its own, if not it is run, and where several wait, one of them.
//!
//! A run is known from its beginning until it has ended and its batch is acknowledged, whichever is later; of those whose message comes
//! again the success is [remembered](crate::ttl_map) for a while. One that is gone for good is known for as long as another batch holds the
//! message too: in an order its turn there may come much later. Runs are numbered: the end of one says nothing of another's.

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

/// The runs of one worker.
#[derive(Debug)]
pub(crate) struct RunRegistry(Mutex<Table>);

#[derive(Debug)]
struct Table {
    /// Few at a time, and looked up some times for each message: to compare some costs less than to hash one.
    runs: BTreeMap<Identity, Entry>,
    /// Those that succeeded, and whose messages come again.
    succeeded: TtlMap<Identity, ()>,
    keep: Duration,
    /// How many runs have begun.
    begun: u64,
}

/// A message that a batch holds, or that is run.
#[derive(Debug, Default)]
struct Entry {
    /// How many batches hold it: more than one where it was redelivered before the first had let go of it.
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
    /// It is to be run.
    #[default]
    Open,
    Running {
        /// Which run it is.
        number: u64,
        /// The batch that it was begun for: no other decides what is remembered of it.
        batch: u64,
        fate: Fate,
        /// Dropped when it ends; made when somebody waits.
        ended: Option<watch::Sender<()>>,
    },
    /// Its batch, which is this one, is not acknowledged yet.
    Succeeded { batch: u64 },
    /// It is settled, and another batch holds it too.
    Gone,
}

/// What becomes of a message whose batch is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterAck {
    /// It is gone for good.
    Gone,
    /// It is redelivered, or may be.
    Redelivered,
    /// The same, and it has to be run again: it was not its turn.
    RunAgain,
}

/// What becomes of the success of a run that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its batch is not acknowledged yet.
    Open,
    /// Its batch is acknowledged, and the message comes again.
    Remembered,
    /// Its batch is acknowledged, and the message has to be run again: it was not its turn.
    Forgotten,
}

/// What is known of a message that is to be run.
enum Lookup {
    /// It is run now, with this number.
    Started(u64),
    Succeeded,
    /// Ends in an error when the run does: its sender is dropped.
    Running(watch::Receiver<()>),
}

impl RunRegistry {
    /// Remembers successes for so long: past the longest time until a message comes again.
    pub(crate) fn new(keep: Duration) -> Self {
        Self(Mutex::new(Table { runs: BTreeMap::new(), succeeded: TtlMap::new(CAPACITY), keep, begun: 0 }))
    }

    /// Begins a run for a batch; `None` when one of the same message has succeeded.
    ///
    /// # Errors
    /// While one is going on, with what changes when it ends.
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

    /// Begins a run. Waits for one of the same message that is going on; `None` when one has succeeded.
    ///
    /// Cancel-safe.
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

    /// A batch holds messages, until it [lets go](Self::release) of them.
    pub(crate) fn hold(&self, messages: impl Iterator<Item = Identity>) {
        let mut table = self.lock();
        messages.for_each(|identity| table.runs.entry(identity).or_default().batches += 1);
    }

    /// A batch is acknowledged.
    pub(crate) fn settled(&self, batch: u64, messages: impl Iterator<Item = (Identity, AfterAck)>) {
        let mut table = self.lock();
        messages.for_each(|(identity, next)| table.settled(batch, &identity, next));
    }

    /// A batch that [held](Self::hold) messages is through with them.
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
            // What no batch holds.
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
        // That may be another run.
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

    /// No run of it is known any more.
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

/// A run that is going on. Dropped, it has failed unless it [succeeded](Self::succeeded).
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
    async fn what_succeeded_is_known_until_it_is_gone_and_for_a_while_when_it_comes_again() {
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

    /// In an order, its turn in the first batch may come long after it was redelivered, run and acknowledged.
    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_not_run_again_for_a_batch_that_still_holds_it() {
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

    /// Whatever a run came to, nothing is left of a message that nobody holds.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_what_nobody_holds() {
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
    async fn a_run_that_goes_on_is_waited_for() {
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

    /// In an order its success must not count; all the same there is one run of it at a time.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_goes_on_after_its_batch_is_settled_keeps_its_place_until_it_ends() {
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

    /// An earlier batch whose acknowledgement was tried for long, say: it knows nothing of the later run.
    #[tokio::test(start_paused = true)]
    async fn a_batch_decides_about_its_own_runs_alone() {
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

    /// What ends late says nothing of a later run.
    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_old_run_leaves_the_entry_of_a_new_one() {
        let runs = RunRegistry::new(KEEP);
        let old = runs.begin(at(7), 1).await.unwrap();
        runs.lock().runs.clear();
        let _new = runs.begin(at(7), 1).await.unwrap();
        drop(old);
        assert!(runs.begin_at_once(at(7), 1).is_err(), "the new run goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_that_wait_for_a_run_that_fails_one_runs() {
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
