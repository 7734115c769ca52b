//! Records whether the store works, and if not, since when and why. Failures are logged when they begin and end, not for each call.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    broker::{StoragePart, StorageTrouble, embedded::command::CommandKind},
    store::StoreError,
};
use dms_protocol::internal::text::cut;

/// A store that has not answered for this time counts as failing until it answers.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// A failure that begins again within this time after it was logged is not logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The maximum length of a reason that is shown, in bytes.
const MAX_REASON_BYTES: usize = 500;

/// The health of each part of the store.
#[derive(Debug)]
pub(crate) struct StoreHealth {
    commits: Mutex<PartHealth>,
    index: Mutex<PartHealth>,
    reads: Mutex<PartHealth>,
    /// The commit that is under way.
    running: Mutex<Option<RunningCommit>>,
}

impl StoreHealth {
    pub(crate) fn new() -> Self {
        let watch = |part| Mutex::new(PartHealth { part, trouble: None, last_logged: None });
        Self {
            commits: watch(StoragePart::Commits),
            index: watch(StoragePart::Index),
            reads: watch(StoragePart::Reads),
            running: Mutex::new(None),
        }
    }

    /// Records that the store refused to commit a change of this kind.
    pub(crate) fn refused(&self, kind: CommandKind, error: &StoreError, now_ms: i64) {
        locked(&self.commits).fail([kind], error, now_ms).refused += 1;
    }

    /// Records that the store refuses new messages, to keep the remaining room for other changes.
    pub(crate) fn disk_is_full(&self, error: &StoreError, now_ms: i64) {
        locked(&self.commits).fail([CommandKind::Send], error, now_ms);
    }

    /// Records that a commit of these kinds begins. It ends when the result is dropped.
    pub(crate) fn begin_commit(&self, kinds: impl IntoIterator<Item = CommandKind>) -> CommitGuard<'_> {
        let kinds = kinds.into_iter().collect();
        *locked(&self.running) = Some(RunningCommit { since: Instant::now(), kinds, is_reported: false });
        CommitGuard(self)
    }

    /// Waits for the end of commits, and records each one that the store has not answered for [`STUCK_AFTER`].
    ///
    /// Not by [`watch`] for each commit, because one blocking task makes many of them in turn: the time counts from the begin of
    /// the commit that is under way, and not from the begin of the task.
    pub(crate) async fn watch_commits<T>(
        &self,
        commits: impl Future<Output = T>,
        now_ms: impl Fn() -> i64,
        on_stuck: impl Fn(),
    ) -> T {
        let mut commits = pin!(commits);
        loop {
            if let Ok(answer) = timeout(self.time_until_stuck(), &mut commits).await {
                return answer;
            }
            let stuck_kinds = locked(&self.running).as_mut().and_then(RunningCommit::report);
            if let Some(kinds) = stuck_kinds {
                locked(&self.commits).fail(kinds, &stuck(), now_ms());
                on_stuck();
            }
        }
    }

    /// The time after which the commit that is under way counts as stuck.
    fn time_until_stuck(&self) -> Duration {
        match &*locked(&self.running) {
            Some(running) if !running.is_reported => STUCK_AFTER.saturating_sub(running.since.elapsed()),
            _ => STUCK_AFTER,
        }
    }

    /// Records that changes of these kinds were committed. A commit of new messages clears the failures of all kinds, because new
    /// messages need the most room; a commit of another kind clears only its own, because on a full disk acknowledgements still
    /// succeed.
    pub(crate) fn committed(&self, kinds: impl IntoIterator<Item = CommandKind>) {
        let mut commits = locked(&self.commits);
        let Some(trouble) = &mut commits.trouble else { return };
        for kind in kinds {
            trouble.kinds.remove(&kind);
            if kind == CommandKind::Send {
                trouble.kinds.clear();
            }
        }
        if trouble.kinds.is_empty() {
            commits.end();
        }
    }

    /// Records that the store would commit again.
    pub(crate) fn would_commit(&self) {
        locked(&self.commits).end();
    }

    /// Records whether the index took in the log.
    pub(crate) fn indexed(&self, failed: Option<&StoreError>, now_ms: i64) {
        let mut index = locked(&self.index);
        match failed {
            Some(error) => drop(index.fail([], error, now_ms)),
            None => index.end(),
        }
    }

    /// Records that the index has not answered for [`STUCK_AFTER`].
    pub(crate) fn index_is_stuck(&self, now_ms: i64) {
        self.indexed(Some(&stuck()), now_ms);
    }

    /// Records that the store could not read. Returns whether it could before.
    pub(crate) fn read_failed(&self, error: &StoreError, now_ms: i64) -> bool {
        let mut reads = locked(&self.reads);
        let is_new = reads.trouble.is_none();
        reads.fail([], error, now_ms);
        is_new
    }

    /// Records that the store can read again.
    pub(crate) fn reads_again(&self) {
        locked(&self.reads).end();
    }

    /// Whether the store failed to read and has not recovered.
    pub(crate) fn cannot_read(&self) -> bool {
        locked(&self.reads).trouble.is_some()
    }

    /// Whether the last commit of some kind failed.
    pub(crate) fn refuses(&self) -> bool {
        locked(&self.commits).trouble.is_some()
    }

    /// The parts that fail now.
    pub(crate) fn troubles(&self) -> Vec<StorageTrouble> {
        [&self.commits, &self.index, &self.reads].into_iter().filter_map(|watched| locked(watched).shown()).collect()
    }
}

/// Waits for one answer of the store, and calls `on_stuck` if it does not arrive within [`STUCK_AFTER`].
pub(crate) async fn watch<T>(answer: impl Future<Output = T>, on_stuck: impl FnOnce()) -> T {
    let mut answer = pin!(answer);
    match timeout(STUCK_AFTER, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            on_stuck();
            answer.await
        }
    }
}

fn stuck() -> StoreError {
    StoreError::new(format!("the disk has not answered for {} s", STUCK_AFTER.as_secs()))
}

/// A commit that is under way.
#[derive(Debug)]
struct RunningCommit {
    since: Instant,
    kinds: BTreeSet<CommandKind>,
    /// Whether it was recorded as stuck.
    is_reported: bool,
}

impl RunningCommit {
    /// The kinds of a commit that has just become stuck.
    fn report(&mut self) -> Option<BTreeSet<CommandKind>> {
        let is_stuck = !self.is_reported && self.since.elapsed() >= STUCK_AFTER;
        self.is_reported |= is_stuck;
        is_stuck.then(|| self.kinds.clone())
    }
}

/// A commit is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct CommitGuard<'a>(&'a StoreHealth);

impl Drop for CommitGuard<'_> {
    fn drop(&mut self) {
        *locked(&self.0.running) = None;
    }
}

/// The health of one part.
#[derive(Debug)]
struct PartHealth {
    part: StoragePart,
    trouble: Option<Trouble>,
    /// When a failure was last logged.
    last_logged: Option<Instant>,
}

/// A failure that lasts.
#[derive(Debug)]
struct Trouble {
    since_ms: i64,
    begun: Instant,
    /// The reason of the last failed call.
    reason: String,
    remedy: &'static str,
    is_full: bool,
    /// The number of changes that were not committed because of it.
    refused: u64,
    /// The kinds of commits that failed.
    kinds: BTreeSet<CommandKind>,
    /// Whether its beginning was logged. If not, neither is its end.
    is_logged: bool,
}

impl PartHealth {
    fn fail(&mut self, kinds: impl IntoIterator<Item = CommandKind>, error: &StoreError, now_ms: i64) -> &mut Trouble {
        let (reason, remedy) = (cut(&error.to_string(), MAX_REASON_BYTES).to_owned(), remedy(error));
        let (part, last_logged) = (self.part, &mut self.last_logged);
        let trouble = self.trouble.get_or_insert_with(|| {
            let begun = Instant::now();
            let is_logged = last_logged.is_none_or(|last| begun.duration_since(last) >= LOG_INTERVAL);
            if is_logged {
                *last_logged = Some(begun);
                tracing::error!(part = part.as_str(), reason, remedy, "the store fails; /readyz is red until it works");
            }
            let (reason, kinds) = (String::new(), BTreeSet::new());
            Trouble { since_ms: now_ms, begun, reason, remedy, is_full: false, refused: 0, kinds, is_logged }
        });
        (trouble.reason, trouble.remedy, trouble.is_full) = (reason, remedy, error.is_full());
        trouble.kinds.extend(kinds);
        trouble
    }

    fn end(&mut self) {
        let Some(trouble) = self.trouble.take().filter(|trouble| trouble.is_logged) else { return };
        let (part, seconds) = (self.part.as_str(), trouble.begun.elapsed().as_secs());
        tracing::info!(part, seconds, refused = trouble.refused, "the store works again");
    }

    fn shown(&self) -> Option<StorageTrouble> {
        let trouble = self.trouble.as_ref()?;
        Some(StorageTrouble {
            part: self.part,
            since_ms: trouble.since_ms,
            reason: trouble.reason.clone(),
            remedy: trouble.remedy,
            is_disk_full: trouble.is_full,
            refused: trouble.refused,
        })
    }
}

/// The remedy for an error, as a sentence for operators.
fn remedy(error: &StoreError) -> &'static str {
    match error.io_kind() {
        _ if error.is_full() => FREE_SPACE,
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => MAKE_WRITABLE,
        _ if error.to_string().contains("readonly database") => MAKE_WRITABLE,
        _ if error.is_lost() => RESTART,
        _ => "look at the disk of the data directory (or at PostgreSQL) and at the log of the system",
    }
}

const FREE_SPACE: &str = "free space on the disk of the data directory; the server continues without a restart";
const RESTART: &str = "restart the server, once its data is in its place and no other server uses it";
const MAKE_WRITABLE: &str = "let the server's user write to the data directory";

fn locked<T>(watched: &Mutex<T>) -> MutexGuard<'_, T> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{cell::Cell, io, sync::Arc};

    use super::*;
    use crate::broker::embedded::tests::{FlakyStore, NOW, Scene, run};
    use crate::{
        broker::{Broker, BrokerError},
        store::disk::DiskStore,
    };

    /// The parts that fail, with how many changes each refused.
    fn troubles(scene: &Scene) -> Vec<(StoragePart, u64)> {
        scene.broker.storage_troubles().iter().map(|trouble| (trouble.part, trouble.refused)).collect()
    }

    async fn scene() -> (Arc<FlakyStore>, Scene) {
        let store = Arc::new(FlakyStore::default());
        (store.clone(), Scene::on(store).await)
    }

    /// A disk that is looked at does not help a server whose directory was moved or is another one's.
    #[test]
    fn a_store_that_is_lost_is_opened_again_by_a_restart() {
        assert_eq!(remedy(&StoreError::lost("d/dms.lock was deleted or replaced")), RESTART);
        assert!(!remedy(&StoreError::new("some failure")).contains("restart"));
    }

    /// It says since when, why and what to do, and is over with the first commit.
    #[tokio::test(start_paused = true)]
    async fn commits_fail_until_one_goes_through() {
        let (store, scene) = scene().await;
        assert_eq!(troubles(&scene), []);
        store.fail(true);
        for _ in 0..3 {
            let refused = scene.send("1", NOW).await.unwrap_err();
            assert!(refused.is_already_logged(), "{refused:?}");
        }
        let trouble = scene.broker.storage_troubles().remove(0);
        assert_eq!((trouble.part, trouble.refused, trouble.since_ms), (StoragePart::Commits, 3, 0));
        assert_eq!((trouble.reason.as_str(), trouble.remedy), ("no space left on device", FREE_SPACE));
        store.fail(false);
        scene.send("2", NOW).await.unwrap();
        assert_eq!(troubles(&scene), []);
    }

    /// No client sends to a server that is not ready, so it has to notice itself that the store works again.
    #[tokio::test(start_paused = true)]
    async fn it_is_over_without_a_call_too() {
        let (store, scene) = scene().await;
        store.fail(true);
        scene.send("1", NOW).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(troubles(&scene), [(StoragePart::Commits, 1)]);
        store.fail(false);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(troubles(&scene), []);
    }

    /// A full disk takes acknowledgements and refuses messages: the one does not hide the other.
    #[tokio::test(start_paused = true)]
    async fn what_needs_less_room_does_not_end_it() {
        let (store, scene) = scene().await;
        scene.send("1", NOW).await.unwrap();
        let batch = scene.take(0).await.unwrap();
        store.fail(true);
        scene.send("2", NOW).await.unwrap_err();
        store.fail(false);
        scene.settle(&batch, true).await.unwrap();
        assert_eq!(troubles(&scene), [(StoragePart::Commits, 1)]);
        scene.send("3", NOW).await.unwrap();
        assert_eq!(troubles(&scene), []);
        store.fail(true);
        let batch = scene.take(0).await.unwrap();
        assert!(matches!(scene.settle(&batch, true).await, Err(BrokerError::Store(_))));
        store.fail(false);
        scene.settle(&batch, true).await.unwrap();
        assert_eq!(troubles(&scene), [], "what failed goes through");
    }

    #[tokio::test(start_paused = true)]
    async fn the_index_fails_until_it_takes_in_what_there_is() {
        let (store, scene) = scene().await;
        store.fail_index(Some(StoreError::new("database or disk is full")));
        scene.send("1", NOW).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let trouble = scene.broker.storage_troubles().remove(0);
        assert_eq!((trouble.part, trouble.refused, trouble.remedy), (StoragePart::Index, 0, FREE_SPACE));
        scene.send("2", NOW).await.unwrap();
        assert_eq!(troubles(&scene).len(), 1, "commits say nothing of the index");
        store.fail_index(None);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(troubles(&scene), []);
    }

    /// A disk that gives no messages back: they are set aside, and delivered when it does again.
    #[tokio::test(start_paused = true)]
    async fn reads_fail_until_one_goes_through() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = DiskStore::open(dir.path()).unwrap();
        let store = Arc::new(store);
        let scene = Scene::on(store.clone()).await;
        // More than the newest messages that are kept in memory.
        let large = "x".repeat(500_000);
        for _ in 0..15 {
            scene.send(&large, NOW).await.unwrap();
        }
        let there = scene.available().await;
        store.break_places(0..u64::MAX);
        assert!(scene.take(0).await.unwrap().len() < 10);
        let trouble = scene.broker.storage_troubles().remove(0);
        assert_eq!((trouble.part, trouble.refused, trouble.is_disk_full), (StoragePart::Reads, 0, false));
        assert!(trouble.reason.contains("0000000001.log: Input/output error"), "{}", trouble.reason);
        assert!(!scene.broker.damaged().is_empty() && scene.broker.damaged()[0].reason.contains("Input/output"));
        run(60).await;
        assert_eq!(troubles(&scene), [(StoragePart::Reads, 0)], "it looks, and it is so still");
        store.break_places(0..0);
        run(6).await;
        assert_eq!((troubles(&scene), scene.broker.damaged().len()), (Vec::new(), 0));
        let mut taken = 0;
        while taken < there {
            let batch = scene.take(5).await.unwrap();
            taken += batch.len() as u64;
            assert!(!batch.is_empty(), "{taken} of {there}");
            scene.settle(&batch, true).await.unwrap();
        }
    }

    /// One place that is lost is no lost disk: its messages stay set aside, all others are delivered.
    #[tokio::test(start_paused = true)]
    async fn a_place_that_stays_unreadable_does_not_keep_the_server_from_being_ready() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = DiskStore::open(dir.path()).unwrap();
        let store = Arc::new(store);
        let scene = Scene::on(store.clone()).await;
        let large = "x".repeat(500_000);
        for _ in 0..15 {
            scene.send(&large, NOW).await.unwrap();
        }
        // The head of the file can be read.
        store.break_places(100..600_000);
        assert!(!scene.take(1).await.unwrap().is_empty());
        assert_eq!(troubles(&scene), [(StoragePart::Reads, 0)]);
        run(6).await;
        assert_eq!((troubles(&scene), scene.broker.damaged().is_empty()), (Vec::new(), false));
    }

    /// A disk that does not answer at all has no error to tell.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_fails_until_it_answers() {
        let health = StoreHealth::new();
        let commits = async {
            // One that ends, and one that hangs.
            let first = health.begin_commit([CommandKind::Send]);
            tokio::time::sleep(STUCK_AFTER / 2).await;
            drop(first);
            let _second = health.begin_commit([CommandKind::Settle]);
            tokio::time::sleep(STUCK_AFTER * 3).await;
        };
        let noticed = Cell::new(0);
        tokio::join!(health.watch_commits(commits, || 7, || noticed.set(noticed.get() + 1)), async {
            tokio::time::sleep(STUCK_AFTER * 3 / 2 - Duration::from_secs(1)).await;
            assert!(!health.refuses());
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(health.troubles()[0].reason, "the disk has not answered for 30 s");
        });
        assert_eq!(noticed.get(), 1, "each is noticed once");
        health.committed([CommandKind::Settle]);
        assert_eq!(health.troubles(), []);
    }

    #[test]
    fn remedies_fit_what_is_wrong() {
        let of = |kind: ErrorKind| remedy(&StoreError::new(io::Error::from(kind)));
        assert_eq!((of(ErrorKind::StorageFull), of(ErrorKind::ReadOnlyFilesystem)), (FREE_SPACE, MAKE_WRITABLE));
        assert!(of(ErrorKind::Other).starts_with("look at the disk"));
        let long = StoreError::new("ä".repeat(MAX_REASON_BYTES));
        assert_eq!(cut(&long.to_string(), MAX_REASON_BYTES).len(), MAX_REASON_BYTES);
    }
}
