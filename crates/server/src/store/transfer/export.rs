//! Writes an export.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use dms_protocol::queue::QueueId;
use uuid::Uuid;

use crate::store::{
    CursorId, Damaged, GroupSnapshot, QueueSnapshot, ReadBatch, ReadLimit, SentKey, SentKeys, Snapshot, StoredMessage,
    StreamId,
    disk::{file_ops::sync_directory, tools::backup::inside},
    transfer::{
        Progress, Summary, TransferError, Watch,
        format::{
            ExportCounts, FORMAT, FileReader, FileWriter, Item, MANIFEST, Manifest, MessageHead, QUEUES, QueueFile,
            QueueHead, UNFINISHED, VERSION, make_directory, read_manifest, write_json,
        },
        place::{Part, StoreLocation},
        tell,
    },
};

/// How much is read at once.
const READ: ReadLimit = ReadLimit { messages: 2_000, bytes: 4 * 1024 * 1024 };
/// How many open places or keys a record has.
const PLACES: usize = 2_000;

/// Writes everything of `from` into the directory `to`, which is new, or has an unfinished export of the same state. A source with
/// damaged messages is refused, unless they are to be skipped.
///
/// # Errors
/// When the source is in use or damaged, or a file cannot be written.
pub fn export(from: &StoreLocation, to: &Path, skip_damaged: bool, watch: Watch<'_>) -> Result<Summary, TransferError> {
    if let StoreLocation::Directory(dir) = from
        && inside(to, dir)
    {
        return Err(TransferError::Inside { to: to.to_owned(), dir: dir.clone() });
    }
    let opened = from.read()?;
    let written = Exporter::begin(from, &opened.state, to).and_then(|begun| match begun {
        Begun::Complete(summary) => {
            let groups = opened.parts.iter().map(|part| part.snapshot.groups.len()).sum();
            Ok(Summary { groups, ..summary })
        }
        Begun::Exporter(exporter) => exporter.run(&opened.parts, skip_damaged, watch),
    });
    let closed = opened.close();
    written.and_then(|summary| closed.map(|()| summary))
}

enum Begun {
    Complete(Summary),
    Exporter(Box<Exporter>),
}

struct Exporter {
    to: PathBuf,
    manifest: Manifest,
    summary: Summary,
    progress: Progress,
}

impl Exporter {
    fn begin(from: &StoreLocation, state: &str, to: &Path) -> Result<Begun, TransferError> {
        let not_empty = |found: String| Err(TransferError::NotEmpty { dir: to.to_owned(), found });
        if let Some(made) = read_manifest(&to.join(MANIFEST))? {
            if made.state != state {
                return not_empty(format!("an export of another state of {}", made.source));
            }
            let mut summary = Summary { queues: made.queues.len(), already: made.queues.len(), ..Summary::default() };
            made.queues.iter().for_each(|file| summary.counts.add(file.counts));
            return Ok(Begun::Complete(summary));
        }
        let manifest = match read_manifest(&to.join(UNFINISHED))? {
            Some(begun) if begun.state == state => begun,
            Some(begun) => {
                return not_empty(format!(
                    "an unfinished export of {}, which has changed since; delete the directory, or name another one",
                    begun.source
                ));
            }
            None => {
                if let Some(entry) = std::fs::read_dir(to).ok().and_then(|mut entries| entries.next()) {
                    let name = entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
                    return not_empty(name.unwrap_or_default());
                }
                make_directory(to)?;
                let manifest = Manifest {
                    format: FORMAT.to_owned(),
                    version: VERSION,
                    id: Uuid::new_v4().to_string(),
                    program: env!("CARGO_PKG_VERSION").to_owned(),
                    source: from.name(),
                    state: state.to_owned(),
                    queues: Vec::new(),
                };
                write_json(&to.join(UNFINISHED), &manifest)?;
                manifest
            }
        };
        make_directory(&to.join(QUEUES))?;
        Ok(Begun::Exporter(Box::new(Self {
            to: to.to_owned(),
            manifest,
            summary: Summary::default(),
            progress: Progress::default(),
        })))
    }

    fn run(mut self, parts: &[Part], skip_damaged: bool, watch: Watch<'_>) -> Result<Summary, TransferError> {
        for Part { snapshot, .. } in parts {
            self.progress.all_queues += snapshot.queues.len();
            self.progress.all_messages += count_all(snapshot);
        }
        tell(watch, &self.progress)?;
        for part in parts {
            let mut groups: HashMap<&QueueId, Vec<&GroupSnapshot>> = HashMap::new();
            part.snapshot.groups.iter().for_each(|group| groups.entry(&group.row.queue).or_default().push(group));
            let mut keys: HashMap<StreamId, Vec<SentKey>> = HashMap::new();
            for key in part.snapshot.keys.iter().flat_map(|keys| &keys.0) {
                keys.entry(key.queue).or_default().push(*key);
            }
            for queue in &part.snapshot.queues {
                let keys = keys.remove(&queue.row.stream()).unwrap_or_default();
                let groups = groups.remove(&queue.row.id).unwrap_or_default();
                self.queue(part, (queue, &groups, &keys), skip_damaged, watch)?;
            }
        }
        let queues = self.to.join(QUEUES);
        sync_directory(&queues).map_err(|error| TransferError::io(&queues, error))?;
        // Everything else is on the disk before: this file says that the export is complete.
        write_json(&self.to.join(MANIFEST), &self.manifest)?;
        let unfinished = self.to.join(UNFINISHED);
        std::fs::remove_file(&unfinished).map_err(|error| TransferError::io(&unfinished, error))?;
        Ok(self.summary)
    }

    /// Writes the file of a queue, unless an earlier call did.
    fn queue(
        &mut self,
        part: &Part,
        (queue, groups, keys): (&QueueSnapshot, &[&GroupSnapshot], &[SentKey]),
        skip_damaged: bool,
        watch: Watch<'_>,
    ) -> Result<(), TransferError> {
        let number = self.manifest.queues.len() + 1;
        let file = format!("{QUEUES}/{number:06}-{}.dms", file_name(&queue.row.name));
        let path = self.to.join(&file);
        let before = self.progress.messages;
        // A file gets its name when it is complete, but bytes may have changed since.
        let there = if path.exists() { FileReader::open(&path)?.check().ok() } else { None };
        let (bytes, crc32, counts) = match there {
            Some(there) => {
                self.summary.already += 1;
                there
            }
            None => {
                let mut out = QueueWriter {
                    out: FileWriter::create(path)?,
                    part,
                    queue: queue.row.name.clone(),
                    skip_damaged,
                    counts: ExportCounts::default(),
                    progress: &mut self.progress,
                    watch,
                };
                out.write(queue, groups, keys)?;
                let counts = out.counts;
                let (bytes, crc32) = out.out.finish()?;
                (bytes, crc32, counts)
            }
        };
        self.progress.queues += 1;
        self.progress.messages = before + counts.all();
        self.summary.queues += 1;
        self.summary.groups += groups.len();
        self.summary.counts.add(counts);
        let (project, name) = (queue.row.project.to_string(), queue.row.name.clone());
        self.manifest.queues.push(QueueFile { file, bytes, crc32, project, name, counts });
        tell(watch, &self.progress)
    }
}

/// A part of a file name.
fn file_name(queue: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    queue.chars().take(64).map(plain).collect()
}

fn count_all(snapshot: &Snapshot) -> u64 {
    let queues = snapshot.queues.iter().map(|queue| queue.stream.next - queue.stream.low + queue.delay_queue.count);
    let dead = snapshot.groups.iter().map(|group| group.dead_letters.next - group.dead_letters.low);
    queues.chain(dead).sum()
}

/// Writes the records of one queue.
struct QueueWriter<'a> {
    out: FileWriter,
    part: &'a Part,
    queue: String,
    skip_damaged: bool,
    counts: ExportCounts,
    progress: &'a mut Progress,
    watch: Watch<'a>,
}

impl QueueWriter<'_> {
    fn write(
        &mut self,
        queue: &QueueSnapshot,
        groups: &[&GroupSnapshot],
        keys: &[SentKey],
    ) -> Result<(), TransferError> {
        let head = QueueHead::of(queue, groups.iter().copied());
        self.out.put(&Item::Queue(Box::new(head)), &[])?;
        let row = &queue.row;
        let low = queue.stream.low;
        self.counts.messages = self.stream("messages", row.stream(), Some(low..queue.stream.next))?;
        self.counts.delayed = self.stream("delayed", row.delay_queue(), None)?;
        for group in groups {
            let name = format!("dead letters of group {}", group.row.name);
            let range = group.dead_letters.low..group.dead_letters.next;
            self.counts.dead_letters += self.stream(&name, group.row.dead_letters(), Some(range))?;
        }
        for group in groups {
            self.open(group.row.cursor(), &group.cursor.ready)?;
            self.open(group.row.dead_letter_cursor(), &group.dead_letter_cursor.ready)?;
        }
        for keys in keys.chunks(PLACES) {
            self.out.put(&Item::Keys(SentKeys(keys.to_vec())), &[])?;
        }
        self.out.put(&Item::End(self.counts), &[])
    }

    fn open(&mut self, cursor: CursorId, open: &[(u64, u32)]) -> Result<(), TransferError> {
        for places in open.chunks(PLACES) {
            self.out.put(&Item::Open { cursor: cursor.0, places: places.to_vec() }, &[])?;
        }
        Ok(())
    }

    /// Writes the messages of a stream, or of a delay queue, which has gaps. Returns how many are whole.
    fn stream(
        &mut self,
        name: &str,
        stream: StreamId,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<u64, TransferError> {
        let is_dense = range.is_some();
        let std::ops::Range { start: mut from, end } = range.unwrap_or(0..u64::MAX);
        let mut whole = 0;
        while from < end {
            let what = format!("reading {name} of queue {} from {from} on failed", self.queue);
            let read = self.part.store.read(stream, from, READ).map_err(TransferError::store(what))?;
            let ReadBatch { messages, damaged, until } = read;
            let mut damaged = damaged.into_iter().filter(|one| one.seq < end).peekable();
            for message in messages.iter().filter(|message| message.seq < end) {
                while let Some(lost) = damaged.next_if(|lost| lost.seq < message.seq) {
                    self.lost(name, stream, &lost)?;
                    from = lost.seq + 1;
                }
                if is_dense && message.seq != from {
                    return Err(self.gap(name, from));
                }
                self.out.put(&Item::Message(message_head(stream, message)), &message.json)?;
                (whole, from) = (whole + 1, message.seq + 1);
            }
            for lost in damaged {
                self.lost(name, stream, &lost)?;
                from = lost.seq + 1;
            }
            if is_dense && from < until.min(end) {
                return Err(self.gap(name, from));
            }
            from = until;
            self.progress.messages += messages.len() as u64;
            tell(self.watch, self.progress)?;
        }
        Ok(whole)
    }

    fn lost(&mut self, stream: &str, number: StreamId, lost: &Damaged) -> Result<(), TransferError> {
        if !self.skip_damaged {
            return Err(TransferError::DamagedMessage {
                queue: self.queue.clone(),
                stream: stream.to_owned(),
                place: lost.seq,
                reason: format!("{} at byte {}: {}", lost.file, lost.offset, lost.reason),
            });
        }
        self.counts.lost += 1;
        self.out.put(&Item::Lost { stream: number.0, place: lost.seq }, &[])
    }

    fn gap(&self, stream: &str, place: u64) -> TransferError {
        let what = format!("message {place} of queue {} ({stream}) is missing", self.queue);
        TransferError::Store { what, reason: "the store contradicts itself; check it first".to_owned() }
    }
}

fn message_head(stream: StreamId, message: &StoredMessage) -> MessageHead {
    MessageHead {
        stream: stream.0,
        place: message.seq,
        entered_ms: message.entered_ms,
        body_bytes: message.body_bytes,
        tags: message.tags.clone(),
        dead_letter: message.dead_letter.clone(),
        id: message.origin.map(|origin| origin.to_string()),
        only_for: message.only_for.map(|group| group.0),
    }
}
