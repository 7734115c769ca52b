//! Reads an export into a store.
//!
//! The commits of a queue are made so that what the target holds says how far the import has come: first the queue with its groups and
//! the beginnings of its streams in one commit, then messages in their order, and the positions at the end. Everything that may be
//! repeated changes nothing.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use dms_protocol::queue::QueueId;

use crate::shared_buffer::BufferSize;
use crate::store::{
    CursorId, GroupRow, GroupSnapshot, QueueRow, QueueSnapshot, Record, RetentionPolicy, SentKey, SentKeys, Settlement,
    Snapshot, Store, StoreError, StoredMessage, StreamId,
    transfer::{
        Progress, Summary, TransferError, Watch,
        format::{
            CursorHead, ExportCounts, FileReader, Item, MANIFEST, Manifest, MessageHead, QueueHead, StreamHead,
            UNFINISHED, read_manifest,
        },
        place::{Opened, Part, StoreLocation},
        tell,
    },
};

/// The maximum number of records in a commit, and about the maximum bytes of messages.
const RECORDS: usize = 2_000;
const BYTES: usize = 4 * 1024 * 1024;
/// No cursor has this number: a message for it alone is passed over by every group.
const NOBODY: CursorId = CursorId(0);

/// Brings the export in the directory `from` into `to`, and compares what is there afterwards with the export.
///
/// # Errors
/// When the export is damaged or unfinished, the target is in use, has one of the queues with other contents, or fails.
pub fn import(from: &Path, to: &StoreLocation, watch: Watch<'_>) -> Result<Summary, TransferError> {
    let manifest = manifest(from)?;
    check_files(from, &manifest)?;
    let opened = to.write(&manifest.id)?;
    let imported = bring_in(from, &manifest, to, &opened, watch);
    if matches!(imported, Err(TransferError::Interrupted)) {
        // As if the process had been killed: nothing is finished.
        return imported;
    }
    let closed = opened.close();
    let summary = imported?;
    closed?;
    let opened = to.write(&manifest.id)?;
    let checked = compare_all(from, &manifest, &opened).and_then(|()| to.unmark(&opened));
    let closed = opened.close();
    checked.and_then(|()| closed.map(|()| summary))
}

/// The list of the files of an export.
fn manifest(from: &Path) -> Result<Manifest, TransferError> {
    if let Some(manifest) = read_manifest(&from.join(MANIFEST))? {
        return Ok(manifest);
    }
    if from.join(UNFINISHED).exists() {
        return Err(TransferError::Unfinished { dir: from.to_owned() });
    }
    let found = if from.exists() { "it has no export.json" } else { "it does not exist" };
    Err(TransferError::NoExport { dir: from.to_owned(), found })
}

/// Reads all files before the first change, so that a damaged export leaves the target as it was.
fn check_files(from: &Path, manifest: &Manifest) -> Result<(), TransferError> {
    for file in &manifest.queues {
        let path = from.join(&file.file);
        let (bytes, crc32, counts) = FileReader::open(&path)?.check()?;
        if (bytes, crc32, counts) != (file.bytes, file.crc32, file.counts) {
            let reason = "it is not the file that export.json lists".to_owned();
            return Err(TransferError::Damaged { file: path, offset: 0, reason });
        }
    }
    Ok(())
}

fn bring_in(
    from: &Path,
    manifest: &Manifest,
    to: &StoreLocation,
    opened: &Opened,
    watch: Watch<'_>,
) -> Result<Summary, TransferError> {
    let is_continued = to.is_marked(opened)?;
    let mut complete = vec![false; manifest.queues.len()];
    {
        let target = Contents::of(opened);
        for (file, complete) in manifest.queues.iter().zip(&mut complete) {
            let head = FileReader::open(&from.join(&file.file))?.head()?;
            *complete = target.has(&head, file.counts, is_continued)?;
        }
    }
    let mut progress = Progress { all_queues: manifest.queues.len(), ..Progress::default() };
    progress.all_messages = manifest.queues.iter().map(|file| file.counts.all()).sum();
    let mut summary = Summary::default();
    tell(watch, &progress)?;
    if complete.contains(&false) {
        to.mark(opened, &manifest.id)?;
    }
    let mut numbers: Vec<u32> = opened.parts.iter().map(|part| part.snapshot.next_number).collect();
    for (file, is_complete) in manifest.queues.iter().zip(complete) {
        summary.queues += 1;
        summary.already += usize::from(is_complete);
        summary.counts.add(file.counts);
        let before = progress.messages;
        let mut reader = FileReader::open(&from.join(&file.file))?;
        let head = reader.head()?;
        summary.groups += head.groups.len();
        if !is_complete {
            opened.note_place(&head.row)?;
            let part = opened.part_of(&head.row.id);
            let mut queue =
                QueueImport::begin(&opened.parts[part], &mut numbers[part], &head, (&mut progress, &mut *watch))?;
            queue.read(&mut reader, &head)?;
        }
        progress.queues += 1;
        progress.messages = before + file.counts.all();
        tell(watch, &progress)?;
    }
    Ok(summary)
}

/// Compares every queue of an export with what a server would find in the target.
fn compare_all(from: &Path, manifest: &Manifest, opened: &Opened) -> Result<(), TransferError> {
    let target = Contents::of(opened);
    for file in &manifest.queues {
        let head = FileReader::open(&from.join(&file.file))?.head()?;
        if let Some(difference) = target.difference(&head, file.counts) {
            let (queue, project) = (head.row.name, head.row.project.to_string());
            return Err(TransferError::Mismatch { queue, project, difference });
        }
    }
    Ok(())
}

/// What a target holds, to be looked up by ids and names.
struct Contents<'a> {
    queues: HashMap<&'a QueueId, &'a QueueSnapshot>,
    names: HashMap<(&'a str, &'a str), &'a QueueId>,
    groups: HashMap<&'a QueueId, Vec<&'a GroupSnapshot>>,
}

impl<'a> Contents<'a> {
    fn of(opened: &'a Opened) -> Self {
        let mut found = Self { queues: HashMap::new(), names: HashMap::new(), groups: HashMap::new() };
        for Part { snapshot, .. } in &opened.parts {
            for queue in &snapshot.queues {
                found.queues.insert(&queue.row.id, queue);
                found.names.insert((queue.row.project.as_str(), queue.row.name.as_str()), &queue.row.id);
            }
            snapshot.groups.iter().for_each(|group| found.groups.entry(&group.row.queue).or_default().push(group));
        }
        found
    }

    fn difference(&self, wanted: &QueueHead, counts: ExportCounts) -> Option<String> {
        let Some(queue) = self.queues.get(&wanted.row.id) else { return Some("it is missing".to_owned()) };
        let groups = self.groups.get(&wanted.row.id).into_iter().flatten().copied();
        if let Some(difference) = wanted.difference(&QueueHead::of(queue, groups)) {
            return Some(difference);
        }
        let found = queue.delay_queue.count;
        (found != counts.delayed)
            .then(|| format!("it has {found} delayed messages there and {} in the export", counts.delayed))
    }

    /// Whether the target has a queue completely. A part of one is taken for the work of this import, if it has begun here.
    ///
    /// # Errors
    /// When the target has another queue of this id or name.
    fn has(&self, head: &QueueHead, counts: ExportCounts, is_continued: bool) -> Result<bool, TransferError> {
        let taken = |difference| {
            let (queue, project) = (head.row.name.clone(), head.row.project.to_string());
            Err(TransferError::Taken { queue, project, difference })
        };
        let named = self.names.get(&(head.row.project.as_str(), head.row.name.as_str()));
        if let Some(other) = named.filter(|other| **other != &head.row.id) {
            return taken(format!("its id is {other}, and {} in the export", head.row.id));
        }
        if !self.queues.contains_key(&head.row.id) {
            return Ok(false);
        }
        match self.difference(head, counts) {
            None => Ok(true),
            Some(_) if is_continued => Ok(false),
            Some(difference) => taken(difference),
        }
    }
}

/// One queue on its way into a store.
struct QueueImport<'a, 'w> {
    store: &'a dyn Store,
    /// Its row in the target.
    row: QueueRow,
    /// Numbers in the target by those in the file.
    numbers: HashMap<u32, u32>,
    /// The next message of each stream of the target. Earlier ones are there already.
    next: HashMap<StreamId, u64>,
    /// How many messages the cursors of the target have counted.
    consumed: HashMap<CursorId, u64>,
    /// From where on the next settlement of a cursor describes it.
    settled_to: BTreeMap<CursorId, u64>,
    records: Vec<Record>,
    /// The bytes of these records.
    bytes: usize,
    progress: &'a mut Progress,
    watch: &'a mut (dyn FnMut(&Progress) -> bool + 'w),
}

impl<'a, 'w> QueueImport<'a, 'w> {
    fn begin(
        part: &'a Part,
        next_number: &mut u32,
        head: &QueueHead,
        (progress, watch): (&'a mut Progress, &'a mut (dyn FnMut(&Progress) -> bool + 'w)),
    ) -> Result<Self, TransferError> {
        let there = part.snapshot.queues.iter().find(|queue| queue.row.id == head.row.id);
        let mut queue = QueueImport {
            store: &*part.store,
            row: head.row.clone(),
            numbers: HashMap::new(),
            next: HashMap::new(),
            consumed: HashMap::new(),
            settled_to: BTreeMap::new(),
            records: Vec::new(),
            bytes: 0,
            progress,
            watch,
        };
        match there {
            Some(there) => queue.go_on(&part.snapshot, there, head),
            None => queue.create(next_number, head)?,
        }
        Ok(queue)
    }

    /// Finds how far an earlier call has come.
    fn go_on(&mut self, snapshot: &Snapshot, there: &QueueSnapshot, head: &QueueHead) {
        self.row.number = there.row.number;
        self.add_numbers(head.row.number, there.row.number);
        self.next.insert(there.row.stream(), there.stream.next);
        self.next.insert(there.row.delay_queue(), there.delay_queue.next);
        for group in &head.groups {
            // They were created in the same commit.
            let Some(found) = snapshot.groups.iter().find(|found| found.row.id == group.row.id) else { continue };
            self.add_numbers(group.row.number, found.row.number);
            self.next.insert(found.row.dead_letters(), found.dead_letters.next);
            self.consumed.insert(found.row.cursor(), found.cursor.consumed);
            self.consumed.insert(found.row.dead_letter_cursor(), found.dead_letter_cursor.consumed);
        }
    }

    /// Creates the queue with its groups, and begins its streams, in one commit.
    fn create(&mut self, next_number: &mut u32, head: &QueueHead) -> Result<(), TransferError> {
        let mut number = || {
            *next_number += 2;
            *next_number - 2
        };
        self.row.number = number();
        self.add_numbers(head.row.number, self.row.number);
        self.records.push(Record::QueueCreated(self.row.clone()));
        if !head.tags.is_empty() {
            self.records.push(Record::TagsSet(self.row.id.clone(), head.tags.clone()));
        }
        if head.retention != RetentionPolicy::default() {
            self.records.push(Record::RetentionSet(self.row.id.clone(), head.retention));
        }
        self.begin_stream(self.row.stream(), head.messages);
        for group in &head.groups {
            let row = GroupRow { number: number(), ..group.row.clone() };
            self.add_numbers(group.row.number, row.number);
            let dead_letters = row.dead_letters();
            self.records.push(Record::GroupCreated(row));
            self.begin_stream(dead_letters, group.dead_letters);
        }
        self.commit()
    }

    /// A queue or group has two numbers.
    fn add_numbers(&mut self, file: u32, target: u32) {
        self.numbers.insert(file, target);
        self.numbers.insert(file + 1, target + 1);
    }

    /// Lets a stream begin where it began in the source: it gets the message before, which is gone at once.
    fn begin_stream(&mut self, stream: StreamId, head: StreamHead) {
        self.next.insert(stream, head.low);
        if head.low > 1 {
            // Entry times never decrease within a stream.
            let entered_ms = if head.low < head.next { head.oldest_ms.unwrap_or(0) } else { head.newest_ms };
            self.records.push(Record::Appended(stream, Arc::new(nothing(head.low - 1, entered_ms))));
            self.records.push(Record::Expired { stream, low: head.low, oldest: head.oldest_ms });
        }
    }

    fn read(&mut self, reader: &mut FileReader, head: &QueueHead) -> Result<(), TransferError> {
        while let Some((item, payload)) = reader.next()? {
            match item {
                Item::Message(message) => self.message(reader, &message, payload)?,
                Item::Lost { stream, place } => self.lost(reader, head, stream, place)?,
                Item::Open { cursor, places } => self.open(reader, cursor, &places)?,
                Item::Keys(keys) => self.keys(reader, &keys)?,
                Item::End(_) => self.end(head)?,
                Item::Queue(_) => return Err(reader.damaged("there is a second queue")),
            }
            if self.records.len() >= RECORDS || self.bytes >= BYTES {
                self.commit()?;
            }
        }
        self.commit()
    }

    fn number(&self, reader: &FileReader, file: u32) -> Result<u32, TransferError> {
        let number = self.numbers.get(&file).copied();
        number.ok_or_else(|| reader.damaged(format!("{file} is neither the queue nor one of its groups")))
    }

    fn message(&mut self, reader: &FileReader, head: &MessageHead, json: Bytes) -> Result<(), TransferError> {
        let stream = StreamId(self.number(reader, head.stream)?);
        let message = StoredMessage {
            seq: head.place,
            entered_ms: head.entered_ms,
            json,
            buffer: BufferSize::default(),
            body_bytes: head.body_bytes,
            tags: head.tags.clone(),
            dead_letter: head.dead_letter.clone(),
            origin: head.origin().map_err(|reason| reader.damaged(reason))?,
            // A group that was deleted gets nothing.
            only_for: head.only_for.map(|group| self.numbers.get(&group).map_or(NOBODY, |number| CursorId(*number))),
        };
        self.add(reader, stream, message)
    }

    /// Adds a message behind the last one, unless it is there.
    fn add(&mut self, reader: &FileReader, stream: StreamId, message: StoredMessage) -> Result<(), TransferError> {
        let is_delayed = stream == self.row.delay_queue();
        let next = self.next.entry(stream).or_insert(1);
        if message.seq < *next {
            self.progress.messages += 1;
            return Ok(());
        }
        // A delay queue has gaps.
        if message.seq != *next && !is_delayed {
            return Err(reader.damaged(format!("message {} follows, and {next} is missing", message.seq)));
        }
        *next = message.seq + 1;
        self.bytes += message.memory_bytes();
        self.progress.messages += 1;
        let message = Arc::new(message);
        self.records.push(match is_delayed {
            true => Record::Delayed(stream, message),
            false => Record::Appended(stream, message),
        });
        Ok(())
    }

    /// Fills the place of a message that was damaged with one that no group gets.
    fn lost(&mut self, reader: &FileReader, head: &QueueHead, stream: u32, place: u64) -> Result<(), TransferError> {
        let target = StreamId(self.number(reader, stream)?);
        if target == self.row.delay_queue() {
            return Ok(());
        }
        let mut heads = head.groups.iter().map(|group| (group.row.dead_letters(), group.dead_letters));
        let found = heads.find(|(number, _)| number.0 == stream).map_or(head.messages, |(_, found)| found);
        self.add(reader, target, nothing(place, found.oldest_ms.unwrap_or(found.newest_ms)))
    }

    /// Settles everything of a cursor up to the last of these places, except them.
    fn open(&mut self, reader: &FileReader, cursor: u32, places: &[(u64, u32)]) -> Result<(), TransferError> {
        let cursor = CursorId(self.number(reader, cursor)?);
        let (Some((first, _)), Some((last, _))) = (places.first(), places.last()) else { return Ok(()) };
        let mut from = *self.settled_to.entry(cursor).or_insert_with(|| {
            self.records.push(Record::Purged { cursor, below: *first });
            *first
        });
        let mut settlement = Settlement { head: last + 1, ..Settlement::default() };
        for (place, failures) in places {
            if *place < from {
                return Err(reader.damaged(format!("message {place} of a position is not in order")));
            }
            if from < *place {
                settlement.skipped.push(from..*place);
            }
            if *failures > 0 {
                settlement.failed.push((*place, *failures));
            }
            from = place + 1;
        }
        self.settled_to.insert(cursor, from);
        self.settle(cursor, settlement);
        Ok(())
    }

    fn settle(&mut self, cursor: CursorId, settlement: Settlement) {
        self.bytes += 32 * (settlement.skipped.len() + settlement.failed.len());
        self.records.push(Record::Settled { cursor, lease: None, histories: Vec::new(), settlement });
    }

    fn keys(&mut self, reader: &FileReader, keys: &SentKeys) -> Result<(), TransferError> {
        let mut own = Vec::with_capacity(keys.0.len());
        for key in &keys.0 {
            own.push(SentKey { queue: StreamId(self.number(reader, key.queue.0)?), ..*key });
        }
        // A commit has keys once.
        self.commit()?;
        self.records.push(Record::KeysSent { now_ms: 0, keys: SentKeys(own) });
        self.commit()
    }

    /// The positions, and what follows when all messages are there.
    fn end(&mut self, head: &QueueHead) -> Result<(), TransferError> {
        self.end_delay_queue(head);
        for group in &head.groups {
            for (number, position) in
                [(group.row.number, &group.position), (group.row.number + 1, &group.dead_letter_position)]
            {
                let Some(cursor) = self.numbers.get(&number).map(|number| CursorId(*number)) else { continue };
                self.end_cursor(cursor, position);
            }
        }
        for schedule in &head.schedules {
            let (queue, row) = (self.row.id.clone(), Box::new(schedule.row.clone()));
            self.records.push(Record::ScheduleSet { queue, row, progress: schedule.progress });
        }
        self.commit()
    }

    /// Raises the number of the next delayed message, so that none is given twice.
    fn end_delay_queue(&mut self, head: &QueueHead) {
        let queue = self.row.delay_queue();
        if self.next.get(&queue).copied().unwrap_or(1) < head.next_delayed {
            let seq = head.next_delayed - 1;
            self.records.push(Record::Delayed(queue, Arc::new(nothing(seq, 0))));
            self.records.push(Record::DelayEnded(queue, 0, seq));
        }
    }

    fn end_cursor(&mut self, cursor: CursorId, position: &CursorHead) {
        let from = self.settled_to.remove(&cursor).unwrap_or_else(|| {
            self.records.push(Record::Purged { cursor, below: position.head });
            position.head
        });
        if let Some(rule) = &position.rule {
            self.records.push(Record::RuleFixed(cursor, rule.clone()));
        }
        let mut settlement = Settlement { head: position.head, ..Settlement::default() };
        if from < position.head {
            settlement.skipped.push(from..position.head);
        }
        // The target has none or all of them, because a commit is atomic.
        settlement.counted = position.consumed.saturating_sub(self.consumed.get(&cursor).copied().unwrap_or(0));
        self.settle(cursor, settlement);
    }

    fn commit(&mut self) -> Result<(), TransferError> {
        if self.records.is_empty() {
            return Ok(());
        }
        let failed =
            |error: StoreError| TransferError::store(format!("importing queue {} failed", self.row.name))(error);
        // Room that is reserved is for acknowledgements and deletions.
        if let Some(full) = self.store.disk_full() {
            return Err(failed(full));
        }
        self.store.commit(&self.records).map_err(failed)?;
        self.records.clear();
        self.bytes = 0;
        if self.store.needs_maintenance() {
            while self.store.maintain().map_err(failed)? {}
        }
        tell(self.watch, self.progress)
    }
}

/// A message without a body that no group gets.
fn nothing(seq: u64, entered_ms: i64) -> StoredMessage {
    let json = Bytes::from_static(br#"{"body":"","attributes":{}}"#);
    StoredMessage { seq, entered_ms, json, body_bytes: 2, only_for: Some(NOBODY), ..StoredMessage::default() }
}
