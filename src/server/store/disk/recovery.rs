//! Opening the log: the index takes in what it does not have yet, and the log goes on where it ended.
//!
//! A crash can leave one frame that is not whole, at the end: nobody was told of it, and it is wiped. Anything else that does
//! not fit is damage, and the directory is left as it is.

use std::sync::Arc;

use super::{
    files::{Files, ReadError},
    frame,
    index::{load::LoadError, writer::Writer},
    log::{Log, NextFile, clear},
    open::{DataDir, OpenError},
    position::Position,
    recent::Batch,
    segment::{Directory, Frames, Rest, SEGMENT_HEAD},
};

/// So many changes are taken into the index at once.
const MANY: usize = 10_000;

/// A log and an index that has all of it.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) next: Arc<NextFile>,
    pub(super) writer: Writer,
    pub(super) files: Files,
    /// The number of the next frame.
    pub(super) number: u64,
}

/// Opens the index, brings it up to the log's end, and opens that.
pub(super) fn recover(dir: &mut DataDir, segment_bytes: u64) -> Result<Opened, OpenError> {
    let conn = dir.open_database()?;
    let row = "SELECT log, segment, offset, frame FROM counter";
    let known = conn.query_row(row, [], |row| {
        let at = Position { segment: row.get(1)?, offset: row.get(2)? };
        Ok((row.get::<_, u32>(0)?, at, row.get::<_, u64>(3)?))
    });
    let (log, at, number) = known.map_err(|error| dir.explain(LoadError::Sqlite(error)))?;
    let directory = Directory { path: dir.log_directory(), log };
    if !dir.is_begun() {
        begin(dir, &directory, number, segment_bytes)?;
    }
    let mut replay = Replay {
        files: Files::of(directory.clone()),
        writer: Writer::new(conn, at),
        batch: Batch { changes: Vec::new(), end: at, number },
    };
    replay.run().map_err(|error| dir.explain(error))?;
    let Replay { files, mut writer, batch } = replay;
    check_files(&mut writer, &files, batch.end).map_err(|error| dir.explain(error))?;
    let next = Arc::new(NextFile::from(directory, batch.end.segment + 1, segment_bytes));
    let file = files.get(batch.end.segment).map_err(|error| dir.explain(error.into()))?;
    let log = Log::resume(next.clone(), file, batch.end, batch.number);
    let log = log.map_err(|error| dir.explain(ReadError::Io(error).into()))?;
    Ok(Opened { log, next, writer, files, number: batch.number })
}

/// Makes the first file of the log, unless this is a copy that has one.
fn begin(dir: &mut DataDir, directory: &Directory, number: u64, segment_bytes: u64) -> Result<(), OpenError> {
    dir.make_log_directory()?;
    let made = match directory.is_unmade(1) {
        Ok(true) if number == 1 => directory.create(1, segment_bytes).map(drop),
        looked => looked.map(drop),
    };
    made.map_err(|source| dir.unusable(source))?;
    dir.begin()
}

/// Every file that the index knows of is there, and this log's.
fn check_files(writer: &mut Writer, files: &Files, end: Position) -> Result<(), LoadError> {
    for segment in writer.segments_in_use(end.segment + 1)? {
        files.get(segment)?;
    }
    Ok(())
}

/// The log being read into the index.
struct Replay {
    files: Files,
    writer: Writer,
    batch: Batch,
}

impl Replay {
    fn run(&mut self) -> Result<(), LoadError> {
        loop {
            let file = self.files.get(self.batch.end.segment)?;
            let offset = self.batch.end.offset;
            let mut frames = Frames::from(&file, self.files.directory.log, offset).map_err(ReadError::Io)?;
            self.take(&mut frames)?;
            self.apply()?;
            if self.goes_on_in_next_file()? {
                self.batch.end = Position { segment: self.batch.end.segment + 1, offset: SEGMENT_HEAD };
                continue;
            }
            let size = file.metadata().map_err(ReadError::Io)?.len();
            match frames.rest(self.batch.number).map_err(ReadError::Io)? {
                Rest::Clean if size >= self.batch.end.offset => {}
                Rest::Soiled => clear(&file, self.batch.end.offset, size).map_err(ReadError::Io)?,
                Rest::Clean | Rest::Frames => return Err(self.damaged("frames are missing")),
            }
            return Ok(());
        }
    }

    /// Takes the frames that follow each other.
    fn take(&mut self, frames: &mut Frames<'_>) -> Result<(), LoadError> {
        while let Some((head, items, offset)) = frames.next().map_err(ReadError::Io)? {
            if head.number != self.batch.number {
                frames.offset = offset;
                return Ok(());
            }
            let at = Position { segment: self.batch.end.segment, offset };
            let changes = frame::changes(self.files.directory.log, &items, at);
            self.batch.changes.extend(changes.map_err(|_| self.damaged("a frame cannot be read"))?);
            self.batch.end.offset = frames.offset;
            self.batch.number += 1;
            if self.batch.changes.len() >= MANY {
                self.apply()?;
            }
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), LoadError> {
        if !self.batch.changes.is_empty() {
            self.writer.apply(&self.batch)?;
            self.batch.changes.clear();
        }
        Ok(())
    }

    /// Whether a later file begins with a frame: with the next one, or else some are missing.
    fn goes_on_in_next_file(&self) -> Result<bool, LoadError> {
        let directory = &self.files.directory;
        let later = directory.segments().map_err(ReadError::Io)?;
        for segment in later.into_iter().filter(|segment| *segment > self.batch.end.segment) {
            if directory.is_unmade(segment).map_err(ReadError::Io)? {
                continue;
            }
            let file = self.files.get(segment)?;
            let mut frames = Frames::from(&file, directory.log, SEGMENT_HEAD).map_err(ReadError::Io)?;
            match frames.next().map_err(ReadError::Io)? {
                Some((head, ..)) if head.number == self.batch.number => {
                    return Ok(segment == self.batch.end.segment + 1);
                }
                Some((head, ..)) if head.number > self.batch.number => return Err(self.damaged("frames are missing")),
                _ => {}
            }
        }
        Ok(false)
    }

    fn damaged(&self, what: &str) -> LoadError {
        let Position { segment, offset } = self.batch.end;
        let file = self.files.directory.file(segment);
        ReadError::Damaged(format!("{} is damaged behind byte {offset}: {what}", file.display())).into()
    }
}
