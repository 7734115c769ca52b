//! Checks a data directory without changing it: which files, commits and messages are damaged, and whether it opens.
//!
//! Opening is tried on a shadow: copies of the index and of the end of the log, and links to the segments that opening only reads.

use std::{io, path::Path};

use serde::Serialize;

use crate::store::{
    OpenError, ReadBatch, ReadLimit, Snapshot, Store, StreamId,
    disk::{
        DiskStore,
        index::checksums,
        layout::{DATABASE, LOG, MANIFEST},
        log::{
            frame_reader::FrameReader,
            segment::{LogDirectory, SEGMENT_HEADER},
        },
        open::require_data_directory,
        tools::{
            backup::{Backup, CopiedFile, sum_of},
            shadow::{Shadow, hold},
        },
    },
};

/// How much of a stream is read at once.
const READ: ReadLimit = ReadLimit { messages: 1_000, bytes: 4 * 1024 * 1024 };

/// The condition of a data directory.
#[derive(Debug, Default, Serialize)]
pub struct Condition {
    /// Why it does not open.
    pub refused: Option<String>,
    /// The number of intact messages.
    pub messages: u64,
    /// Damaged messages. They are set aside when the directory is opened.
    pub damaged: Vec<DamagedPlace>,
    /// The number of intact commits in the log.
    pub commits: u64,
    /// Damaged commits. Their changes are in the index or could be decoded, unless the directory is refused.
    pub damaged_commits: Vec<FilePlace>,
    /// Files of a backup that have changed since they were copied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed_files: Vec<String>,
}

impl Condition {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        let Self { refused, damaged, damaged_commits, changed_files, .. } = self;
        refused.is_none() && damaged.is_empty() && damaged_commits.is_empty() && changed_files.is_empty()
    }
}

/// A place in a file.
#[derive(Debug, Serialize)]
pub struct FilePlace {
    pub file: String,
    pub offset: u64,
}

/// A damaged message.
#[derive(Debug, Serialize)]
pub struct DamagedPlace {
    pub queue: String,
    /// The group whose dead letter it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `messages`, `deadletters` or `delayed`.
    pub stream: &'static str,
    pub sequence: u64,
    pub file: String,
    pub offset: u64,
    pub reason: String,
}

/// Checks a directory that no process uses.
pub fn check(dir: &Path) -> Result<Condition, OpenError> {
    let unusable = |source| OpenError::Directory { dir: dir.to_owned(), source };
    // No server may write meanwhile, or the shadow would mix two states.
    let _held = hold(dir)?;
    // Opening writes to the directory, and damage must be looked at, not changed.
    let shadow = Shadow::of(dir).map_err(unusable)?;
    let mut condition = Condition::default();
    // Opened as a server would open it, so that the answer is that of the server and not of a second reading of the
    // format.
    match DiskStore::open(&shadow.path) {
        Ok((store, snapshot)) => {
            let index = store.change_index(|writer| checksums::check_whole(&writer.conn));
            condition.refused = index
                .err()
                .map(|error| OpenError::Damaged { file: dir.join(DATABASE), reason: error.to_string() }.to_string());
            read_all(&store, &snapshot, &mut condition);
        }
        Err(error) => condition.refused = Some(shadow.real(&error.to_string(), dir)),
    }
    for damaged in &mut condition.damaged {
        damaged.file = shadow.real(&damaged.file, dir);
    }
    if let Some(log) = shadow.log {
        read_commits(&LogDirectory { path: dir.join(LOG), log }, &mut condition).map_err(unusable)?;
    }
    Ok(condition)
}

/// Checks a backup: its files are unchanged, and it opens.
pub fn verify(dir: &Path) -> Result<(Backup, Condition), OpenError> {
    let unusable = |source| OpenError::Directory { dir: dir.to_owned(), source };
    require_data_directory(dir)?;
    let list = match std::fs::read(dir.join(MANIFEST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::NoBackup { dir: dir.to_owned() });
        }
        list => list.map_err(unusable)?,
    };
    let backup: Backup = serde_json::from_slice(&list)
        .map_err(|error| OpenError::Damaged { file: dir.join(MANIFEST), reason: error.to_string() })?;
    // Opened too, and not only compared with its checksums: a backup of a damaged directory has the right checksums.
    let mut condition = check(dir)?;
    for file in &backup.files {
        condition.changed_files.extend(change_of(dir, file));
    }
    Ok((backup, condition))
}

/// How a file of a backup has changed since it was copied.
fn change_of(dir: &Path, file: &CopiedFile) -> Option<String> {
    match sum_of(dir, &file.name) {
        Ok(found) if found == *file => None,
        Ok(found) if found.bytes != file.bytes => {
            Some(format!("{} has {} bytes of {}", file.name, found.bytes, file.bytes))
        }
        Ok(_) => Some(format!("{} does not match its checksum", file.name)),
        Err(error) => Some(format!("{} cannot be read: {error}", file.name)),
    }
}

fn read_all(store: &DiskStore, snapshot: &Snapshot, condition: &mut Condition) {
    let name_of = |id: &dms_protocol::queue::QueueId| {
        let queue = snapshot.queues.iter().find(|queue| queue.row.id == *id);
        queue.map_or_else(|| id.to_string(), |queue| queue.row.name.clone())
    };
    let queues = snapshot.queues.iter().flat_map(|queue| {
        let name = &queue.row.name;
        [(queue.row.stream(), name.clone(), None, "messages"), (queue.row.delay_queue(), name.clone(), None, "delayed")]
    });
    let groups = snapshot.groups.iter().map(|group| {
        let row = &group.row;
        (row.dead_letters(), name_of(&row.queue), Some(row.name.clone()), "deadletters")
    });
    for (number, queue, group, stream) in queues.chain(groups) {
        if let Err(error) = read_stream(store, number, (&queue, group.as_deref(), stream), condition) {
            condition.refused.get_or_insert(error.to_string());
        }
    }
}

fn read_stream(
    store: &DiskStore,
    number: StreamId,
    (queue, group, stream): (&str, Option<&str>, &'static str),
    condition: &mut Condition,
) -> Result<(), crate::store::StoreError> {
    let mut from = 0;
    while from < u64::MAX {
        let ReadBatch { messages, damaged, until } = store.read(number, from, READ)?;
        from = until;
        condition.messages += messages.len() as u64;
        condition.damaged.extend(damaged.into_iter().map(|damaged| DamagedPlace {
            queue: queue.to_owned(),
            group: group.map(str::to_owned),
            stream,
            sequence: damaged.seq,
            file: damaged.file.to_string(),
            offset: damaged.offset,
            reason: damaged.reason.to_string(),
        }));
    }
    Ok(())
}

fn read_commits(directory: &LogDirectory, condition: &mut Condition) -> io::Result<()> {
    for segment in directory.segments()? {
        // A start removes such a file. It never had a commit.
        if directory.is_missing_or_unfinished(segment)? {
            continue;
        }
        let place = |offset| FilePlace { file: directory.file(segment).display().to_string(), offset };
        // A file that was cut short is read as far as it goes, so that the report says how much of it is whole.
        let Ok(file) = directory.open_cut_short(segment) else {
            condition.damaged_commits.push(place(0));
            continue;
        };
        if let Some(end) = directory.missing_end(&file, segment)? {
            condition.damaged_commits.push(place(end.length));
        }
        if directory.has_damaged_head(&file, segment)? {
            condition.damaged_commits.push(place(0));
        }
        let mut frames = FrameReader::from(&file, directory.log, SEGMENT_HEADER)?;
        loop {
            if frames.next()?.is_some() {
                condition.commits += 1;
                continue;
            }
            let next = frames.next_whole(frames.offset)?;
            if next.is_some() || !frames.is_unwritten(frames.offset)? {
                condition.damaged_commits.push(place(frames.offset));
            }
            let Some(next) = next else { break };
            frames.offset = next;
        }
    }
    Ok(())
}
