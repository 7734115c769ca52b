//! Recovery: completes the index from the log, and finds the end of the log.
//!
//! A crash can leave one incomplete frame at the end of the log. No request was answered for it, and it is overwritten with zeros.
//! Anything else that does not fit is damage. If there is no doubt about what a damaged frame changed, for example because only a
//! message in it is damaged, recovery goes on after it (`damaged_frame`). Otherwise it fails and leaves the directory as it is.

use std::{
    fs::File,
    io::{self, ErrorKind},
    sync::Arc,
};

use crate::store::{
    OpenError,
    disk::{
        file_ops,
        index::{checksums, error::IndexError, writer::Writer},
        log::reserve::Reserve,
        log::{
            Log,
            answered::{self, AnsweredFile, AnsweredMark},
            damaged_frame,
            file_cache::{FileCache, ReadError},
            frame::{self, Change},
            frame_reader::{FrameReader, Tail},
            lost_end::LostEnd,
            next_segment::NextSegment,
            segment::{LogDirectory, SEGMENT_HEADER, named},
            zeros::clear,
        },
        memtable::IndexBatch,
        open::DataDir,
    },
    position::Position,
};

/// The number of changes taken into the index in one transaction.
const BATCH_CHANGES: usize = 10_000;

/// A log, and an index that has all of it.
pub(crate) struct RecoveredLog {
    pub(crate) log: Log,
    pub(crate) next: Arc<NextSegment>,
    pub(crate) writer: Writer,
    pub(crate) files: FileCache,
    /// The number of the next frame.
    pub(crate) number: u64,
}

/// Opens the index, completes it from the log, and opens the end of the log.
pub(crate) fn recover(dir: &mut DataDir, segment_bytes: u64, reserve: Arc<Reserve>) -> Result<RecoveredLog, OpenError> {
    // Both locks before the database is opened: SQLite would write to it.
    dir.lock_log_directory()?;
    let conn = dir.open_database()?;
    // The index says where the replay begins, so it is checked before anything is believed.
    checksums::check(&conn).map_err(|error| dir.explain(error))?;
    let row = "SELECT log, segment, offset, frame FROM counter";
    let known = conn.query_row(row, [], |row| {
        let at = Position { segment: row.get(1)?, offset: row.get(2)? };
        Ok((row.get::<_, u32>(0)?, at, row.get::<_, u64>(3)?))
    });
    let (log, at, number) = known.map_err(|error| dir.explain(IndexError::Sqlite(error)))?;
    let directory = LogDirectory { path: dir.log_directory(), log };
    if !dir.is_begun() {
        begin(dir, &directory, number, segment_bytes)?;
    }
    let mut replay = Replay {
        answered: answered::read(&directory.path, log).map_err(|source| dir.unusable(source))?,
        files: FileCache::of(directory.clone()),
        writer: Writer::new(conn, at),
        batch: IndexBatch { changes: Vec::new(), end: at, number },
        indexed: number,
        unsynced: None,
    };
    // Nothing in the directory is changed until the replay has accepted the log.
    replay.run().map_err(|error| dir.explain(error))?;
    let Replay { files, mut writer, batch, answered: noted, .. } = replay;
    // After the replay, because it may have deleted runs of segments that no longer exist.
    check_files(&mut writer, &files, batch.end).map_err(|error| dir.explain(error))?;
    let made = check_segments_made_ahead(&directory, batch.end.segment, segment_bytes);
    let made = made.map_err(|error| dir.explain(ReadError::Io(error).into()))?;
    // Discarded files are closed, so that they are not read when files of the same numbers are created.
    files.close_behind(batch.end.segment);
    // Opened for writing only now: the note of the previous process decided what the end of the log is.
    let answered = AnsweredFile::open(&directory.path, log).map_err(|source| dir.unusable(source))?;
    let next = Arc::new(NextSegment::from(directory, batch.end.segment + 1, segment_bytes, made, reserve));
    let file = files.get(batch.end.segment).map_err(|error| dir.explain(error.into()))?;
    // The position of the last commit is known if it was noted.
    let last = noted.filter(|noted| noted.number + 1 == batch.number);
    let last = last.unwrap_or(AnsweredMark { number: batch.number - 1, at: Position::default() });
    let log = Log::resume(next.clone(), file, batch.end, last, answered);
    let log = log.map_err(|error| dir.explain(ReadError::Io(error).into()))?;
    Ok(RecoveredLog { log, next, writer, files, number: batch.number })
}

/// Creates the first segment, unless this is a copy that has one.
fn begin(dir: &mut DataDir, directory: &LogDirectory, number: u64, segment_bytes: u64) -> Result<(), OpenError> {
    if number == 1 {
        make_first(directory, segment_bytes).map_err(|source| dir.unusable(source))?;
    }
    // Said only after the log exists on the disk: a directory that is marked and has no log counts as damaged.
    dir.begin()
}

fn make_first(directory: &LogDirectory, segment_bytes: u64) -> io::Result<()> {
    if directory.is_missing_or_unfinished(1)? {
        // A first start was interrupted while it created the file. No commit was ever answered.
        if directory.file(1).exists() {
            directory.discard(1)?;
        }
        return directory.create(1, segment_bytes).map(drop);
    }
    // If it cannot be opened, the replay reports the reason.
    let Ok(file) = directory.open(1) else { return Ok(()) };
    match FrameReader::from(&file, directory.log, SEGMENT_HEADER)?.rest(1)? {
        Tail::Zeros => adopt_empty(directory, &file, 1),
        Tail::Torn { .. } | Tail::LaterFrames => Ok(()),
    }
}

/// Checks that every segment in the index exists, belongs to this log and is long enough. A damaged header is no reason to refuse
/// it: the index finds the messages, and each of them has checksums.
fn check_files(writer: &mut Writer, files: &FileCache, end: Position) -> Result<(), IndexError> {
    for segment in writer.segments_in_use(end.segment + 1)? {
        let file = files.get(segment)?;
        let size = file.metadata().map_err(ReadError::Io)?.len();
        let messages = writer.bytes_in_use(segment)?;
        if files.directory.has_damaged_head(&file, segment).map_err(ReadError::Io)? {
            let path = files.directory.file(segment);
            tracing::error!(file = %path.display(), "the header of a file of the log is damaged; its commits show that it belongs to this log, and it is used");
        }
        if size < SEGMENT_HEADER + messages {
            let path = files.directory.file(segment);
            let what =
                format!("{} is cut short: it has {size} bytes, and {messages} bytes of messages", path.display());
            return Err(ReadError::Damaged(what).into());
        }
    }
    Ok(())
}

/// Checks the segments after the end of the log, which were created in advance. The next one is used if it is unchanged. None is
/// overwritten that contains a frame.
fn check_segments_made_ahead(directory: &LogDirectory, end: u64, segment_bytes: u64) -> io::Result<Option<File>> {
    let mut next = None;
    for segment in directory.segments()?.into_iter().filter(|segment| *segment > end) {
        if !directory.is_missing_or_unfinished(segment)? {
            let named = |error: &io::Error| named(error, directory, segment);
            let file = directory.open(segment).map_err(|error| named(&error))?;
            let size = file.metadata()?.len();
            let mut frames = FrameReader::from(&file, directory.log, SEGMENT_HEADER)?;
            match frames.rest(0)? {
                Tail::Zeros if segment == end + 1 && size == segment_bytes => {
                    adopt_empty(directory, &file, segment)?;
                    next = Some(file);
                    continue;
                }
                Tail::Zeros => {}
                Tail::Torn { bytes } if frames.next()?.is_none() => {
                    log_dropped(directory, beginning_of(segment), bytes)
                }
                Tail::Torn { .. } | Tail::LaterFrames => {
                    let what = "it has commits that do not follow those before it";
                    return Err(named(&io::Error::new(ErrorKind::InvalidData, what)));
                }
            }
        }
        directory.discard(segment)?;
    }
    Ok(next)
}

/// Takes over a segment without frames. The process that created it may have been killed before the file and its directory entry
/// were on the disk; or its sync failed; or it could not bring zeros to the disk in place of a refused commit. So all of it is
/// written and synced again.
fn adopt_empty(directory: &LogDirectory, file: &File, segment: u64) -> io::Result<()> {
    let size = file.metadata()?.len();
    // Content before the header and the name, as when a segment is created.
    clear(file, SEGMENT_HEADER, size)?;
    directory.begin(file, segment, size)
}

fn beginning_of(segment: u64) -> Position {
    Position { segment, offset: SEGMENT_HEADER }
}

fn log_dropped(directory: &LogDirectory, Position { segment, offset }: Position, bytes: u64) {
    tracing::warn!(
        file = %directory.file(segment).display(),
        offset,
        bytes,
        "a crash cut off the last commit while it was written: its bytes were dropped. No request was answered for it"
    );
}

/// The state of the replay.
struct Replay {
    answered: Option<AnsweredMark>,
    files: FileCache,
    writer: Writer,
    batch: IndexBatch,
    /// The number of the first frame that the index lacked at the start.
    indexed: u64,
    /// A file with accepted commits that may not be on the disk yet.
    unsynced: Option<Arc<File>>,
}

impl Replay {
    fn run(&mut self) -> Result<(), IndexError> {
        loop {
            let file = match self.files.get(self.batch.end.segment) {
                Err(gone @ ReadError::Gone(_)) => {
                    let ahead = self.check_index().err().filter(|error| matches!(error, IndexError::Ahead { .. }));
                    return Err(ahead.unwrap_or(gone.into()));
                }
                file => file?,
            };
            let offset = self.batch.end.offset;
            let mut frames = FrameReader::from(&file, self.files.directory.log, offset).map_err(ReadError::Io)?;
            self.take(&file, &mut frames)?;
            self.apply()?;
            if self.goes_on_in_next_file()? {
                self.batch.end = Position { segment: self.batch.end.segment + 1, offset: SEGMENT_HEADER };
                continue;
            }
            let size = file.metadata().map_err(ReadError::Io)?.len();
            let rest = frames.rest(self.batch.number).map_err(ReadError::Io)?;
            if rest == Tail::LaterFrames || size < self.batch.end.offset {
                self.check_index()?;
                return Err(self.damaged("frames are missing"));
            }
            // Checked before anything is overwritten, because a directory that is refused must not be changed.
            self.check_answered()?;
            self.check_index()?;
            // The page cache may show zeros where the disk still has the frame of a refused commit, because the process that wrote
            // the zeros could not sync them.
            clear(&file, self.batch.end.offset, size).map_err(ReadError::Io)?;
            if let Tail::Torn { bytes } = rest {
                log_dropped(&self.files.directory, self.batch.end, bytes);
            }
            return Ok(());
        }
    }

    /// Checks that no answered commit is missing at the end of the log.
    fn check_answered(&self) -> Result<(), IndexError> {
        let Some(AnsweredMark { number, at }) = self.answered else { return Ok(()) };
        if number >= self.batch.number {
            let missing = number + 1 - self.batch.number;
            return Err(self.damaged(&format!("the last {missing} commits that were answered are missing")));
        }
        let file = match self.files.get(at.segment) {
            // All its messages have expired.
            Err(ReadError::Gone(_)) => return Ok(()),
            file => file?,
        };
        let frames = FrameReader::from(&file, self.files.directory.log, at.offset).map_err(ReadError::Io)?;
        // A nearly intact header is enough. A damaged message in the frame must not prevent opening.
        if frames.begins_like(at.offset, number).map_err(ReadError::Io)? {
            return Ok(());
        }
        Err(damaged_behind(&self.files, at, &format!("commit {number}, which was answered, cannot be read")))
    }

    /// Checks that the log has the commits that the index has had from the start.
    fn check_index(&self) -> Result<(), IndexError> {
        // A frame that follows those of the index shows that they were there.
        if self.batch.number > self.indexed {
            return Ok(());
        }
        let end = (self.batch.end, self.batch.number);
        let lost = LostEnd::find(&self.files.directory, end, self.answered).map_err(ReadError::Io)?;
        lost.map_or(Ok(()), |lost| Err(IndexError::Ahead { index: self.indexed - 1, log: lost.last }))
    }

    /// Takes in frames as long as each follows the one before.
    fn take(&mut self, file: &Arc<File>, frames: &mut FrameReader<'_>) -> Result<(), IndexError> {
        loop {
            let begin = frames.offset;
            let at = Position { segment: self.batch.end.segment, offset: begin };
            let changes = match frames.next().map_err(ReadError::Io)? {
                Some((head, items, _)) if head.number == self.batch.number => {
                    if !self.was_answered(head.number) {
                        // See `was_answered`: a sync alone would not write pages that the system believes to be clean after a
                        // failed sync.
                        frames.rewrite(begin).map_err(ReadError::Io)?;
                        self.unsynced = Some(file.clone());
                    }
                    frame::changes(self.files.directory.log, &items, at)
                        .map_err(|_| self.damaged("a frame cannot be read"))?
                }
                Some(_) => {
                    frames.offset = begin;
                    return Ok(());
                }
                None => {
                    let Some(changes) = self.mend(frames)? else { return Ok(()) };
                    changes
                }
            };
            self.batch.changes.extend(changes);
            self.batch.end.offset = frames.offset;
            self.batch.number += 1;
            if self.batch.changes.len() >= BATCH_CHANGES {
                self.apply()?;
            }
        }
    }

    /// Decodes a damaged frame, if it is known to have been complete and can be decoded without guessing.
    fn mend(&self, frames: &mut FrameReader<'_>) -> Result<Option<Vec<Change>>, IndexError> {
        let Position { segment, .. } = self.batch.end;
        let (number, at) = (self.batch.number, Position { segment, offset: frames.offset });
        let next = frames.next_whole(at.offset).map_err(ReadError::Io)?;
        if !self.was_answered(number) && next.is_none() && !self.goes_on_behind(number)? {
            return Ok(None);
        }
        let bytes = frames.bytes_until(at.offset, next).map_err(ReadError::Io)?;
        let Some(mended) = damaged_frame::read(self.files.directory.log, number, &bytes, at) else { return Ok(None) };
        frames.offset += mended.length as u64;
        tracing::error!(
            file = %self.files.directory.file(segment).display(),
            offset = at.offset,
            "a commit in the log is damaged; its changes could be read, and its unreadable messages are set aside"
        );
        Ok(Some(mended.changes))
    }

    /// Whether the next segment begins with the frame after this one.
    fn goes_on_behind(&self, number: u64) -> Result<bool, IndexError> {
        let next = self.batch.end.segment + 1;
        if self.files.directory.is_missing_or_unfinished(next).map_err(ReadError::Io)? {
            return Ok(false);
        }
        let file = self.files.get(next)?;
        let frames = FrameReader::from(&file, self.files.directory.log, SEGMENT_HEADER).map_err(ReadError::Io)?;
        Ok(frames.head_at(SEGMENT_HEADER).map_err(ReadError::Io)?.is_some_and(|head| head.number == number + 1))
    }

    /// Whether a commit is known to have been answered, and so to be on the disk. Another one may be in the page cache only, because
    /// its process was killed before the sync or the sync failed. Then no later sync writes it unless it is written again. This has
    /// to happen before it is taken into the index, because answers will rest on it.
    fn was_answered(&self, number: u64) -> bool {
        self.answered.is_some_and(|answered| answered.number >= number)
    }

    fn apply(&mut self) -> Result<(), IndexError> {
        if let Some(file) = self.unsynced.take() {
            // Before the index: if the index reached the disk first and the log lost the frame, the index would point to nothing.
            file_ops::sync_data(&file).map_err(ReadError::Io)?;
        }
        if !self.batch.changes.is_empty() {
            self.writer.apply(&self.batch)?;
            self.batch.changes.clear();
        }
        Ok(())
    }

    /// Whether a later segment begins with the next frame. If it begins with a later one, frames are missing.
    fn goes_on_in_next_file(&self) -> Result<bool, IndexError> {
        let directory = &self.files.directory;
        let later = directory.segments().map_err(ReadError::Io)?;
        for segment in later.into_iter().filter(|segment| *segment > self.batch.end.segment) {
            if directory.is_missing_or_unfinished(segment).map_err(ReadError::Io)? {
                continue;
            }
            let file = self.files.get(segment)?;
            let mut frames = FrameReader::from(&file, directory.log, SEGMENT_HEADER).map_err(ReadError::Io)?;
            match frames.next().map_err(ReadError::Io)? {
                Some((head, ..)) if head.number == self.batch.number => {
                    let next = self.batch.end.segment + 1;
                    if segment == next {
                        return Ok(true);
                    }
                    let missing = directory.file(next);
                    return Err(self.damaged(&format!("the file {} is missing", missing.display())));
                }
                Some((head, ..)) if head.number > self.batch.number => return Err(self.damaged("frames are missing")),
                // Its first frame is damaged, and `mend` decides about it.
                None if segment == self.batch.end.segment + 1 && self.was_answered_in(segment) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Whether the next frame was answered and only this segment can contain it.
    fn was_answered_in(&self, segment: u64) -> bool {
        self.answered.is_some_and(|AnsweredMark { number, at }| number >= self.batch.number && at.segment >= segment)
    }

    fn damaged(&self, what: &str) -> IndexError {
        damaged_behind(&self.files, self.batch.end, what)
    }
}

fn damaged_behind(files: &FileCache, Position { segment, offset }: Position, what: &str) -> IndexError {
    let file = files.directory.file(segment);
    ReadError::Damaged(format!("{} is damaged behind byte {offset}: {what}", file.display())).into()
}
