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
    collections::{HashMap, hash_map},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    ttl_map::TtlMap,
    worker::dedup::identity::{CAPACITY, Identity, IdentityHash},
};

/// The runs of a worker.
#[derive(Debug)]
pub(crate) struct RunRegistry(Mutex<Table>);

#[derive(Debug)]
struct Table {
    runs: HashMap<Identity, Entry, IdentityHash>,
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
        success_use: SuccessUse,
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
enum SuccessUse {
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
        Self(Mutex::new(Table { runs: HashMap::default(), succeeded: TtlMap::new(CAPACITY), keep, begun: 0 }))
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
    /// Starts a run, unless one is in progress or has succeeded.
    fn begin(&mut self, identity: &Identity, batch: u64) -> Lookup {
        if self.succeeded.get(identity).is_some() {
            return Lookup::Succeeded;
        }
        let entry = match self.runs.get_mut(identity) {
            Some(entry) => entry,
            // No batch holds the message.
            None => self.runs.entry(identity.clone()).or_default(),
        };
        match &mut entry.state {
            RunState::Succeeded { .. } | RunState::Gone => Lookup::Succeeded,
            RunState::Running { ended, .. } => {
                Lookup::Running(ended.get_or_insert_with(|| watch::Sender::new(())).subscribe())
            }
            RunState::Open => {
                self.begun += 1;
                entry.state =
                    RunState::Running { number: self.begun, batch, success_use: SuccessUse::Open, ended: None };
                Lookup::Started(self.begun)
            }
        }
    }

    /// A run has ended, before or after the acknowledgement of its batch.
    fn ended(&mut self, identity: &Identity, run: u64, succeeded: bool) {
        let Some(entry) = self.runs.get_mut(identity) else { return };
        let RunState::Running { number, batch, success_use, .. } = entry.state else { return };
        // Otherwise the entry belongs to a later run.
        if number == run {
            match success_use {
                SuccessUse::Open if succeeded => entry.state = RunState::Succeeded { batch },
                SuccessUse::Remembered if succeeded => self.remember(identity),
                SuccessUse::Open | SuccessUse::Remembered | SuccessUse::Forgotten => self.forget(identity),
            }
        }
    }

    /// The batch `of` is acknowledged. A run that is still in progress learns what its success will be good for.
    fn settled(&mut self, of: u64, identity: &Identity, next: AfterAck) {
        let Some(entry) = self.runs.get_mut(identity) else { return };
        match &mut entry.state {
            RunState::Running { batch, success_use, .. } if *batch == of => {
                *success_use =
                    if next == AfterAck::Redelivered { SuccessUse::Remembered } else { SuccessUse::Forgotten };
            }
            RunState::Succeeded { batch } if *batch == of => match next {
                AfterAck::Gone if entry.batches > 1 => entry.state = RunState::Gone,
                // The batch releases the message, so the entry need not be looked up again to remove it.
                AfterAck::Gone | AfterAck::RunAgain if entry.batches > 0 => entry.state = RunState::Open,
                AfterAck::Redelivered => self.remember(identity),
                AfterAck::Gone | AfterAck::RunAgain => self.forget(identity),
            },
            _ => {}
        }
    }

    /// Keeps a success for the redelivery of its message.
    fn remember(&mut self, identity: &Identity) {
        self.forget(identity);
        self.succeeded.insert(identity.clone(), (), self.keep);
    }

    /// Resets a message to one that has not been run.
    fn forget(&mut self, identity: &Identity) {
        if let Some(entry) = self.runs.get_mut(identity) {
            entry.state = RunState::Open;
            if entry.is_over() {
                self.runs.remove(identity);
            }
        }
    }

    fn release(&mut self, identity: Identity) {
        if let hash_map::Entry::Occupied(mut entry) = self.runs.entry(identity) {
            entry.get_mut().batches = entry.get().batches.saturating_sub(1);
            if entry.get().is_over() {
                entry.remove();
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
mod tests;
