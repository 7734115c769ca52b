//! Each message's handler runs once at a time, and work that succeeded is not done again.
//!
//! A message can come again while its handler runs, or after it has succeeded: when one before it in its batch fails, when an
//! acknowledgement is lost or late, when the service loses its leases in a restart. The second delivery waits for the first run;
//! if that succeeds it is acknowledged without a run of its own, if not it is run, and where several wait, one of them.
//!
//! A run is known from its beginning until its batch is acknowledged; of those whose message comes again the success is
//! [remembered](super::memory) for a while.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::memory::{CAPACITY, Identity, Memory};

/// The runs of one worker.
#[derive(Debug)]
pub(crate) struct KnownRuns(Mutex<Table>);

#[derive(Debug)]
struct Table {
    /// Few at a time, and looked up three times for each message: to compare some costs less than to hash one.
    runs: BTreeMap<Identity, State>,
    /// Those that succeeded, and whose messages come again.
    succeeded: Memory<Identity, ()>,
    keep: Duration,
}

#[derive(Debug)]
enum State {
    Running {
        /// Its batch is acknowledged, and the message comes again.
        again: bool,
        /// Dropped when it ends; made when somebody waits.
        ended: Option<watch::Sender<()>>,
    },
    /// Its batch is not acknowledged yet.
    Succeeded,
}

/// What is known of a message that is to be run.
enum Known {
    Nothing,
    Succeeded,
    /// Ends in an error when the run does: its sender is dropped.
    Running(watch::Receiver<()>),
}

impl KnownRuns {
    /// Remembers successes for so long: past the longest time until a message comes again.
    pub(crate) fn new(keep: Duration) -> Self {
        Self(Mutex::new(Table { runs: BTreeMap::new(), succeeded: Memory::new(CAPACITY), keep }))
    }

    /// Begins a run; `None` when one of the same message has succeeded.
    ///
    /// # Errors
    /// While one is going on, with what changes when it ends.
    pub(crate) fn begin_at_once(
        &self,
        identity: Identity,
    ) -> Result<Option<KnownRun<'_>>, (Identity, watch::Receiver<()>)> {
        let known = self.lock().begin(&identity);
        match known {
            Known::Nothing => Ok(Some(KnownRun { runs: self, identity, succeeded: false })),
            Known::Succeeded => Ok(None),
            Known::Running(ended) => Err((identity, ended)),
        }
    }

    /// Begins a run. Waits for one of the same message that is going on; `None` when one has succeeded.
    ///
    /// Cancel-safe.
    pub(crate) async fn begin(&self, mut identity: Identity) -> Option<KnownRun<'_>> {
        loop {
            match self.begin_at_once(identity) {
                Ok(begun) => return begun,
                Err((same, mut ended)) => {
                    identity = same;
                    let _ = ended.changed().await;
                }
            }
        }
    }

    /// A batch is acknowledged: what is known of those messages that are gone for good goes with them, the others come `again`.
    pub(crate) fn settled(&self, messages: impl Iterator<Item = (Identity, bool)>) {
        let mut table = self.lock();
        for (identity, again) in messages {
            table.settled(&identity, again);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn begin(&mut self, identity: &Identity) -> Known {
        if self.succeeded.recall(identity).is_some() {
            return Known::Succeeded;
        }
        match self.runs.entry(identity.clone()) {
            Entry::Occupied(mut run) => match run.get_mut() {
                State::Succeeded => Known::Succeeded,
                State::Running { ended, .. } => {
                    Known::Running(ended.get_or_insert_with(|| watch::Sender::new(())).subscribe())
                }
            },
            Entry::Vacant(place) => {
                place.insert(State::Running { again: false, ended: None });
                Known::Nothing
            }
        }
    }

    fn ended(&mut self, identity: &Identity, succeeded: bool) {
        if !succeeded {
            self.runs.remove(identity);
            return;
        }
        match self.runs.get_mut(identity) {
            Some(State::Running { again: true, .. }) => self.remember(identity),
            Some(state) => *state = State::Succeeded,
            None => {}
        }
    }

    fn settled(&mut self, identity: &Identity, comes_again: bool) {
        if !comes_again {
            self.runs.remove(identity);
            return;
        }
        match self.runs.get_mut(identity) {
            Some(State::Running { again, .. }) => *again = true,
            Some(State::Succeeded) => self.remember(identity),
            None => {}
        }
    }

    fn remember(&mut self, identity: &Identity) {
        if let Some((identity, _)) = self.runs.remove_entry(identity) {
            self.succeeded.note(identity, (), self.keep);
        }
    }
}

/// A run that is going on. Dropped, it has failed unless it [succeeded](Self::succeeded).
#[derive(Debug)]
pub(crate) struct KnownRun<'a> {
    runs: &'a KnownRuns,
    identity: Identity,
    succeeded: bool,
}

impl KnownRun<'_> {
    /// The run has succeeded.
    pub(crate) fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for KnownRun<'_> {
    fn drop(&mut self) {
        self.runs.lock().ended(&self.identity, self.succeeded);
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

    fn settled(runs: &KnownRuns, place: u64, again: bool) {
        runs.settled([(at(place), again)].into_iter());
    }

    #[tokio::test(start_paused = true)]
    async fn what_succeeded_is_known_until_it_is_gone_and_for_a_while_when_it_comes_again() {
        let runs = KnownRuns::new(KEEP);
        for place in [1, 2] {
            runs.begin(at(place)).await.unwrap().succeeded();
            assert!(runs.begin(at(place)).await.is_none(), "before the acknowledgement");
        }
        settled(&runs, 1, false);
        settled(&runs, 2, true);
        assert!(runs.lock().runs.is_empty());
        drop(runs.begin(at(1)).await.unwrap());
        assert!(runs.begin(at(2)).await.is_none());
        tokio::time::advance(KEEP).await;
        assert!(runs.begin(at(2)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_goes_on_is_waited_for() {
        for (again, succeeds) in [(false, true), (true, true), (false, false), (true, false)] {
            let runs = KnownRuns::new(KEEP);
            let first = runs.begin(at(7)).await.unwrap();
            if again {
                settled(&runs, 7, true);
            }
            let second = runs.begin(at(7));
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

    #[tokio::test(start_paused = true)]
    async fn of_several_that_wait_for_a_run_that_fails_one_runs() {
        let runs = KnownRuns::new(KEEP);
        let first = runs.begin(at(7)).await.unwrap();
        let (second, third) = (runs.begin(at(7)), runs.begin(at(7)));
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
        let runs = KnownRuns::new(KEEP);
        let run = runs.begin(at(7)).await.unwrap();
        settled(&runs, 7, true);
        run.succeeded();
        assert!(runs.begin(at(7)).await.is_none());
        assert!(runs.lock().runs.is_empty());
    }
}
