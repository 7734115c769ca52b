//! Gives up damaged commits on request, so that the directory opens. Their bytes are kept in a file.
//!
//! Three things keep a directory from opening: commits that cannot be read and are not in the index, so that nobody knows what they
//! changed; a file of the log that was cut short; and the loss of the last commits that were answered, even if the index has their
//! changes, because their messages are lost with them. A repair puts commits without changes in the place of the first, fills up the
//! second with zeros, removes the note of what was answered, and continues a log that ends before its index.

use std::{
    fmt,
    fs::File,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use crate::store::{
    OpenError, Store,
    disk::{
        DiskStore, SEGMENT_BYTES,
        file_ops::{self, pread, private},
        layout::LOG,
        log::{
            answered::{self, AnsweredMark},
            damaged_frame,
            frame::{self, FRAME_HEADER, ITEM_HEADER},
            frame_reader::FrameReader,
            lost_end::LostEnd,
            segment::{LogDirectory, SEGMENT_HEADER, named},
            zeros::clear,
        },
        open::DataDir,
        tools::{
            error::RepairError,
            shadow::{Shadow, hold},
        },
    },
    position::Position,
    run::four_bytes,
};

/// The record that takes the place of a commit that was given up.
const GIVEN_UP_RECORD: &[u8] = b"\"Skipped\"";

/// The commits that a repair may give up.
#[derive(Clone, Copy, Debug)]
pub struct Skip {
    /// Commits that cannot be read, with others after them.
    pub commits: bool,
    /// Answered commits at the end of the log that are missing or cannot be read.
    pub end: bool,
}

/// Commits that are given up, or the missing end of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The segment.
    pub file: PathBuf,
    /// Where they begin.
    pub offset: u64,
    /// The number of their bytes.
    pub bytes: u64,
    /// The number of the first one.
    pub commit: u64,
    /// The number of commits. 0 for the missing end of a file.
    pub commits: u64,
    /// Whether the log ends with them.
    pub end: bool,
    /// Whether this is the missing end of a file.
    pub cut_short: bool,
    /// Whether the index has the changes of the commits, so that only their messages are lost.
    pub in_index: bool,
    #[serde(skip)]
    segment: u64,
    /// Where the log goes on, and with which commit, if the index has the changes of the commits.
    #[serde(skip)]
    resume: Option<(Position, u64)>,
}

impl Dropped {
    /// The option of `data repair` that gives it up.
    pub fn option(&self) -> &'static str {
        if self.end { "--skip-end" } else { "--skip-commits" }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes, commit, commits, cut_short, in_index, .. } = self;
        write!(f, "{} at byte {offset}: ", file.display())?;
        let option = self.option();
        if *cut_short {
            return write!(f, "the file is cut short by {bytes} bytes; {option} fills it up with zeros");
        }
        let noun = if *commits == 1 { "commit" } else { "commits" };
        write!(f, "{commits} {noun} from {commit} on cannot be read; {option} gives them up")?;
        if *in_index {
            f.write_str(", with their messages; the index has their other changes")?;
        }
        Ok(())
    }
}

/// Finds the commits that cannot be read and keep a directory from opening. Changes nothing.
pub fn plan(dir: &Path) -> Result<Vec<Dropped>, RepairError> {
    let _held = hold(dir)?;
    let shadow = Shadow::of(dir).map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
    let looked = look(&shadow.path);
    let (held, directory, plan) =
        looked.map_err(|error| RepairError::Impossible(shadow.real(&error.to_string(), dir)))?;
    drop(held);
    if plan.is_empty() {
        // There may be damage that no repair mends.
        let opened = DiskStore::open(&shadow.path);
        let (store, _) = opened.map_err(|error| {
            let what = match error {
                OpenError::Damaged { file, reason } => format!("{} is damaged: {reason}", file.display()),
                error => error.to_string(),
            };
            let what = shadow.real(&what, dir);
            RepairError::Impossible(format!("{what}. A repair cannot help: restore the directory from a backup"))
        })?;
        drop(store);
    }
    let real = LogDirectory { path: dir.join(LOG), log: directory.log };
    Ok(plan.into_iter().map(|one| Dropped { file: real.file(one.segment), ..one }).collect())
}

/// Gives up the commits of the plan, as far as `skip` allows, and opens the directory.
pub fn repair(dir: &Path, skip: Skip, keep: &Path) -> Result<Vec<Dropped>, RepairError> {
    let (held, directory, plan) = look(dir)?;
    if let Some(one) = plan.iter().find(|one| if one.end { !skip.end } else { !skip.commits }) {
        return Err(RepairError::Impossible(one.to_string()));
    }
    if !plan.is_empty() {
        // On the disk before anything is overwritten.
        keep_bytes(&directory, &plan, keep).map_err(|source| RepairError::File { path: keep.to_owned(), source })?;
        for one in &plan {
            give_up(&directory, one)?;
        }
    }
    // Opening takes the lock of the directory itself.
    drop(held);
    // Shows that recovery accepts the log now, and brings the index up to its end.
    let (store, _) = DiskStore::open(dir)?;
    store.release(true).map_err(|error| RepairError::Impossible(error.to_string()))?;
    Ok(plan)
}

fn look(dir: &Path) -> Result<(DataDir, LogDirectory, Vec<Dropped>), RepairError> {
    let mut held = DataDir::lock_existing(dir)?;
    held.lock_log_directory()?;
    let conn = held.open_database()?;
    let known = conn.query_row("SELECT log, segment, offset, frame FROM counter", [], |row| {
        Ok((row.get(0)?, Position { segment: row.get(1)?, offset: row.get(2)? }, row.get(3)?))
    });
    let (log, at, number) = known.map_err(|error| held.explain(error.into()))?;
    let directory = LogDirectory { path: dir.join(LOG), log };
    let search = DamageSearch {
        directory: &directory,
        answered: answered::read(&directory.path, log).ok().flatten(),
        number,
        indexed: number,
        plan: Vec::new(),
    };
    match search.run(at) {
        Ok(plan) => Ok((held, directory, plan)),
        // The error names the file.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = format!("a file of the log is missing, which cannot be repaired: restore a backup ({error})");
            Err(RepairError::Impossible(what))
        }
        Err(source) => Err(RepairError::File { path: directory.path, source }),
    }
}

/// The state of the search.
struct DamageSearch<'a> {
    directory: &'a LogDirectory,
    answered: Option<AnsweredMark>,
    /// The number of the next commit.
    number: u64,
    /// The number of the first commit that the index lacks.
    indexed: u64,
    plan: Vec<Dropped>,
}

impl DamageSearch<'_> {
    fn run(mut self, at: Position) -> io::Result<Vec<Dropped>> {
        // First of all, because the others need the files with all their bytes.
        self.drop_missing_ends(at)?;
        let (mut segment, mut offset) = (at.segment, at.offset);
        loop {
            let file = self.open(segment)?;
            let mut frames = FrameReader::from(&file, self.directory.log, offset)?;
            while self.step(&mut frames, segment)? {}
            let begin = frames.offset;
            match self.first_of(segment + 1)? {
                Some(number) => {
                    if number > self.number {
                        let bytes = self.size(segment, &file)?.saturating_sub(begin);
                        self.drop_until(number, Position { segment, offset: begin }, bytes);
                    }
                    (segment, offset) = (segment + 1, SEGMENT_HEADER);
                }
                None => {
                    self.drop_end(Position { segment, offset: begin }, &file)?;
                    return Ok(self.plan);
                }
            }
        }
    }

    fn open(&self, segment: u64) -> io::Result<File> {
        self.directory.open_cut_short(segment).map_err(|error| named(&error, self.directory, segment))
    }

    /// The size of a segment, with the bytes that are missing at its end.
    fn size(&self, segment: u64, file: &File) -> io::Result<u64> {
        let end = self.directory.missing_end(file, segment)?;
        Ok(end.map_or(file.metadata()?.len(), |end| end.created.unwrap_or(SEGMENT_BYTES)))
    }

    /// Adds the missing ends of files to the plan. `at` is the end of what the index has.
    fn drop_missing_ends(&mut self, at: Position) -> io::Result<()> {
        let segments = self.directory.segments()?;
        for (place, segment) in segments.iter().copied().enumerate() {
            // A file that cannot be opened is either not needed, or reported by the search.
            let Ok(file) = self.open(segment) else { continue };
            let Some(found) = self.directory.missing_end(&file, segment)? else { continue };
            // A start removes a file without a header in which the index has nothing.
            if found.created.is_none() && segment > at.segment {
                continue;
            }
            let mut end = true;
            for later in segments.iter().skip(place + 1) {
                end &= self.first_of(*later)?.is_none();
            }
            let bytes = self.size(segment, &file)? - found.length;
            let (commit, file) = (self.number, self.directory.file(segment));
            let (offset, commits, cut_short, in_index, resume) = (found.length, 0, true, false, None);
            self.plan.push(Dropped { file, offset, bytes, commit, commits, end, cut_short, in_index, segment, resume });
        }
        Ok(())
    }

    /// Goes past one commit, or past the bytes before the next one that can be read.
    fn step(&mut self, frames: &mut FrameReader<'_>, segment: u64) -> io::Result<bool> {
        let at = Position { segment, offset: frames.offset };
        if frames.next()?.is_some_and(|(head, ..)| head.number == self.number) {
            self.number += 1;
            return Ok(true);
        }
        // `next` may have gone past an intact frame with another number.
        frames.offset = at.offset;
        let next = frames.next_whole(at.offset)?;
        let bytes = frames.bytes_until(at.offset, next)?;
        if let Some(mended) = damaged_frame::read(self.directory.log, self.number, &bytes, at) {
            frames.offset += mended.length as u64;
            self.number += 1;
            return Ok(true);
        }
        let Some(next) = next else { return Ok(false) };
        // A frame with a lower number cannot follow this commit, so it does not say where the log goes on.
        let Some(head) = frames.head_at(next)?.filter(|head| head.number >= self.number) else { return Ok(false) };
        self.drop_until(head.number, at, next - at.offset);
        frames.offset = next;
        Ok(true)
    }

    /// The number of the first intact frame of a segment, if the segment exists.
    fn first_of(&self, segment: u64) -> io::Result<Option<u64>> {
        if self.directory.is_missing_or_unfinished(segment)? {
            return Ok(None);
        }
        let file = self.open(segment)?;
        let mut frames = FrameReader::from(&file, self.directory.log, SEGMENT_HEADER)?;
        if let Some((head, ..)) = frames.next()? {
            return Ok(Some(head.number));
        }
        // The segment begins with damage, which `step` finds when it comes there.
        let next = frames.next_whole(SEGMENT_HEADER)?;
        Ok(next.map(|_| self.number))
    }

    fn drop_until(&mut self, number: u64, at: Position, bytes: u64) {
        self.drop_commits(number, at, bytes, false);
        self.number = number;
    }

    fn drop_end(&mut self, at: Position, file: &File) -> io::Result<()> {
        let Some(answered) = self.answered.filter(|answered| answered.number >= self.number) else {
            if let Some(answered) = self.answered {
                self.drop_end_in_index(answered, at)?;
            }
            return self.drop_end_before_index(at);
        };
        let bytes = self.size(at.segment, file)?.saturating_sub(at.offset);
        self.drop_commits(answered.number + 1, at, bytes, true);
        Ok(())
    }

    /// Finds commits at the end that the index has and the log has lost. Recovery refuses them too, because their messages are lost.
    fn drop_end_in_index(&mut self, answered: AnsweredMark, log_end: Position) -> io::Result<()> {
        let AnsweredMark { number, at: Position { segment, offset } } = answered;
        let file = match self.open(segment) {
            // All its messages have expired.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let mut frames = FrameReader::from(&file, self.directory.log, SEGMENT_HEADER)?;
        if frames.begins_like(offset, number)? {
            return Ok(());
        }
        // Those behind the last one before it that can be read.
        let (mut commit, mut begin) = (number, offset);
        while frames.offset < offset {
            if let Some((head, ..)) = frames.next()? {
                (commit, begin) = (head.number + 1, frames.offset);
                continue;
            }
            let Some(next) = frames.next_whole(frames.offset)? else { break };
            frames.offset = next;
        }
        let (file, bytes) = (self.directory.file(segment), self.size(segment, &file)?.saturating_sub(begin));
        let (offset, commits, end, cut_short, in_index) =
            (begin, (number + 1).saturating_sub(commit), true, false, true);
        let resume = Some((log_end, self.number));
        self.plan.push(Dropped { file, offset, bytes, commit, commits, end, cut_short, in_index, segment, resume });
        Ok(())
    }

    /// Finds commits that the index has and an older log never had.
    fn drop_end_before_index(&mut self, at: Position) -> io::Result<()> {
        // The search has found commits that follow those of the index, or the note shows what is missing.
        if self.number > self.indexed || self.plan.iter().any(|one| one.in_index) {
            return Ok(());
        }
        let Some(LostEnd { last, unwritten: Some(begin) }) =
            LostEnd::find(self.directory, (at, self.number), self.answered)?
        else {
            return Ok(());
        };
        let (commit, commits, segment, offset) = (last + 1, self.number - 1 - last, begin.segment, begin.offset);
        let file = self.open(segment)?;
        let (file, bytes) = (self.directory.file(segment), self.size(segment, &file)?.saturating_sub(offset));
        let (end, cut_short, in_index, resume) = (true, false, true, Some((at, self.number)));
        self.plan.push(Dropped { file, offset, bytes, commit, commits, end, cut_short, in_index, segment, resume });
        Ok(())
    }

    /// Adds the commits from the next one to the one before `number` to the plan.
    fn drop_commits(&mut self, number: u64, Position { segment, offset }: Position, bytes: u64, end: bool) {
        let (commit, commits) = (self.number, number - self.number);
        let (file, cut_short, in_index, resume) = (self.directory.file(segment), false, false, None);
        self.plan.push(Dropped { file, offset, bytes, commit, commits, end, cut_short, in_index, segment, resume });
    }
}

/// Writes the given-up parts to a file: one line for each part, its bytes in hexadecimal without trailing zeros.
fn keep_bytes(directory: &LogDirectory, plan: &[Dropped], keep: &Path) -> io::Result<()> {
    // A new file, so that a second repair does not overwrite what the first one kept.
    let mut kept = private().write(true).create_new(true).open(keep)?;
    for one in plan {
        let file = directory.open_cut_short(one.segment)?;
        let there = file.metadata()?.len().saturating_sub(one.offset).min(one.bytes);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        pread::read(&file, &mut bytes, one.offset)?;
        let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let hex: String = bytes[..length].iter().map(|byte| format!("{byte:02x}")).collect();
        let line = serde_json::json!({ "file": one.file, "offset": one.offset, "commit": one.commit, "commits": one.commits, "hex": hex });
        writeln!(kept, "{line}")?;
    }
    kept.sync_all()
}

fn give_up(directory: &LogDirectory, one: &Dropped) -> Result<(), RepairError> {
    let failed = |source| RepairError::File { path: directory.file(one.segment), source };
    let file = directory.open_cut_short(one.segment).map_err(failed)?;
    if one.cut_short {
        return directory.enlarge(&file, one.segment, one.offset + one.bytes).map_err(failed);
    }
    if one.end {
        // The end first, then the note: a crash in between leaves a directory that is still refused, and the repair can be
        // repeated. Where the index has the commits, single messages of them may still be whole, and are left.
        if !one.in_index {
            clear(&file, one.offset, one.offset + one.bytes).map_err(failed)?;
        }
        if let Some((at, number)) = one.resume {
            // Shows that nothing is expected any more before it.
            let frame = empty_frame(directory.log, number, 0);
            let file = directory.open_cut_short(at.segment).map_err(failed)?;
            file_ops::write(&file, &frame, at.offset).and_then(|()| file_ops::sync_all(&file)).map_err(failed)?;
        }
        return match std::fs::remove_file(directory.path.join(answered::NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        };
    }
    let frames = nothing(directory.log, one).ok_or_else(|| {
        let what = format!("{} commits do not fit into {} bytes of {}", one.commits, one.bytes, one.file.display());
        RepairError::Impossible(format!("{what}: a file of the log is missing; restore the directory from a backup"))
    })?;
    // Frames with the same numbers take their place, so that the replay goes on without a gap.
    file_ops::write(&file, &frames, one.offset).and_then(|()| file_ops::sync_all(&file)).map_err(failed)
}

/// Frames that change nothing, to take the place of others.
fn nothing(log: u32, one: &Dropped) -> Option<BytesMut> {
    let least = FRAME_HEADER + ITEM_HEADER + GIVEN_UP_RECORD.len();
    let length = usize::try_from(one.bytes).ok()?;
    let spare = length.checked_sub(least.checked_mul(usize::try_from(one.commits).ok()?)?)?;
    let mut bytes = BytesMut::with_capacity(length);
    for number in one.commit..one.commit + one.commits {
        // The frames have to cover every byte up to the next intact one. JSON ignores blanks after a value.
        let blanks = if number + 1 == one.commit + one.commits { spare } else { 0 };
        bytes.put_slice(&empty_frame(log, number, blanks));
    }
    Some(bytes)
}

/// A frame that changes nothing, with blanks that make it longer.
fn empty_frame(log: u32, number: u64, blanks: usize) -> BytesMut {
    let (mut items, mut bytes) = (BytesMut::new(), BytesMut::new());
    items.put_u8(frame::RECORD);
    items.put_u32_le(four_bytes(GIVEN_UP_RECORD.len() + blanks));
    items.put_slice(GIVEN_UP_RECORD);
    items.put_bytes(b' ', blanks);
    bytes.put_slice(&frame::FRAME_MAGIC);
    bytes.put_u32_le(four_bytes(items.len()));
    bytes.put_u64_le(number);
    bytes.put_u32_le(frame::frame_checksum(log, number, &items));
    bytes.put_slice(&items);
    bytes
}
