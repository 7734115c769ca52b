#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use crate::{
    shared_buffer::kept_bytes,
    store::{
        CursorId, Damaged, GroupRow, Settlement, StoredMessage,
        disk::{
            log::{frame::FRAME_HEADER, segment},
            *,
        },
    },
};
use dms_protocol::queue::{GroupId, QueueId};

mod damage;
mod full_disk;
mod model;
#[cfg(target_os = "linux")]
pub(crate) mod power_cut;
pub(crate) mod small_disk;

/// A store with queue 1 and group 3.
fn begin(dir: &Path) -> DiskStore {
    let (store, snapshot) = DiskStore::open_with(dir, 4 * 1024 * 1024).unwrap();
    assert_eq!(snapshot.next_number, 1);
    store.commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(group(3, 1))]).unwrap();
    store
}

pub(crate) fn group(number: u32, start: u64) -> GroupRow {
    let (queue, id) = (QueueId::new("queue-1"), GroupId::new(format!("g-{number}")));
    GroupRow { number, queue, id, name: format!("g{number}"), created_ms: 8, start }
}

pub(crate) fn appended(stream: u32, seq: u64, size: usize) -> Record {
    let json = "x".repeat(size).into();
    let tags = Arc::from(["a".to_owned(), "b".to_owned()]);
    Record::Appended(
        StreamId(stream),
        Arc::new(StoredMessage { seq, entered_ms: 5, json, body_bytes: size, tags, ..StoredMessage::default() }),
    )
}

pub(crate) fn settled(settlement: Settlement) -> Record {
    Record::Settled { cursor: CursorId(3), lease: None, histories: Vec::new(), settlement }
}

/// The number of rows of a table, after the memtable was flushed.
pub(crate) fn count(store: &DiskStore, table: &str) -> u64 {
    store.flush_memtable().unwrap();
    store.look_up(|conn| conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))).unwrap()
}

pub(crate) fn tidy_up(store: &DiskStore) -> usize {
    let step = || store.needs_maintenance().then(|| store.maintain().unwrap());
    std::iter::from_fn(step).take(1_000).count()
}

pub(crate) fn log_file(dir: &Path, number: u64) -> PathBuf {
    dir.join("log").join(format!("{number:010}.log"))
}

/// The files in the directory of the log.
pub(crate) fn log_files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join("log")).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "reserve");
    names.sort();
    names
}

pub(crate) fn places(messages: &[Arc<StoredMessage>]) -> Vec<u64> {
    messages.iter().map(|message| message.seq).collect()
}

pub(crate) use crate::store::test_model::{ALL, queue};

/// Opens the directory again as after a crash.
fn reopen(store: DiskStore, dir: &Path) -> (DiskStore, Snapshot) {
    store.release(false).unwrap();
    drop(store);
    DiskStore::open(dir).unwrap()
}

#[test]
fn messages_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    for places in [1..=4, 5..=5, 6..=9] {
        store.commit(&places.map(|seq| appended(1, seq, 100)).collect::<Vec<_>>()).unwrap();
        look(&store, 9);
        store.flush_memtable().unwrap();
    }
    let read_by_index = store.read(StreamId(1), 1, ALL).unwrap().messages;
    store.commit(&(10..=12).map(|seq| appended(1, seq, 100)).collect::<Vec<_>>()).unwrap();
    look(&store, 12);
    assert_eq!(store.read(StreamId(1), 1, ALL).unwrap().messages[..9], read_by_index);

    fn look(store: &DiskStore, last: u64) {
        let all = store.read(StreamId(1), 1, ALL).unwrap().messages;
        let there = all.len() as u64;
        assert!(there <= last && places(&all) == (1..=there).collect::<Vec<_>>());
        if there < 9 {
            return;
        }
        let Record::Appended(_, expected) = appended(1, 4, 100) else { unreachable!() };
        let read = store.read(StreamId(1), 4, ReadLimit { messages: 3, bytes: 1_000_000 }).unwrap().messages;
        assert_eq!((read.len(), &read[0]), (3, &expected));
        let by_bytes = store.read(StreamId(1), 1, ReadLimit { messages: 9, bytes: 600 }).unwrap().messages;
        assert_eq!(by_bytes.len(), 2, "as many as fit");
        let first = store.read(StreamId(1), 1, ReadLimit { messages: 9, bytes: 1 }).unwrap().messages;
        assert_eq!(first.len(), 1, "the first whatever its size");
        assert_eq!(places(&store.read_these(StreamId(1), &[2, 77, 9], 1_000_000).unwrap().messages), [2, 9]);
        assert_eq!(store.entered(StreamId(1), 8, 2, 5).unwrap(), [(8, 5), (9, 5)]);
        assert!(store.read(StreamId(2), 1, ALL).unwrap().messages.is_empty());
    }
}

/// The segment that was created in advance is too small for a commit, so another one takes its place.
#[test]
fn a_commit_larger_than_a_file_gets_one_of_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.next.make().unwrap();
    store.commit(&[appended(1, 1, 5 * 1024 * 1024)]).unwrap();
    store.commit(&[appended(1, 2, 100)]).unwrap();
    let (store, _) = reopen(store, dir.path());
    assert_eq!(places(&store.read(StreamId(1), 1, ALL).unwrap().messages), [1, 2]);
}

/// A commit between two lookups of a read at the end of a stream does not count as damage.
#[test]
fn a_read_at_the_end_of_a_stream_takes_no_new_message_for_a_damaged_one() {
    const MESSAGES: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=MESSAGES {
                store.commit(&[appended(1, seq, 10)]).unwrap();
                store.flush_memtable().unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        let mut next = 1;
        while !is_done.load(Ordering::Relaxed) {
            let found = store.read(StreamId(1), next, ALL).unwrap();
            assert_eq!(found.damaged, [], "after place {next}");
            next += found.messages.len() as u64;
        }
    });
}

/// A kill in the middle of the first commit of a segment leaves bytes in it. The segment is created again, and the new file is read.
/// As after a restart with a backlog: the index has more messages than one read returns, and newer ones are in the memtable.
#[test]
fn messages_between_the_read_and_the_memtable_are_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    for seq in 1..=20 {
        store.commit(&[appended(1, seq, 10)]).unwrap();
    }
    store.flush_memtable().unwrap();
    store.commit(&[appended(1, 21, 10)]).unwrap();
    let (mut next, limit) = (1, ReadLimit { messages: 8, ..ALL });
    while next <= 21 {
        let found = store.read(StreamId(1), next, limit).unwrap();
        assert_eq!(found.damaged, [], "after place {next}");
        let places: Vec<u64> = found.messages.iter().map(|message| message.seq).collect();
        assert_eq!(places, (next..=21).take(8).collect::<Vec<_>>());
        next = found.until;
        if next == u64::MAX {
            break;
        }
    }
}

#[test]
fn a_file_that_is_made_anew_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.next.make().unwrap();
    store.release(false).unwrap();
    drop(store);
    let mut next = std::fs::OpenOptions::new().write(true).open(log_file(dir.path(), 2)).unwrap();
    std::io::Seek::seek(&mut next, std::io::SeekFrom::Start(segment::SEGMENT_HEADER)).unwrap();
    std::io::Write::write_all(&mut next, b"torn").unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 4 * 1024 * 1024).unwrap();
    for seq in 1..=3 {
        store.commit(&[appended(1, seq, 3 * 1024 * 1024)]).unwrap();
    }
    store.flush_memtable().unwrap();
    assert_eq!(places(&store.read(StreamId(1), 1, ALL).unwrap().messages), [1, 2, 3]);
}

#[test]
fn messages_of_a_commit_are_put_together_by_stream() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    let mixed =
        [appended(1, 1, 10), appended(1, 2, 200_000), appended(4, 1, 10), appended(1, 3, 10), appended(1, 4, 10)];
    store.commit(&mixed).unwrap();
    store.commit(&(5..=200).map(|seq| appended(1, seq, 1_000)).collect::<Vec<_>>()).unwrap();
    let (store, _) = reopen(store, dir.path());
    assert_eq!(places(&store.read(StreamId(1), 1, ALL).unwrap().messages), (1..=200).collect::<Vec<_>>());
    assert_eq!(places(&store.read(StreamId(4), 1, ALL).unwrap().messages), [1]);
    let runs = count(&store, "runs");
    assert!((7..=12).contains(&runs), "{runs} runs of at most 48 KiB or one message");
}

/// Completely settled pages leave one row or none, wherever the gaps are.
#[test]
fn pages_that_are_settled_whole_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=5_000).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    let skip = |range| settled(Settlement { skipped: vec![range], head: 5_001, ..Settlement::default() });
    store.commit(&[skip(1..100), skip(101..5_001)]).unwrap();
    assert_eq!(count(&store, "settled"), 5, "all wait for place 100");
    let (store, snapshot) = reopen(store, dir.path());
    assert_eq!(snapshot.groups[0].cursor.ready, [(100, 0)]);
    store.commit(&[settled(Settlement { failed: vec![(100, 2)], ..Settlement::default() })]).unwrap();
    let (store, snapshot) = reopen(store, dir.path());
    assert_eq!(snapshot.groups[0].cursor.ready, [(100, 2)]);
    store.commit(&[settled(Settlement { done: vec![100], ..Settlement::default() })]).unwrap();
    assert_eq!(count(&store, "settled"), 1, "the page that is being filled");
    let (_store, snapshot) = reopen(store, dir.path());
    let cursor = &snapshot.groups[0].cursor;
    assert_eq!((cursor.head, cursor.consumed, cursor.ready.len()), (5_001, 1, 0));
}

/// A group that starts in the middle of a page does not get earlier messages.
#[test]
fn a_reader_does_not_go_back_behind_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=100).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    store.commit(&[Record::GroupCreated(group(5, 51))]).unwrap();
    let settlement = Settlement { done: vec![60], head: 71, ..Settlement::default() };
    let settled = Record::Settled { cursor: CursorId(5), lease: None, histories: Vec::new(), settlement };
    store.commit(&[settled]).unwrap();
    let (_store, snapshot) = reopen(store, dir.path());
    let ready: Vec<u64> = snapshot.groups[1].cursor.ready.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(ready, (51..71).filter(|seq| *seq != 60).collect::<Vec<_>>());
}

#[test]
fn what_expired_is_gone_with_its_pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=3_000).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    store.commit(&[settled(Settlement { done: vec![1, 1_500, 2_999], head: 3_001, ..Settlement::default() })]).unwrap();
    store.commit(&[Record::Expired { stream: StreamId(1), low: 2_900, oldest: None }]).unwrap();
    assert_eq!((count(&store, "runs"), count(&store, "settled")), (1, 1));
    assert_eq!(places(&store.read(StreamId(1), 2_900, ALL).unwrap().messages).len(), 101);
    let (_store, snapshot) = reopen(store, dir.path());
    assert_eq!(snapshot.queues[0].stream.low, 2_900);
    assert_eq!(snapshot.groups[0].cursor.ready.len(), 100);
}

/// A purge settles the messages below a sequence number and no others. A group that is created later gets none of them.
#[test]
fn what_was_purged_is_settled_with_its_pages() {
    for below in [1, 2, 1_024, 2_500, 3_001] {
        let dir = tempfile::tempdir().unwrap();
        let store = begin(dir.path());
        store.commit(&(1..=3_000).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
        let settlement = Settlement {
            done: vec![1, 2_700],
            failed: vec![(2_000, 1), (2_600, 2)],
            head: 2_701,
            ..Settlement::default()
        };
        store.commit(&[settled(settlement)]).unwrap();
        store.commit(&[Record::Purged { cursor: CursorId(3), below }]).unwrap();
        let (store, snapshot) = reopen(store, dir.path());
        let cursor = &snapshot.groups[0].cursor;
        let open = (below.max(2)..2_701)
            .filter(|seq| *seq != 2_700)
            .map(|seq| (seq, if seq == 2_000 { 1 } else { u32::from(seq == 2_600) * 2 }));
        assert_eq!((cursor.head, cursor.consumed), (below.max(2_701), 2), "below {below}");
        assert_eq!(cursor.ready, open.collect::<Vec<_>>(), "below {below}");
        assert_eq!(store.read(StreamId(1), 1, ALL).unwrap().messages.len(), 3_000);
    }
}

/// A commit for which the disk has no space is not part of the log, and the next one takes its place.
#[test]
fn a_failed_commit_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    store.commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(group(3, 1))]).unwrap();
    store.commit(&[appended(1, 1, 30_000)]).unwrap();
    // A directory has the name of the next segment.
    std::fs::create_dir(log_file(dir.path(), 2)).unwrap();
    let refused = store.commit(&[appended(1, 2, 50_000)]).unwrap_err();
    assert!(refused.to_string().contains("0000000002.log"), "{refused}");
    store
        .commit(&[appended(1, 2, 10), settled(Settlement { done: vec![1], head: 2, ..Settlement::default() })])
        .unwrap();
    std::fs::remove_dir(log_file(dir.path(), 2)).unwrap();
    store.commit(&[appended(1, 3, 50_000)]).unwrap();
    let (store, snapshot) = reopen(store, dir.path());
    assert_eq!((snapshot.queues[0].stream.next, snapshot.groups[0].cursor.consumed), (4, 1));
    assert_eq!(store.read(StreamId(1), 2, ALL).unwrap().messages[0].json.len(), 10);
}

/// The end of a segment is kept for commits without messages: acknowledgements succeed when messages do not fit.
#[test]
fn what_has_no_messages_has_room_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    store.commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(group(3, 1))]).unwrap();
    std::fs::create_dir(log_file(dir.path(), 2)).unwrap();
    let sent = (1..1_000).take_while(|seq| store.commit(&[appended(1, *seq, 300)]).is_ok()).count();
    assert!((100..200).contains(&sent), "{sent} messages of 300 bytes in 64 KiB");
    let done = |seq| settled(Settlement { done: vec![seq], head: seq + 1, ..Settlement::default() });
    let acknowledged = (1..1_000).take_while(|seq| store.commit(&[done(*seq)]).is_ok()).count();
    assert!(
        (4..20).contains(&acknowledged),
        "{acknowledged} in the 1 KiB that is kept, and what no message fitted into"
    );
}

/// A deleted queue disappears at once, its messages step by step, and then its segments.
#[test]
fn what_was_deleted_is_swept_and_its_room_free() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    store.commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(group(3, 1))]).unwrap();
    for seq in 1..=2_500 {
        store.commit(&[appended(1, seq, 500)]).unwrap();
    }
    tidy_up(&store);
    assert!(log_files(dir.path()).len() > 20);
    store.commit(&[Record::QueueDeleted(QueueId::new("queue-1"))]).unwrap();
    assert_eq!((count(&store, "queues"), count(&store, "consumer_groups"), count(&store, "runs")), (0, 0, 2_500));
    tidy_up(&store);
    assert_eq!((count(&store, "runs"), count(&store, "garbage")), (0, 0));
    assert!(log_files(dir.path()).len() <= 3, "{:?}", log_files(dir.path()));
    store.commit(&[Record::QueueCreated(queue(5)), appended(5, 1, 500)]).unwrap();
    let (store, _) = reopen(store, dir.path());
    assert_eq!(places(&store.read(StreamId(5), 1, ALL).unwrap().messages), [1]);
}

/// A few remaining messages do not keep the segments of many deleted ones: they are moved, and still found.
#[test]
fn what_is_left_in_a_file_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    store.commit(&[Record::QueueCreated(queue(1)), Record::QueueCreated(queue(5))]).unwrap();
    for seq in 1..=1_000 {
        store.commit(&[appended(1, seq, 900)]).unwrap();
        if seq % 50 == 0 {
            store.commit(&[appended(5, seq / 50, 100)]).unwrap();
        }
    }
    let delayed = StoredMessage {
        seq: 1,
        entered_ms: 77,
        json: "late".into(),
        body_bytes: 4,
        tags: Arc::from([]),
        ..StoredMessage::default()
    };
    store.commit(&[Record::Delayed(StreamId(2), Arc::new(delayed))]).unwrap();
    store.commit(&[appended(1, 1_001, 60_000)]).unwrap();
    tidy_up(&store);
    let before = log_files(dir.path()).len();
    let kept = store.read(StreamId(5), 1, ALL).unwrap().messages;
    store.commit(&[Record::Expired { stream: StreamId(1), low: 1_001, oldest: Some(5) }]).unwrap();
    tidy_up(&store);
    assert!(before > 10 && log_files(dir.path()).len() <= 4, "{before} files, then {:?}", log_files(dir.path()));
    let (store, snapshot) = reopen(store, dir.path());
    assert_eq!((snapshot.queues[1].stream.next, snapshot.queues[0].delay_queue.count), (21, 1));
    assert_eq!(store.read(StreamId(5), 1, ALL).unwrap().messages, kept);
    assert_eq!(store.first_due(StreamId(2), ALL, &BTreeSet::new()).unwrap().messages[0].json, "late");
    assert_eq!(places(&store.read(StreamId(1), 1_001, ALL).unwrap().messages), [1_001]);
}

/// Delayed messages are read by due time, and are gone when their delay has ended, whether the index knows or not.
#[test]
fn a_lot_is_read_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    let delayed = |seq, due| {
        let message = StoredMessage {
            seq,
            entered_ms: due,
            json: "x".into(),
            body_bytes: 1,
            tags: Arc::from([]),
            ..StoredMessage::default()
        };
        Record::Delayed(StreamId(2), Arc::new(message))
    };
    store.commit(&[delayed(1, 30), delayed(2, 10), delayed(3, 20)]).unwrap();
    assert_eq!(places(&store.first_due(StreamId(2), ALL, &BTreeSet::new()).unwrap().messages), [2, 3, 1]);
    store.commit(&[Record::DelayEnded(StreamId(2), 10, 2)]).unwrap();
    assert_eq!(places(&store.first_due(StreamId(2), ALL, &BTreeSet::new()).unwrap().messages), [3, 1]);
    store.commit(&[Record::DelayEnded(StreamId(2), 20, 3), delayed(4, 5)]).unwrap();
    assert_eq!(places(&store.read(StreamId(2), 1, ALL).unwrap().messages), [1, 4]);
    let (_, snapshot) = reopen(store, dir.path());
    assert_eq!((snapshot.queues[0].delay_queue.count, snapshot.queues[0].delay_queue.next_due), (2, Some(5)));
}

/// A frame that a crash cut anywhere is not part of the log. All earlier frames are, and the log continues after them.
#[test]
fn a_frame_that_is_not_whole_is_wiped() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
    store.commit(&[appended(1, 1, 100)]).unwrap();
    let whole = locked(&store.log).as_ref().unwrap().end().offset;
    let answered = std::fs::read(dir.path().join("log/answered")).unwrap();
    store.commit(&[appended(1, 2, 5_000), appended(1, 3, 100)]).unwrap();
    let end = locked(&store.log).as_ref().unwrap().end().offset;
    store.release(false).unwrap();
    let (file, database) = (log_file(dir.path(), 1), dir.path().join("dms.db"));
    let kept = (std::fs::read(&file).unwrap(), std::fs::read(&database).unwrap());
    for cut in (whole..end).step_by(97).chain([end - 1]) {
        let mut bytes = kept.0.clone();
        bytes[usize::try_from(cut).unwrap()..usize::try_from(end).unwrap()].fill(0);
        std::fs::write(&file, bytes).unwrap();
        std::fs::write(&database, &kept.1).unwrap();
        std::fs::write(dir.path().join("log/answered"), &answered).unwrap();
        let (store, snapshot) = DiskStore::open(dir.path()).unwrap();
        assert_eq!(snapshot.queues[0].stream.next, 2, "cut at {cut}");
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 64 * 1024, "its room is kept");
        store.commit(&[appended(1, 2, 10)]).unwrap();
        let (store, snapshot) = reopen(store, dir.path());
        assert_eq!(snapshot.queues[0].stream.next, 3, "cut at {cut}");
        store.release(false).unwrap();
        for name in ["dms.db-wal", "dms.db-shm"] {
            let _ = std::fs::remove_file(dir.path().join(name));
        }
    }
}

/// The header of a frame may span two sectors, and a power cut may keep the first of them and the bytes after the second.
#[test]
fn a_frame_whose_head_is_cut_by_the_border_of_a_sector_is_wiped() {
    for first_part in 1..FRAME_HEADER {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
        let end = || usize::try_from(locked(&store.log).as_ref().unwrap().end().offset).unwrap();
        store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
        let queue_end = end();
        store.commit(&[appended(1, 1, 0)]).unwrap();
        let without_body = end() - queue_end;
        store.commit(&[appended(1, 2, 1_024 - first_part - (end() + without_body) % 512)]).unwrap();
        let answered = std::fs::read(dir.path().join("log/answered")).unwrap();
        let border = end() + first_part;
        assert_eq!(border % 512, 0);
        store.commit(&[appended(1, 3, 3_000)]).unwrap();
        store.release(false).unwrap();
        let file = log_file(dir.path(), 1);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[border..border + 512].fill(0);
        std::fs::write(&file, bytes).unwrap();
        std::fs::write(dir.path().join("log/answered"), &answered).unwrap();
        let (_, snapshot) = DiskStore::open(dir.path()).unwrap();
        assert_eq!(snapshot.queues[0].stream.next, 3, "{first_part} bytes of the head");
    }
}

/// A crash cuts off the last frame at most. A log that lost more, zeroed or cut off, is refused and left as it is.
#[test]
fn a_log_that_lost_answered_commits_is_refused() {
    for in_order in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
        store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
        let mut begins = Vec::new();
        for seq in 1..=20 {
            begins.push(locked(&store.log).as_ref().unwrap().end().offset);
            store.commit(&[appended(1, seq, 1_000)]).unwrap();
        }
        store.release(in_order).unwrap();
        let file = log_file(dir.path(), 1);
        let whole = std::fs::read(&file).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            let error = DiskStore::open(dir.path()).unwrap_err();
            assert!(matches!(&error, OpenError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("0000000001.log"), "{error}");
            assert!(std::fs::read(&file).unwrap() == bytes, "changed");
            error.to_string()
        };
        for begin in [begins[0], begins[5], begins[19]] {
            let begin = usize::try_from(begin).unwrap();
            let mut zeroed = whole.clone();
            zeroed[begin..].fill(0);
            let said = refused(&zeroed);
            assert!(said.contains("answered"), "{said}");
            zeroed[begin..begin + 300].copy_from_slice(&whole[begin..begin + 300]);
            assert!(in_order || begin == usize::try_from(begins[19]).unwrap() || refused(&zeroed).contains("answered"));
            let said = refused(&whole[..begin]);
            assert!(said.contains("cut short"), "{said}");
        }
        assert!(refused(&whole[..1_000]).contains("cut short"));
        assert!(refused(&whole[..10]).contains("cut short"));
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(DiskStore::open(dir.path()).unwrap().1.queues[0].stream.next, 21);
    }
}

/// A full segment is never shorter than it was created, and none is missing.
#[test]
fn a_full_file_that_is_cut_short_or_missing_is_refused() {
    for in_order in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
        store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
        for seq in 1..=300 {
            store.commit(&[appended(1, seq, 1_000)]).unwrap();
        }
        store.release(in_order).unwrap();
        for number in [1, 2] {
            let file = log_file(dir.path(), number);
            let whole = std::fs::read(&file).unwrap();
            for length in [10, 1_000, whole.len() - 1] {
                std::fs::write(&file, &whole[..length]).unwrap();
                let error = DiskStore::open(dir.path()).unwrap_err();
                assert!(matches!(&error, OpenError::Damaged { .. }), "{number} {length}: {error}");
            }
            std::fs::remove_file(&file).unwrap();
            assert!(matches!(DiskStore::open(dir.path()).unwrap_err(), OpenError::Damaged { .. }), "{number}");
            std::fs::write(&file, whole).unwrap();
        }
        assert_eq!(DiskStore::open(dir.path()).unwrap().1.queues[0].stream.next, 301);
    }
}

/// A segment that was created in advance is used again after a crash. A file that is not ours is not overwritten.
#[test]
fn files_made_ahead_are_used_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
    store.next.make().unwrap();
    store.release(false).unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    assert!(store.next.is_made());
    store.release(false).unwrap();
    let theirs = std::fs::read(log_file(dir.path(), 2)).map(|mut bytes| {
        bytes[8] ^= 1;
        bytes
    });
    std::fs::write(log_file(dir.path(), 2), theirs.as_ref().unwrap()).unwrap();
    let error = DiskStore::open_with(dir.path(), 64 * 1024).unwrap_err();
    assert!(error.to_string().contains("0000000002.log: it belongs to another log"), "{error}");
    assert_eq!(std::fs::read(log_file(dir.path(), 2)).unwrap(), theirs.unwrap());
    // An incomplete one is created again.
    std::fs::write(log_file(dir.path(), 2), [0; 100]).unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 64 * 1024).unwrap();
    for seq in 1..=100 {
        store.commit(&[appended(1, seq, 1_000)]).unwrap();
    }
    let (_store, snapshot) = reopen(store, dir.path());
    assert_eq!(snapshot.queues[0].stream.next, 101);
}

/// If the lock file is deleted, no second process can open the directory, and the first one stops writing.
#[cfg(unix)]
#[test]
fn a_deleted_lock_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&[appended(1, 1, 10)]).unwrap();
    std::fs::remove_file(dir.path().join("dms.lock")).unwrap();
    assert!(matches!(DiskStore::open(dir.path()).unwrap_err(), OpenError::InUse { .. }));
    let refused = store.commit(&[appended(1, 2, 10)]).unwrap_err();
    assert!(refused.to_string().contains("dms.lock was deleted or replaced"), "{refused}");
    assert!(refused.is_lost() && store.maintain().unwrap_err().is_lost());
    store.release(false).unwrap();
    drop(store);
    assert_eq!(DiskStore::open(dir.path()).unwrap().1.queues[0].stream.next, 2);
    let store = DiskStore::open(dir.path()).unwrap().0;
    std::fs::rename(dir.path().join("log"), dir.path().join("away")).unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(store.commit(&[appended(1, 2, 10)]).is_err());
}

/// Only this user can read the created files.
#[cfg(unix)]
#[test]
fn files_are_nobody_elses_business() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let store = begin(&dir);
    store.commit(&[appended(1, 1, 10)]).unwrap();
    store.flush_memtable().unwrap();
    let mut looked = 0;
    let mut look = |path: &Path| {
        let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        looked += 1;
    };
    look(&dir);
    for directory in [dir.clone(), dir.join("log")] {
        std::fs::read_dir(directory).unwrap().for_each(|entry| look(&entry.unwrap().path()));
    }
    assert!(looked >= 7, "{looked}");
}

/// A damaged frame before others is not the end of the log: the directory is refused and left as it is.
#[test]
fn damage_in_the_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    for seq in 1..=3 {
        store.commit(&[appended(1, seq, 1_000)]).unwrap();
    }
    store.release(false).unwrap();
    let file = log_file(dir.path(), 1);
    let whole = std::fs::read(&file).unwrap();
    // More than one bit, outside of messages.
    for place in [60, 100, 200] {
        let mut bytes = whole.clone();
        bytes[place..place + 9].fill(0xA5);
        std::fs::write(&file, &bytes).unwrap();
        let damaged = DiskStore::open(dir.path()).unwrap_err();
        assert!(matches!(&damaged, OpenError::Damaged { .. }), "{place}: {damaged}");
        assert!(damaged.to_string().contains("0000000001.log"), "{damaged}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "{place}: changed");
    }
    let other = tempfile::tempdir().unwrap();
    begin(other.path()).release(false).unwrap();
    std::fs::copy(log_file(other.path(), 1), &file).unwrap();
    let damaged = DiskStore::open(dir.path()).unwrap_err();
    assert!(damaged.to_string().contains("another log"), "{damaged}");
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(DiskStore::open(dir.path()).unwrap_err(), OpenError::Damaged { .. }));
    std::fs::write(&file, whole).unwrap();
    assert_eq!(DiskStore::open(dir.path()).unwrap().1.queues[0].stream.next, 4);
}

/// A damaged message is not delivered.
#[test]
fn a_damaged_message_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&[appended(1, 1, 1_000)]).unwrap();
    store.commit(&[appended(1, 2, 1_000)]).unwrap();
    store.release(true).unwrap();
    let file = log_file(dir.path(), 1);
    let mut bytes = std::fs::read(&file).unwrap();
    let message = bytes.windows(10).rposition(|window| window == b"xxxxxxxxxx").unwrap();
    bytes[message] = b'y';
    std::fs::write(&file, bytes).unwrap();
    let (store, _) = DiskStore::open(dir.path()).unwrap();
    assert_eq!(places(&store.read(StreamId(1), 1, ReadLimit { messages: 1, bytes: 1 }).unwrap().messages), [1]);
    let found = store.read(StreamId(1), 2, ALL).unwrap();
    assert_eq!((found.messages.len(), found.damaged.len()), (0, 1));
    let Damaged { seq, entered_ms, file, offset, reason, is_unreadable: _ } = &found.damaged[0];
    assert_eq!((*seq, *entered_ms), (2, Some(5)));
    assert!(file.ends_with("0000000001.log") && reason.contains("checksum"), "{file}: {reason}");
    // The text comes after a header of 28 bytes and the labels.
    assert_eq!(*offset + 28 + 3, u64::try_from(message - 1_000 + 10).unwrap());
}

/// Retention reads entry times without bodies, and stops after the first message that is not due.
#[test]
fn entry_times_are_read_without_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    let at = |seq, entered_ms, size: usize| {
        let json = "x".repeat(size).into();
        Record::Appended(
            StreamId(1),
            Arc::new(StoredMessage { seq, entered_ms, json, body_bytes: size, ..StoredMessage::default() }),
        )
    };
    store.commit(&[at(1, 10, 300_000), at(2, 20, 300_000), at(3, 30, 10), at(4, 40, 10), at(5, 50, 10)]).unwrap();
    let all = [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)];
    let look = |store: &DiskStore| {
        assert_eq!(store.entered(StreamId(1), 1, 9, 99).unwrap(), all);
        assert_eq!(store.entered(StreamId(1), 2, 2, 99).unwrap(), all[1..3]);
        assert_eq!(store.entered(StreamId(1), 1, 9, 30).unwrap(), all[..4], "up to the first that is later");
        assert_eq!(store.entered(StreamId(1), 1, 9, 0).unwrap(), all[..1]);
        assert_eq!(store.entered(StreamId(1), 6, 9, 99).unwrap(), []);
    };
    look(&store);
    store.release(true).unwrap();
    let file = log_file(dir.path(), 1);
    let mut bytes = std::fs::read(&file).unwrap();
    let body = bytes.windows(10).position(|window| window == b"xxxxxxxxxx").unwrap();
    bytes[body + 1_000] = b'y';
    std::fs::write(&file, bytes).unwrap();
    let (store, snapshot) = DiskStore::open(dir.path()).unwrap();
    assert_eq!(snapshot.queues[0].stream.oldest, Some(10), "one body keeps nothing from opening");
    look(&store);
}

/// A message whose time is damaged expires together with the next readable one, never earlier, and does not block others.
#[test]
fn the_time_of_damaged_messages_is_that_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    let at = |seq, entered_ms| {
        let json = format!("body-{seq}").into();
        Record::Appended(
            StreamId(1),
            Arc::new(StoredMessage { seq, entered_ms, json, body_bytes: 6, ..StoredMessage::default() }),
        )
    };
    for (seq, entered_ms) in [(1, 10), (2, 20), (3, 30)] {
        store.commit(&[at(seq, entered_ms)]).unwrap();
    }
    store.release(true).unwrap();
    let file = log_file(dir.path(), 1);
    let whole = std::fs::read(&file).unwrap();
    let damaged = |bodies: &[&str]| {
        let mut bytes = whole.clone();
        for body in bodies {
            let place = bytes.windows(body.len()).position(|window| window == body.as_bytes()).unwrap();
            // The header, which contains the time.
            bytes[place - 28] ^= 1;
        }
        std::fs::write(&file, bytes).unwrap();
        let (store, snapshot) = DiskStore::open(dir.path()).unwrap();
        let times = store.entered(StreamId(1), 1, 9, 99).unwrap();
        store.release(false).unwrap();
        (snapshot.queues[0].stream.oldest, times)
    };
    assert_eq!(damaged(&["body-1"]), (Some(20), vec![(1, 20), (2, 20), (3, 30)]));
    assert_eq!(damaged(&["body-1", "body-2"]), (Some(30), vec![(1, 30), (2, 30), (3, 30)]));
    assert_eq!(damaged(&["body-3"]), (Some(10), vec![(1, 10), (2, 20), (3, 30)]), "the newest of the stream");
    assert_eq!(damaged(&["body-1", "body-2", "body-3"]).0, Some(30));
}

/// The memtable and SQLite's write-ahead log stay bounded while commits follow each other.
#[test]
fn the_index_follows_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    for seq in 1..=2_500 {
        store.commit(&[appended(1, seq, 2_000)]).unwrap();
        if store.needs_maintenance() {
            store.maintain().unwrap();
        }
        assert!(locked(&store.memtable).runs(StreamId(1), 1, usize::MAX).0.len() <= 1_025);
    }
    let log = std::fs::metadata(dir.path().join("dms.db-wal")).unwrap().len();
    assert!(log < 8 * 1024 * 1024, "{log} bytes");
    store.release(true).unwrap();
    assert!(std::fs::metadata(dir.path().join("dms.db-wal")).map_or(0, |meta| meta.len()) == 0);
}

/// An unreadable page, or a stream without its end, is found when the directory is opened.
#[test]
fn damage_inside_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=10).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    store.commit(&[settled(Settlement { done: vec![2], head: 5, ..Settlement::default() })]).unwrap();
    store.flush_memtable().unwrap();
    store.change_index(|writer| Ok(writer.conn.execute_batch("UPDATE settled SET bits = x'00'")?)).unwrap();
    store.release(true).unwrap();
    let damaged = DiskStore::open(dir.path()).unwrap_err();
    assert!(
        matches!(&damaged, OpenError::Damaged { reason, .. } if reason.contains("its table settled does not match")),
        "{damaged}"
    );
    let file = Connection::open(dir.path().join("dms.db")).unwrap();
    file.execute_batch("DELETE FROM settled; DELETE FROM runs WHERE id & 0xffff = 1").unwrap();
    drop(file);
    let damaged = DiskStore::open(dir.path()).unwrap_err();
    assert!(
        matches!(&damaged, OpenError::Damaged { .. }) && damaged.to_string().contains("rebuild-index"),
        "{damaged}"
    );
}

/// A message that is read keeps at most nine others in memory, however many were committed with it, and the lease budget counts them.
#[test]
fn a_message_that_is_read_keeps_few_others_in_memory() {
    let kept =
        |messages: &[Arc<StoredMessage>]| kept_bytes(messages.iter().map(|message| (&message.json, message.buffer)));
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=20).map(|seq| appended(1, seq, 1_000)).collect::<Vec<_>>()).unwrap();
    for pass in ["in the memtable", "in the index"] {
        let mut read = store.read(StreamId(1), 1, ALL).unwrap().messages;
        assert_eq!(read.len(), 20);
        let longest = read.iter().map(|message| message.json.len()).max().unwrap();
        let together = kept(read.as_slice());
        assert!((20 * 1_000..=30 * longest).contains(&together), "{pass}: {together} bytes, and {longest} a message");
        read.extend(store.read_these(StreamId(1), &[3, 7], usize::MAX).unwrap().messages);
        assert_eq!(read.len(), 22);
        let few = |message: &Arc<StoredMessage>| kept(std::slice::from_ref(message)) <= 11 * longest;
        assert!(read.iter().all(few), "{pass}");
        store.flush_memtable().unwrap();
    }
}
