//! The files of the log: their names and headers, creating and opening them.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::store::disk::{
    file_ops::{self, pread},
    log::frame_reader::FrameReader,
};

/// Bytes before the first frame: the kind of file, the log's number, its size and its own number.
pub(crate) const SEGMENT_HEADER: u64 = HEADER_BYTES as u64;
const HEADER_BYTES: usize = 24;
/// Where the header contains the size that the file was created with, in bytes. Zero in files of version 0.1.
const CREATED_SIZE: Range<usize> = 12..16;
const KIND: &[u8; 8] = b"DMSlog\0\x01";

/// The directory of the log.
#[derive(Clone, Debug)]
pub(crate) struct LogDirectory {
    pub(crate) path: PathBuf,
    /// The number of the log.
    pub(crate) log: u32,
}

/// A segment whose end is missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MissingEnd {
    /// The length of the file.
    pub(crate) length: u64,
    /// The size that it was created with. `None` if not even the header is left.
    pub(crate) created: Option<u64>,
}

impl LogDirectory {
    /// The path of a segment.
    pub(crate) fn file(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:010}.log"))
    }

    /// Creates a segment of this size. The file and its directory entry are on the disk when this returns.
    ///
    /// # Errors
    /// When a file of that name exists. It is never overwritten, because it may belong to another process.
    pub(crate) fn create(&self, segment: u64, size: u64) -> io::Result<File> {
        // Without a header a file counts as unfinished: a crash from here until the header is synced leaves a file that the next
        // start removes.
        let file = file_ops::create(&self.file(segment))?;
        let made = self.enlarge(&file, segment, size);
        if made.is_err() {
            // The incomplete file is of no use, and others may need its space.
            let _ = file_ops::remove(&self.file(segment));
        }
        made.map(|()| file)
    }

    /// Enlarges a segment without frames. It stays the same file, because it may be open for reading.
    pub(crate) fn enlarge(&self, file: &File, segment: u64, size: u64) -> io::Result<()> {
        // All blocks are allocated now, so that later commits need no space.
        file_ops::reserve(&self.file(segment), file, size)?;
        // Synced before the header is written: after a power cut the header must not promise more bytes than the file has.
        file_ops::sync_all(file)?;
        self.begin(file, segment, size)
    }

    /// Makes a segment of an existing file of this size. This needs no disk space.
    pub(crate) fn adopt(&self, from: &Path, file: &File, segment: u64, size: u64) -> io::Result<()> {
        // A crash after the rename finds a file without a header, which the next start removes.
        file_ops::rename(from, &self.file(segment))?;
        self.begin(file, segment, size)
    }

    /// Writes the header of a segment, and brings the file and its directory entry to the disk.
    pub(crate) fn begin(&self, file: &File, segment: u64, size: u64) -> io::Result<()> {
        // First the header, then the directory entry: an entry on the disk always leads to a complete file.
        file_ops::write(file, &self.head(segment, size), 0)?;
        file_ops::sync_all(file)?;
        file_ops::sync_directory(&self.path)
    }

    /// Opens a segment. Fails with `InvalidData` if it is not this segment of this log, or shorter than it was created. If its
    /// header is damaged, its commits identify it, because they have checksums of their own.
    pub(crate) fn open(&self, segment: u64) -> io::Result<File> {
        let file = self.open_cut_short(segment)?;
        let what = match self.missing_end(&file, segment)? {
            None => return Ok(file),
            Some(MissingEnd { created: None, .. }) => "it is cut short".to_owned(),
            Some(MissingEnd { length, created: Some(created) }) => {
                format!("it is cut short: {length} bytes of the {created} that it was made with")
            }
        };
        Err(io::Error::new(ErrorKind::InvalidData, what))
    }

    /// Opens a segment for a tool, as [`open`](Self::open) does, also if it is shorter than it was created.
    pub(crate) fn open_cut_short(&self, segment: u64) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(self.file(segment))?;
        let Some(head) = read_head(&file)? else { return Ok(file) };
        // The commits are searched only if the header does not fit, because that may read the whole file.
        if head == self.head(segment, made_size(&head)) || self.has_commits_of(&file, segment)? {
            return Ok(file);
        }
        Err(io::Error::new(ErrorKind::InvalidData, "it belongs to another log"))
    }

    /// Compares the length of a segment with the size in its header, so that a truncated file is noticed before its messages are
    /// missed. `None` if nothing is missing, or if the header is damaged and does not say it.
    pub(crate) fn missing_end(&self, file: &File, segment: u64) -> io::Result<Option<MissingEnd>> {
        let length = file.metadata()?.len();
        let Some(head) = read_head(file)? else { return Ok(Some(MissingEnd { length, created: None })) };
        let created = made_size(&head);
        let is_missing = head == self.head(segment, created) && length < created;
        Ok(is_missing.then_some(MissingEnd { length, created: Some(created) }))
    }

    /// Removes a segment that was created in advance and contains no frame.
    pub(crate) fn discard(&self, segment: u64) -> io::Result<()> {
        file_ops::remove(&self.file(segment))?;
        // Synced, because a file that a power cut brings back would be in the way: no segment is created over an
        // existing file.
        file_ops::sync_directory(&self.path)
    }

    /// Whether a segment is missing, or was being created when the system stopped.
    pub(crate) fn is_missing_or_unfinished(&self, segment: u64) -> io::Result<bool> {
        let file = match File::open(self.file(segment)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            opened => opened?,
        };
        let mut head = [0; HEADER_BYTES];
        match pread::read(&file, &mut head, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(true),
            read => read?,
        }
        // A file with commits has lost its header.
        Ok(head == [0; HEADER_BYTES] && first_number(&file, self.log)?.is_none())
    }

    /// Whether the header of a segment is damaged.
    pub(crate) fn has_damaged_head(&self, file: &File, segment: u64) -> io::Result<bool> {
        let mut head = [0; HEADER_BYTES];
        pread::read(file, &mut head, 0)?;
        Ok(head != self.head(segment, made_size(&head)))
    }

    /// Whether a file contains commits of this log that belong between the commits of its neighbours.
    fn has_commits_of(&self, file: &File, segment: u64) -> io::Result<bool> {
        let Some(number) = first_number(file, self.log)? else { return Ok(false) };
        // A copy of another segment has commits of this log too, but its number does not fit between those of its
        // neighbours.
        for other in self.segments()?.into_iter().filter(|other| *other != segment) {
            let first = first_number(&File::open(self.file(other))?, self.log)?;
            if first.is_some_and(|first| first == number || (first < number) != (other < segment)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The numbers of the existing segments in order.
    pub(crate) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
            found.extend(number);
        }
        found.sort_unstable();
        Ok(found)
    }

    fn head(&self, segment: u64, size: u64) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        head[..8].copy_from_slice(KIND);
        head[8..12].copy_from_slice(&self.log.to_le_bytes());
        // A file of 4 GiB or more, for one enormous commit, is not checked.
        head[CREATED_SIZE].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_le_bytes());
        head[16..].copy_from_slice(&segment.to_le_bytes());
        head
    }
}

/// The header of a segment. `None` if the file is shorter than that.
fn read_head(file: &File) -> io::Result<Option<[u8; HEADER_BYTES]>> {
    let mut head = [0; HEADER_BYTES];
    match pread::read(file, &mut head, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| Some(head)),
    }
}

/// The size, in bytes, that a header says its file was created with.
fn made_size(head: &[u8; HEADER_BYTES]) -> u64 {
    head[CREATED_SIZE].try_into().map_or(0, |size| u64::from(u32::from_le_bytes(size)))
}

/// The number of the first intact commit of a log in a file.
fn first_number(file: &File, log: u32) -> io::Result<Option<u64>> {
    let mut frames = FrameReader::from(file, log, SEGMENT_HEADER)?;
    if let Some((head, ..)) = frames.next()? {
        return Ok(Some(head.number));
    }
    match frames.next_whole(SEGMENT_HEADER)? {
        Some(at) => Ok(frames.head_at(at)?.map(|head| head.number)),
        None => Ok(None),
    }
}

/// Adds the path of the segment to an error.
pub(crate) fn named(error: &io::Error, directory: &LogDirectory, segment: u64) -> io::Error {
    let kind = error.kind();
    let full = if kind == ErrorKind::StorageFull { "; make room on the disk" } else { "" };
    io::Error::new(kind, format!("{}: {error}{full}", directory.file(segment).display()))
}
