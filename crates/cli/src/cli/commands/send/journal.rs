//! [`Journal`]: how far a file was sent, in a file beside it, so that a run that was killed can be continued.
//!
//! Lines are settled in their order: those up to `line` are, each stored or refused and reported. No line beyond `limit`
//! is sent before the limit is on disk. So after a crash only the lines between the two can have been stored without
//! being counted: they are sent again, and may be there twice.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::support::failure::{ExitKind, Failure};
use dms_protocol::{
    auth::canonical::hex,
    internal::{file_lock::LockedFile, private},
};

/// How many lines are let through by one write to the disk.
const LINES_PER_WRITE: u64 = 200;
/// The size of the record, which is written in one piece.
const RECORD: usize = 512;
/// How much of the file's beginning tells it from others, in bytes.
const HEAD: u64 = 4096;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalState {
    /// The operation and its target.
    task: String,
    /// How many bytes the file begins with, and a hash of them.
    head: String,
    /// The last line that is settled, with all before it.
    pub(crate) line: u64,
    /// Where the next line begins, in bytes.
    pub(crate) offset: u64,
    /// No line after this one was sent.
    limit: u64,
    /// Lines that are stored.
    pub(crate) sent: u64,
    /// Lines that were refused and reported.
    pub(crate) refused: u64,
    /// Lines that were left out on purpose.
    pub(crate) skipped: u64,
    /// Lines that may be stored twice, by the runs so far.
    pub(crate) doubled: u64,
    /// Whether the end of the file was reached.
    pub(crate) complete: bool,
}

/// The journal of a run. Nobody else has it open.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Arc<LockedFile>,
    path: PathBuf,
    progress: JournalState,
    /// Whether an earlier run has begun it.
    resumed: bool,
    keep: bool,
}

/// What a run wants of its journal.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// The file that is sent.
    pub(crate) input: &'a Path,
    /// Where the journal is; beside the file by default.
    pub(crate) journal: Option<&'a Path>,
    /// The operation and its target, equal for all runs that continue each other.
    pub(crate) task: String,
    /// Whether to go on where an earlier run ended.
    pub(crate) resume: bool,
}

impl Journal {
    /// Opens the journal of a file: a new one, or the journal of an earlier run. `None` if the input is not a plain file, or nothing
    /// can be written beside it.
    ///
    /// # Errors
    /// When another run has it, an earlier run was not finished and is not to be resumed, or it belongs to other lines.
    pub(crate) fn open(wanted: &Wanted<'_>) -> Result<Option<Self>, Failure> {
        let beside = || PathBuf::from(format!("{}.journal", wanted.input.display()));
        let path = wanted.journal.map_or_else(beside, Path::to_owned);
        let named = wanted.journal.is_some() || wanted.resume;
        let plain = fs::metadata(wanted.input).is_ok_and(|metadata| metadata.is_file());
        if !plain {
            let text = "only the sending of a plain file can be resumed: it needs a place to go on from";
            return if named { Err(Failure::of(ExitKind::Usage, text)) } else { Ok(None) };
        }
        let file = match private::options().read(true).write(true).create(true).truncate(false).open(&path) {
            Ok(file) => file,
            Err(error) if named => return Err(trouble(&path, &error)),
            Err(error) => {
                tracing::warn!(journal = %path.display(), %error, "without a journal the run cannot be resumed; --journal names another place");
                return Ok(None);
            }
        };
        let file = LockedFile::try_lock(file).map_err(|(_, error)| match error {
            TryLockError::WouldBlock => {
                let text = format!(
                    "another run is sending {}: its journal {} is in use",
                    wanted.input.display(),
                    path.display()
                );
                Failure::new(text)
            }
            TryLockError::Error(error) => trouble(&path, &error),
        })?;
        private::warn_if_exposed("the journal", &path);
        let head = head(wanted.input, HEAD).map_err(|error| Failure::unreadable(wanted.input.display(), &error))?;
        let fresh = JournalState { task: wanted.task.clone(), head, ..JournalState::default() };
        let earlier = read(&file).map_err(|error| trouble(&path, &error))?;
        let resumed = earlier.is_some() && wanted.resume;
        let progress = match earlier {
            Some(earlier) if wanted.resume => continued(earlier, &fresh, wanted.input, &path)?,
            Some(earlier) if !earlier.complete && earlier.limit > 0 => return Err(unfinished(&earlier, &path)),
            _ => fresh,
        };
        Ok(Some(Self { file: Arc::new(file), path, progress, resumed, keep: wanted.resume }))
    }

    /// Where the run stands.
    pub(crate) fn progress(&self) -> &JournalState {
        &self.progress
    }

    /// Whether it goes on where an earlier run ended.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Lets a line be sent: the limit is on disk before.
    ///
    /// # Errors
    /// When the journal cannot be written: going on could double lines that nobody would know of.
    pub(crate) async fn admit(&mut self, line: u64) -> Result<(), Failure> {
        if line <= self.progress.limit {
            return Ok(());
        }
        self.progress.limit = line + LINES_PER_WRITE - 1;
        self.store(true).await
    }

    /// Notes that the lines up to this one are settled.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(crate) async fn settled(&mut self, change: impl FnOnce(&mut JournalState)) -> Result<(), Failure> {
        change(&mut self.progress);
        self.store(false).await
    }

    /// Ends a run whose lines are all settled. The journal is removed, unless a run with `--resume` may ask for it: after one, or where
    /// lines were refused, as the user comes back for these. Without it that run would send every line again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) async fn complete(mut self) -> Result<(), Failure> {
        if !self.keep && self.progress.refused == 0 {
            return fs::remove_file(&self.path).map_err(|error| trouble(&self.path, &error));
        }
        (self.progress.complete, self.progress.limit) = (true, self.progress.line);
        self.store(true).await
    }

    /// Ends a run that stopped early; `settled`: with nothing on its way. A journal that says nothing goes. Gives its place
    /// otherwise.
    pub(crate) async fn stop(mut self, settled: bool) -> Option<PathBuf> {
        if settled {
            self.progress.limit = self.progress.line;
            // The last record is still correct, only less exact.
            let _ = self.store(true).await;
        }
        if self.progress.limit > 0 {
            return Some(self.path);
        }
        let _ = fs::remove_file(&self.path);
        None
    }

    /// One write; on the disk before it answers if `durable`, and else safe from the end of this process alone.
    async fn store(&self, durable: bool) -> Result<(), Failure> {
        let record = serde_json::to_string(&self.progress).map_err(|error| trouble(&self.path, &error.into()))?;
        let record = format!("{record:<width$}\n", width = RECORD - 1);
        let file = Arc::clone(&self.file);
        let write = move || {
            let mut file = &**file;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(record.as_bytes())?;
            if durable { file.sync_data() } else { Ok(()) }
        };
        // A write into the page cache is not worth a thread.
        let written = match durable {
            true => tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error))),
            false => write(),
        };
        written.map_err(|error| trouble(&self.path, &error))
    }
}

/// The state of an earlier run, if the journal has one.
fn read(mut file: &File) -> io::Result<Option<JournalState>> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(64 * 1024).read_to_string(&mut text)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text.trim()).map(Some).map_err(|error| {
        io::Error::other(format!("it is not the journal of a run ({error}); --journal names another place"))
    })
}

/// The state to continue from. Messages that may have been sent and are not settled count as doubled, because they are sent again.
fn continued(earlier: JournalState, fresh: &JournalState, input: &Path, path: &Path) -> Result<JournalState, Failure> {
    let other = |what: &str| {
        Failure::of(
            ExitKind::Usage,
            format!("{} {what}; remove the journal to begin with the first line", path.display()),
        )
    };
    if earlier.task != fresh.task {
        return Err(other(&format!("is of another run ({}, and not {})", earlier.task, fresh.task)));
    }
    // A short file may have grown since: only its former beginning is compared.
    let then = earlier.head.split(':').next().and_then(|bytes| bytes.parse().ok()).unwrap_or(HEAD);
    let same = head(input, then).is_ok_and(|head| head == earlier.head);
    if !same || !begins_line(input, earlier.offset).unwrap_or(false) {
        return Err(other(&format!("does not fit {}, which has changed since", input.display())));
    }
    let doubled = earlier.doubled + earlier.limit.saturating_sub(earlier.line);
    Ok(JournalState { doubled, complete: false, limit: earlier.line, head: fresh.head.clone(), ..earlier })
}

fn unfinished(earlier: &JournalState, path: &Path) -> Failure {
    let text = format!(
        "an earlier run ended after line {}, and its journal is {}: add --resume to go on there, or remove the journal to send every line again",
        earlier.line,
        path.display()
    );
    Failure::of(ExitKind::Usage, text)
}

fn trouble(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("the journal {} cannot be used: {error}", path.display()))
}

/// The number of bytes at the beginning of a file, at most `most`, and a hash of them.
fn head(input: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(input)?.take(most).read_to_end(&mut bytes)?;
    Ok(format!("{}:{}", bytes.len(), hex(&Sha256::digest(&bytes)[..16])))
}

/// Whether a line begins here, or the file ends.
fn begins_line(input: &Path, offset: u64) -> io::Result<bool> {
    let mut file = File::open(input)?;
    let size = file.metadata()?.len();
    if offset == 0 || offset >= size {
        return Ok(offset == 0 || offset == size);
    }
    let mut before = [0];
    file.seek(SeekFrom::Start(offset - 1))?;
    file.read_exact(&mut before)?;
    Ok(before == *b"\n")
}
