//! Changed bits anywhere in the log: the directory opens, and every message except the damaged one is delivered.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::store::{
    CursorId, MissedTicks, RetentionPolicy, ScheduleProgress, ScheduleRow, ScheduleSource, StoredMessage,
    disk::{
        tests::{ALL, queue, tidy_up},
        tools::rebuild,
        *,
    },
    memory::MemoryStore,
    position, run,
};
use dms_protocol::message::DeadLetterInfo;

/// A queue's messages, its delayed messages, and a stream of dead letters.
const STREAMS: [StreamId; 3] = [StreamId(1), StreamId(2), StreamId(5)];
const SEGMENT: u64 = 64 * 1024;

/// A directory that a process left, and the messages in it.
struct Left {
    dir: tempfile::TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
    memory: MemoryStore,
}

impl Left {
    /// Small messages in common runs, large ones, delayed ones and dead letters. They are in the index, or in the log only.
    fn behind(in_order: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
        let memory = MemoryStore::default();
        let commit = |records: &[Record]| {
            store.commit(records).unwrap();
            memory.commit(records).unwrap();
        };
        commit(&[Record::QueueCreated(queue(1)), Record::QueueCreated(queue(5))]);
        let mut seq = 0;
        for round in 0..12 {
            let sizes: &[usize] = if round % 4 == 3 { &[40_000] } else { &[10, 300, 10, 2_000, 40] };
            let sent: Vec<Record> = sizes
                .iter()
                .map(|size| {
                    seq += 1;
                    Record::Appended(StreamId(1), message(seq, *size, None))
                })
                .collect();
            commit(&sent);
            let place = round + 1;
            commit(&[Record::Delayed(StreamId(2), message(place, 30, None))]);
            commit(&[Record::Appended(StreamId(5), message(place, 50, Some("failed")))]);
        }
        store.release(in_order).unwrap();
        drop(store);
        Self::of(dir, memory)
    }

    fn of(dir: tempfile::TempDir, memory: MemoryStore) -> Self {
        let mut files = Vec::new();
        for folder in [dir.path().to_owned(), dir.path().join("log")] {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    files.push((entry.path(), std::fs::read(entry.path()).unwrap()));
                }
            }
        }
        Self { dir, files, memory }
    }

    fn restore(&self) {
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(self.dir.path().join(format!("dms.db{suffix}")));
        }
        self.files.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }

    /// Opens the directory after a change to a file.
    fn open_with(&self, file: &Path, change: impl FnOnce(&mut [u8])) -> Result<DiskStore, OpenError> {
        self.restore();
        let mut bytes = std::fs::read(file).unwrap();
        change(&mut bytes);
        std::fs::write(file, bytes).unwrap();
        DiskStore::open_with(self.dir.path(), SEGMENT).map(|(store, _)| store)
    }

    /// The segments, and where their frames end.
    fn logs(&self) -> Vec<(PathBuf, usize)> {
        let logs = self.files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "log"));
        let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let mut logs: Vec<_> = logs.map(|(path, bytes)| (path.clone(), end(bytes))).collect();
        logs.sort();
        logs
    }

    /// Checks that every message is there or is reported as damaged. Returns the number of damaged ones.
    fn check(&self, store: &DiskStore, what: &str) -> usize {
        let mut damaged = 0;
        for stream in STREAMS {
            let mut there = Vec::new();
            let mut from = 1;
            while from < u64::MAX {
                let limit = ReadLimit { messages: 7, ..ALL };
                let found = store.read(stream, from, limit).unwrap();
                from = found.until;
                there.extend(found.messages.iter().map(|message| (message.seq, Some(message.clone()))));
                there.extend(found.damaged.iter().map(|damaged| (damaged.seq, None)));
            }
            there.sort_by_key(|(seq, _)| *seq);
            let all = self.memory.read(stream, 1, ALL).unwrap().messages;
            assert_eq!(there.len(), all.len(), "{what}: stream {}", stream.0);
            for ((_, found), expected) in there.iter().zip(&all) {
                assert!(found.as_ref().is_none_or(|found| found == expected), "{what}: {}", expected.seq);
                damaged += usize::from(found.is_none());
            }
            if stream == STREAMS[1] {
                continue;
            }
            let times = store.entered(stream, 1, 1_000, i64::MAX).unwrap();
            assert!(times.is_sorted_by_key(|(_, entered_ms)| *entered_ms), "{what}: {times:?}");
            assert_eq!(times.len(), all.len());
        }
        damaged += self.check_due(store);
        damaged
    }

    /// Checks that delayed messages are found when damaged ones are skipped. The damaged ones were counted already.
    fn check_due(&self, store: &DiskStore) -> usize {
        let (delay_queue, mut skip, mut due) = (STREAMS[1], BTreeSet::new(), 0);
        loop {
            let found = store.first_due(delay_queue, ReadLimit { messages: 100, ..ALL }, &skip).unwrap();
            if found.damaged.is_empty() {
                due += found.messages.len();
                break;
            }
            skip.extend(found.damaged.iter().map(|damaged| damaged.seq));
        }
        assert_eq!(due + skip.len(), 12);
        0
    }
}

fn message(seq: u64, size: usize, reason: Option<&str>) -> Arc<StoredMessage> {
    let json = format!("{{\"body\":\"{seq}:{}\",\"attributes\":{{}}}}", "x".repeat(size));
    let info = reason.map(|reason| Arc::new(DeadLetterInfo::new(reason)));
    let tags = if seq.is_multiple_of(2) { vec!["a".to_owned()].into() } else { Arc::default() };
    let entered_ms = 1_000 + i64::try_from(seq).unwrap();
    Arc::new(StoredMessage {
        seq,
        entered_ms,
        body_bytes: size,
        json: json.into(),
        tags,
        dead_letter: info,
        ..StoredMessage::default()
    })
}

/// Tries every byte of small frames, and some of large ones. A changed bit damages one message at most, except in headers of files.
#[test]
fn a_changed_bit_takes_one_message_at_most() {
    for in_order in [true, false] {
        let left = Left::behind(in_order);
        let (mut hit, mut missed) = (0, 0);
        for (number, (file, end)) in left.logs().into_iter().enumerate() {
            let fine = if number == 0 { 11 } else { 41 };
            let step = |at: usize| if at < 1_200 || end - at < 100 { fine } else { 2_999 };
            let mut at = 24;
            while at < end {
                let what = format!("{} at {at}, index {in_order}", file.display());
                let store = left.open_with(&file, |bytes| bytes[at] ^= 1 << (at % 8));
                let store = store.unwrap_or_else(|error| panic!("{what}: {error}"));
                match left.check(&store, &what) {
                    0 => missed += 1,
                    1 => hit += 1,
                    more => panic!("{what}: {more} messages"),
                }
                store.release(false).unwrap();
                at += step(at);
            }
        }
        assert!(hit > 100 && missed > 10, "{hit} hit, {missed} missed");
    }
}

/// Whole sectors read as zeros or as other bytes: only the messages in them are lost.
#[test]
fn a_changed_sector_takes_what_is_in_it() {
    let left = Left::behind(true);
    for (file, end) in left.logs() {
        for begin in (512..end).step_by(3 * 4_096 + 512) {
            for fill in [0, 0xff] {
                let what = format!("{} at {begin}", file.display());
                let last = (begin + 512).min(end);
                let store = left.open_with(&file, |bytes| bytes[begin..last].fill(fill)).unwrap();
                let damaged = left.check(&store, &what);
                assert!(damaged <= 12, "{what}: {damaged} messages");
                store.release(false).unwrap();
            }
        }
    }
}

fn short(seq: u64) -> Arc<StoredMessage> {
    let json = format!("{{\"body\":\"{seq}:yyyyyyyyyyyy\"}}").into();
    Arc::new(StoredMessage { seq, entered_ms: 1_000, body_bytes: 16, json, ..StoredMessage::default() })
}

/// Compaction moves damaged messages too, so that the segment can be deleted.
#[test]
fn damaged_messages_are_moved_and_stay_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    store.commit(&[Record::QueueCreated(queue(1)), Record::QueueCreated(queue(5))]).unwrap();
    for seq in 1..=60 {
        store.commit(&[Record::Appended(StreamId(1), message(seq, 900, None))]).unwrap();
        if seq % 20 == 0 {
            let three = [seq / 20 * 2 - 1, seq / 20 * 2];
            let sent = three.map(|place| Record::Appended(StreamId(5), short(place)));
            store.commit(&sent).unwrap();
        }
    }
    for seq in 61..=200 {
        store.commit(&[Record::Appended(StreamId(1), message(seq, 900, None))]).unwrap();
    }
    store.release(true).unwrap();
    let first = dir.path().join("log/0000000001.log");
    let mut bytes = std::fs::read(&first).unwrap();
    let place = bytes.windows(12).position(|window| window == b"\"3:yyyyyyyyy").unwrap();
    bytes[place + 4] ^= 1;
    std::fs::write(&first, bytes).unwrap();

    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    let look = |store: &DiskStore| {
        let found = store.read(StreamId(5), 1, ALL).unwrap();
        let places: Vec<u64> = found.messages.iter().map(|message| message.seq).collect();
        assert_eq!((places, found.damaged.len(), found.damaged[0].seq), (vec![1, 2, 4, 5, 6], 1, 3));
        found.damaged[0].file.to_string()
    };
    assert!(look(&store).ends_with("0000000001.log"));
    store.commit(&[Record::Expired { stream: StreamId(1), low: 199, oldest: None }]).unwrap();
    tidy_up(&store);
    assert!(!first.exists(), "it is empty");
    assert!(!look(&store).ends_with("0000000001.log"));
    // Only the log says where it is now.
    store.release(false).unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    look(&store);
}

/// The log of a later version would look damaged, and its messages would be missing from the rebuilt index.
#[test]
fn the_index_of_a_later_version_is_not_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    store.release(true).unwrap();
    drop(store);
    let database = dir.path().join("dms.db");
    let version = || rusqlite::Connection::open(&database).unwrap();
    version().pragma_update(None, "user_version", 99).unwrap();
    let refused = rebuild::rebuild(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("dms.db has version 99") && refused.contains("use a newer dms-worker"), "{refused}");
    assert_eq!(version().pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)).unwrap(), 99);
}

/// Runs of earlier versions are read as before. One damaged message makes its whole run unreadable.
#[test]
fn runs_without_checksums_are_read() {
    use bytes::{BufMut, BytesMut};

    let (log, stream) = (7, StreamId(1));
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(stream.0);
    bytes.put_u64_le(5);
    bytes.put_u32_le(2);
    bytes.put_u32_le(0);
    for json in ["one", "three"] {
        bytes.put_i64_le(77);
        for size in [1, 0, json.len()] {
            bytes.put_u32_le(u32::try_from(size).unwrap());
        }
        bytes.put_slice(json.as_bytes());
    }
    let sum = run::checksum_difference(log, &bytes);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    let run = run::head(&bytes, position::Position::default()).unwrap();
    let content = run::read(log, &run, &bytes.clone().freeze());
    let texts: Vec<_> = content.messages.iter().map(|message| (message.seq, message.json.clone())).collect();
    assert_eq!(texts, [(5, "one".into()), (6, "three".into())]);
    assert_eq!(content.times(), [(5, Some(77)), (6, Some(77))]);
    *bytes.last_mut().unwrap() ^= 1;
    let bytes = bytes.freeze();
    let content = run::read(log, &run, &bytes);
    assert_eq!((content.messages.len(), content.damaged.len()), (0, 2));
    assert_eq!(run::moved_bytes(log, &run, &bytes), bytes, "moved as it is");
}

/// Changed bits in the index: it is refused, or nothing in it is different, also after it was written again.
#[test]
fn a_changed_bit_of_the_index_is_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    fill(&store);
    store.release(true).unwrap();
    drop(store);
    let left = Left::of(dir, MemoryStore::default());
    let database = left.dir.path().join("dms.db");
    // A server goes on with it: the result, and the content after that.
    let go_on = |change: &mut dyn FnMut(&mut [u8])| -> Result<(String, String), String> {
        left.restore();
        let mut bytes = std::fs::read(&database).unwrap();
        change(&mut bytes);
        std::fs::write(&database, bytes).unwrap();
        let open = || DiskStore::open_with(left.dir.path(), SEGMENT).map_err(|error| error.to_string());
        let (store, snapshot) = open()?;
        let before = state(&store, &snapshot);
        let text = |error: StoreError| error.to_string();
        store.commit(&[Record::Appended(StreamId(1), message(301, 10, None)), done(250)]).map_err(text)?;
        tidy_up(&store);
        store.release(true).map_err(text)?;
        let (store, snapshot) = open()?;
        let after = state(&store, &snapshot);
        store.release(false).map_err(text)?;
        Ok((before, after))
    };
    let whole = go_on(&mut |_| {}).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for _ in 0..150 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let bit = random;
        let changed = go_on(&mut |bytes| {
            // Most of a page is often empty, so two of three bits are chosen among bytes that are not zero.
            let used: Vec<usize> = (0..bytes.len()).filter(|at| bit.is_multiple_of(3) || bytes[*at] != 0).collect();
            let at = used[usize::try_from(bit >> 3).unwrap() % used.len()];
            bytes[at] ^= 1 << (bit & 7);
        });
        match changed {
            Ok(found) => {
                assert!(found == whole, "bit {bit}");
                harmless += 1;
            }
            Err(error) => {
                assert!(error.contains("dms.db"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20 && harmless > 5, "{refused} refused, {harmless} harmless");
}

fn done(seq: u64) -> Record {
    let settlement = crate::store::Settlement { done: vec![seq], head: seq + 1, ..Default::default() };
    let cursor = crate::store::CursorId(3);
    Record::Settled { cursor, lease: None, histories: Vec::new(), settlement }
}

/// A queue with a group, 300 messages of which some are settled, delayed messages, dead letters and tags.
fn fill(store: &DiskStore) {
    use dms_protocol::queue::{QueueId, QueueTag};

    store
        .commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(crate::store::disk::tests::group(3, 1))])
        .unwrap();
    let tag = QueueTag { key: "k".to_owned(), value: "v".to_owned() };
    store.commit(&[Record::TagsSet(QueueId::new("queue-1"), vec![tag])]).unwrap();
    for seq in 1..=300 {
        store.commit(&[Record::Appended(StreamId(1), message(seq, 10, None))]).unwrap();
        if seq % 3 == 0 {
            store.commit(&[done(seq)]).unwrap();
        }
        if seq % 10 == 0 {
            store.commit(&[Record::Delayed(StreamId(2), message(seq / 10, 5, None))]).unwrap();
            store.commit(&[Record::Appended(StreamId(4), message(seq / 10, 5, Some("failed")))]).unwrap();
        }
    }
}

/// An index that is too large to be checked completely: the row of a run is checked when it is read, and a missing row is noticed.
#[test]
fn a_row_of_the_index_is_looked_at_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    fill(&store);
    store.flush_memtable().unwrap();
    let change = |sql: &str| store.change_index(|writer| Ok(writer.conn.execute_batch(sql)?)).unwrap();
    change("DELETE FROM runs WHERE id IN ((1 << 40) | 7, (1 << 40) | 300)");
    let found = store.read(StreamId(1), 1, ALL).unwrap();
    let missing: Vec<u64> = found.damaged.iter().map(|damaged| damaged.seq).collect();
    assert_eq!((found.messages.len(), missing), (298, vec![7, 300]));
    assert_eq!(store.read_these(StreamId(1), &[6, 7], 1_000).unwrap().damaged.len(), 1);
    change("UPDATE runs SET offset = offset + 1 WHERE id = (1 << 40) | 9");
    let refused = store.read(StreamId(1), 9, ALL).unwrap_err();
    assert!(format!("{refused:?}").contains("rebuild-index"), "{refused:?}");
    change("UPDATE due SET due_ms = 1 WHERE place = 4");
    assert!(store.first_due(StreamId(2), ALL, &BTreeSet::new()).is_err());
}

fn state(store: &DiskStore, snapshot: &Snapshot) -> String {
    let read = |stream| store.read(StreamId(stream), 1, ALL).unwrap();
    let due = store.first_due(StreamId(2), ALL, &BTreeSet::new()).unwrap();
    format!("{snapshot:?} {:?} {:?} {:?} {due:?}", read(1), read(2), read(4))
}

fn nightly() -> Record {
    let row = ScheduleRow {
        name: "nightly".to_owned(),
        cron: "0 2 * * *".to_owned(),
        timezone: "UTC".to_owned(),
        missed: MissedTicks::All,
        source: ScheduleSource::Configuration,
        paused: false,
        body: "1".into(),
        attributes: "{}".into(),
        tags: Arc::default(),
        created_ms: 7,
    };
    let progress = ScheduleProgress { done_ms: 9, ..ScheduleProgress::default() };
    Record::ScheduleSet { queue: queue(1).id, row: Box::new(row), progress }
}

fn kept_an_hour() -> Record {
    let policy = RetentionPolicy { retention: Some(Duration::from_secs(3600)), delete_when_settled: Some(true) };
    Record::RetentionSet(queue(1).id, policy)
}

/// While the log is complete, a lost index is rebuilt as it was.
#[test]
fn an_index_is_made_anew_from_a_complete_log() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    fill(&store);
    store
        .commit(&[
            Record::DelayEnded(StreamId(2), 1_001, 1),
            Record::Expired { stream: StreamId(1), low: 20, oldest: None },
            Record::Purged { cursor: CursorId(3), below: 150 },
            Record::DelayQueuePurged { delay_queue: StreamId(2), below: 4 },
            kept_an_hour(),
            nightly(),
        ])
        .unwrap();
    store.release(true).unwrap();
    let (store, snapshot) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    let before = state(&store, &snapshot);
    store.release(true).unwrap();
    for lost in [false, true] {
        let database = dir.path().join("dms.db");
        if lost {
            std::fs::remove_file(&database).unwrap();
        } else {
            let mut bytes = std::fs::read(&database).unwrap();
            bytes[4_096..12_000].fill(0x5a);
            std::fs::write(&database, bytes).unwrap();
        }
        assert!(DiskStore::open(dir.path()).is_err());
        let rebuilt = rebuild::rebuild(dir.path()).unwrap();
        assert_eq!((rebuilt.complete, rebuilt.unknown_messages, rebuilt.queues, rebuilt.groups), (true, 0, 1, 1));
        assert_eq!(rebuilt.old.is_some(), !lost);
        let (store, snapshot) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
        assert!(state(&store, &snapshot) == before);
        store.release(true).unwrap();
    }
}

/// After the first segments were deleted, intact rows of the old index are taken over. Messages come from the log.
#[test]
fn an_index_is_made_anew_with_what_is_whole_of_the_old_one() {
    for spoil in ["runs", "settled"] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
        fill(&store);
        store.commit(&[kept_an_hour()]).unwrap();
        for seq in 301..=900 {
            store.commit(&[Record::Appended(StreamId(1), message(seq, 200, None))]).unwrap();
        }
        store.commit(&[Record::Expired { stream: StreamId(1), low: 700, oldest: None }, done(850)]).unwrap();
        tidy_up(&store);
        assert!(!dir.path().join("log/0000000001.log").exists(), "its messages have expired or were moved");
        store.release(true).unwrap();
        let (store, snapshot) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
        let before = state(&store, &snapshot);
        let ready = snapshot.groups[0].cursor.ready.clone();
        store.change_index(|writer| Ok(writer.conn.execute_batch(&format!("UPDATE {spoil} SET sum = 1"))?)).unwrap();
        store.release(true).unwrap();
        assert!(DiskStore::open(dir.path()).is_err());
        let rebuilt = rebuild::rebuild(dir.path()).unwrap();
        assert_eq!((rebuilt.complete, rebuilt.unknown_messages), (spoil == "runs", 0), "{spoil}");
        let (store, snapshot) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
        if spoil == "runs" {
            assert!(state(&store, &snapshot) == before);
        } else {
            // Acknowledgements that were only in the damaged rows are lost: those messages are redelivered, and none is missing.
            let moved_bytes = &snapshot.groups[0].cursor.ready;
            assert!(
                ready.iter().all(|one| moved_bytes.contains(one)) && moved_bytes.iter().all(|(seq, _)| *seq != 850)
            );
            assert_eq!(store.read(StreamId(1), 700, ALL).unwrap().messages.len(), 201);
        }
        store.release(true).unwrap();
    }
}

/// A damaged header of a segment hides nothing: its commits identify it, and other damage in the same sector is set aside.
#[test]
fn a_damaged_head_of_a_file_hides_nothing() {
    for in_order in [false, true] {
        let left = Left::behind(in_order);
        let logs = left.logs();
        assert!(logs.len() > 2, "{}", logs.len());
        for (file, _) in &logs {
            let what = format!("{} {in_order}", file.display());
            // All bytes except the size that the file was created with. If that is larger than the file, the file counts as cut
            // short.
            for place in (0..12).chain(16..24) {
                let store = left.open_with(file, |bytes| bytes[place] ^= 1 << (place % 8)).unwrap();
                assert_eq!(left.check(&store, &what), 0, "{place} of {what}");
            }
            let store = left.open_with(file, |bytes| bytes[..24].fill(0)).unwrap();
            assert_eq!(left.check(&store, &what), 0, "zeroed: {what}");
        }
        // A whole sector includes the first commit. Its messages are set aside if the index knows them.
        let opened = left.open_with(&logs[1].0, |bytes| bytes[..512].fill(0xA5));
        let damaged = opened.map(|store| left.check(&store, "a sector"));
        assert!(damaged.as_ref().map_or(!in_order, |damaged| in_order && (1..=10).contains(damaged)), "{damaged:?}");
    }
}

/// Another segment of the same log in the place of one is refused, whatever its header says, because it hides answered commits.
#[test]
fn another_file_in_the_place_of_one_is_refused() {
    let left = Left::behind(true);
    let logs = left.logs();
    let later = std::fs::read(&logs[2].0).unwrap();
    for head in [later[..24].to_vec(), vec![0; 24]] {
        let opened = left.open_with(&logs[1].0, |bytes| {
            bytes.copy_from_slice(&later);
            bytes[..24].copy_from_slice(&head);
        });
        let refused = opened.map(drop).unwrap_err();
        assert!(refused.to_string().contains("another log"), "{refused}");
    }
}

/// The files of one folder of a data directory.
fn files_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    entries.map(|path| (path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

/// An index opens with every log of its own or of a later state, and with none of an earlier one: it would point to messages that
/// the log never had, and new commits would take the places of the missing ones.
#[test]
fn an_index_opens_with_no_log_of_an_earlier_state() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), SEGMENT).unwrap();
    store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
    let mut states = Vec::new();
    for seq in 1..=9 {
        let size = if seq % 3 == 0 { 40_000 } else { 300 };
        store.commit(&[Record::Appended(StreamId(1), message(seq, size, None))]).unwrap();
        store.flush_memtable().unwrap();
        states.push((files_of(dir.path()), files_of(&dir.path().join("log"))));
    }
    store.release(true).unwrap();
    drop(store);
    assert!(states.iter().map(|(_, log)| log.len()).max() > states.iter().map(|(_, log)| log.len()).min());
    for (of_index, (index, _)) in states.iter().enumerate() {
        for (of_log, (_, log)) in states.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("log")).unwrap();
            index.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
            log.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join("log").join(name), bytes).unwrap());
            match DiskStore::open_with(dir.path(), SEGMENT) {
                Ok((store, _)) => {
                    assert!(of_index <= of_log, "index {of_index}, log {of_log}");
                    assert_eq!(store.read(StreamId(1), 1, ALL).unwrap().messages.len(), of_log + 1);
                }
                // The commit of the queue is the first one.
                Err(OpenError::IndexAhead { index, log, .. }) => {
                    assert_eq!((index, log), (of_index as u64 + 2, of_log as u64 + 2));
                    assert!(of_index > of_log && files_of(&dir.path().join("log")) == states[of_log].1);
                }
                Err(other) => panic!("index {of_index}, log {of_log}: {other}"),
            }
        }
    }
}
