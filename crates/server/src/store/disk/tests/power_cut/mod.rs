//! The store on a failing disk: power cuts at any point, failing syncs, a full disk.
//!
//! A run makes random changes and records every write, every directory entry and every sync, of the store and of SQLite. Then the
//! power is cut at some points of the recording. Unsynced changes survive in parts or not at all. A store that opens the remains has
//! to hold every answered commit, and nothing that was never sent. `DMS_POWER_SEEDS=1000` plays 1,000 runs, `DMS_POWER_SEED=17` one.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use crate::store::disk::{
    tests::power_cut::{
        model::{Model, see, shows},
        platter::Done,
        watch::Watch,
        workload::Step,
    },
    *,
};

mod faults;
mod model;
mod platter;
mod unsynced;
pub(crate) mod watch;
mod workload;

/// The number of runs, unless set otherwise.
const SEEDS: u64 = 6;
const SEGMENT: u64 = 64 * 1024;
/// The number of power cuts in a run after which it goes on, and of points at which each of them is tried.
const ROUNDS: usize = 3;
const CUTS: usize = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> std::ops::Range<u64> {
    match number("DMS_POWER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DMS_POWER_SEEDS").unwrap_or(SEEDS),
    }
}

/// A directory in memory if possible, because the tests simulate the disk.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn open(dir: &Path) -> Result<(DiskStore, Snapshot), String> {
    DiskStore::open_with(dir, SEGMENT).map_err(|error| format!("does not open: {error}"))
}

/// A commit that was tried.
struct Attempt {
    /// When it began and ended, as a number of changes of the disk.
    begun: usize,
    ended: usize,
    answered: bool,
    /// The content of the store with it.
    model: Model,
}

/// The changes between two power cuts.
struct Round {
    watch: Watch,
    rng: fastrand::Rng,
    /// The content of the store at the beginning.
    first: Model,
    attempts: Vec<Attempt>,
    /// Whether changes of the disk fail now.
    failing: bool,
    /// Whether the process that has the directory open was killed.
    killed: faults::Killed,
}

impl Round {
    fn begin(dir: &Path, first: Model, rng: fastrand::Rng) -> Self {
        Self {
            watch: Watch::begin(dir),
            rng,
            first,
            attempts: Vec::new(),
            failing: false,
            killed: faults::Killed::default(),
        }
    }

    fn play(&mut self, dir: &Path, with_faults: bool) -> Result<(), String> {
        if with_faults && self.rng.u8(..4) == 0 {
            self.turn_faults();
        }
        let mut store = self.open(dir)?;
        for _ in 0..self.rng.usize(1..80) {
            if with_faults && self.rng.u8(..8) == 0 {
                self.turn_faults();
                // The server asks a store that failed whether it works again.
                self.allow(store.probe())?;
            }
            if !self.failing && self.rng.u8(..8) == 0 {
                self.kill_soon();
            }
            let mut rng = self.rng.fork();
            match workload::step(self.held(), &mut rng) {
                Step::Commit(records) => self.commit(&store, &records)?,
                Step::CatchUp => self.allow(store.flush_memtable())?,
                Step::Tidy => self.allow(store.maintain().map(drop))?,
                Step::Restart(in_order) => {
                    self.allow(store.release(in_order))?;
                    store = self.open(dir)?;
                }
            }
            if self.killed.take() {
                self.allow(store.release(false))?;
                self.turn_faults();
                store = self.open(dir)?;
            }
        }
        self.allow(store.release(false))
    }

    /// The content of the store.
    fn held(&self) -> &Model {
        let answered = self.attempts.iter().rev().find(|attempt| attempt.answered);
        answered.map_or(&self.first, |attempt| &attempt.model)
    }

    /// While the disk fails, errors are allowed.
    fn allow(&self, done: Result<(), StoreError>) -> Result<(), String> {
        done.or_else(|error| if self.failing { Ok(()) } else { Err(error.to_string()) })
    }

    fn turn_faults(&mut self) {
        self.failing = !self.failing;
        self.watch.fail(self.failing.then(|| faults::any(self.rng.fork())));
    }

    /// Kills the process after some of the next changes, whatever it does then.
    fn kill_soon(&mut self) {
        let (faults, killed) = faults::kill_behind(self.rng.usize(..30));
        (self.failing, self.killed) = (true, killed);
        self.watch.fail(Some(faults));
    }

    fn commit(&mut self, store: &DiskStore, records: &[Record]) -> Result<(), String> {
        let begun = self.watch.len();
        let done = store.commit(records);
        let answered = done.is_ok();
        self.allow(done)?;
        if !answered {
            shows(store, self.held()).map_err(|what| format!("after a commit that failed, {what}"))?;
        }
        let mut model = self.held().clone();
        records.iter().for_each(|record| model.take(record));
        self.attempts.push(Attempt { begun, ended: self.watch.len(), answered, model });
        Ok(())
    }

    /// Opens the directory. From now on the found content is the expected one.
    fn open(&mut self, dir: &Path) -> Result<DiskStore, String> {
        let begun = self.watch.len();
        let mut opened = open(dir);
        if opened.is_err() && self.failing {
            // A process is killed only once.
            self.killed = faults::Killed::default();
            self.turn_faults();
            opened = open(dir);
        }
        let (store, snapshot) = opened?;
        let model = one_of(&self.may_hold(begun), &see(&store, snapshot))?;
        self.attempts.push(Attempt { begun, ended: self.watch.len(), answered: true, model });
        Ok(store)
    }

    /// The contents that are allowed after a power cut behind this number of changes.
    fn may_hold(&self, behind: usize) -> Vec<&Model> {
        let answered = self.attempts.iter().rposition(|attempt| attempt.answered && attempt.ended <= behind);
        let base = answered.map_or(&self.first, |answered| &self.attempts[answered].model);
        let later = &self.attempts[answered.map_or(0, |answered| answered + 1)..];
        let begun = later.iter().filter(|attempt| attempt.begun < behind).map(|attempt| &attempt.model);
        std::iter::once(base).chain(begun).collect()
    }
}

/// The allowed content that a newly opened store has.
fn one_of(may_hold: &[&Model], seen: &model::Seen) -> Result<Model, String> {
    let found = may_hold.iter().find(|model| model.see() == *seen);
    let differs = || seen.differs_from(&may_hold[0].see()).unwrap_or_default();
    found.map(|model| (*model).clone()).ok_or_else(differs)
}

/// The content of a store that opens the remains of a power cut.
fn after_cut(left: &Path, may_hold: &[&Model]) -> Result<Model, String> {
    let (store, snapshot) = open(left)?;
    let seen = see(&store, snapshot);
    store.release(false).map_err(|error| error.to_string())?;
    one_of(may_hold, &seen)
}

fn play(seed: u64, with_faults: bool) -> Result<(), String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut dir, mut model) = (directory(), Model::default());
    for number in 0..ROUNDS {
        let told = |what: String| format!("round {number}: {what}");
        let mut round = Round::begin(dir.path(), model, rng.fork());
        round.play(dir.path(), with_faults).map_err(told)?;
        let (mut platter, trace) = round.watch.end();
        let mut points: Vec<usize> = (0..CUTS).map(|_| rng.usize(..=trace.len())).collect();
        points.sort_unstable();
        let (goes_on, mut next, mut done) = (rng.usize(..CUTS), None, 0);
        for (cut, behind) in points.into_iter().enumerate() {
            trace[done..behind].iter().for_each(|done| platter.take(done));
            done = behind;
            let (left, same_again) = (directory(), rng.clone());
            platter.cut(dir.path(), left.path(), &mut rng);
            let found = after_cut(left.path(), &round.may_hold(behind));
            let last = || tell(&trace[behind.saturating_sub(5)..behind]);
            let found = found.map_err(|what| told(format!("the power was cut behind {}: {what}", last())))?;
            if cut == goes_on {
                // The same remains again, because nobody has opened them yet.
                let left = directory();
                platter.cut(dir.path(), left.path(), &mut { same_again });
                next = Some((left, found));
            }
        }
        (dir, model) = next.unwrap();
    }
    Ok(())
}

/// A short description of the last changes.
fn tell(trace: &[Done]) -> String {
    let short = |done: &Done| match done {
        Done::Write(file, offset, bytes) => format!("Write({file}, {offset}, {} bytes)", bytes.len()),
        done => format!("{done:?}"),
    };
    trace.iter().map(short).collect::<Vec<_>>().join(", ")
}

fn play_all(with_faults: bool) {
    for seed in seeds() {
        if let Err(what) = play(seed, with_faults) {
            panic!("DMS_POWER_SEED={seed}: {what}");
        }
    }
}

#[test]
fn what_was_answered_survives_power_cuts() {
    play_all(false);
}

/// Syncs fail, and writes find no space: refused commits are not visible, and answered ones are kept.
#[test]
fn what_was_answered_survives_failing_syncs_and_a_full_disk() {
    play_all(true);
}
