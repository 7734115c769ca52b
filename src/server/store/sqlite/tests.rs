#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    queue::{GroupId, ProjectId, QueueId, QueueMode},
    server::store::{GroupRow, QueueRow, ReaderNo, Settlement},
};

/// A database with one queue, number 1, and one group, number 3.
fn begin(dir: &Path) -> SqliteStore {
    let (store, snapshot) = SqliteStore::open(dir).unwrap();
    assert_eq!(snapshot.next_number, 1);
    store.commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(group(3, 1))]).unwrap();
    store
}

fn queue(number: u32) -> QueueRow {
    QueueRow {
        number,
        id: QueueId::new(format!("queue-{number}")),
        project: ProjectId::new("p"),
        name: format!("q{number}"),
        mode: QueueMode::Normal,
        description: String::new(),
        max_consume_count: Some(3),
        retention_hours: None,
        created_ms: 7,
    }
}

fn group(number: u32, start: u64) -> GroupRow {
    let (queue, id) = (QueueId::new("queue-1"), GroupId::new(format!("g-{number}")));
    GroupRow { number, queue, id, name: format!("g{number}"), created_ms: 8, start }
}

fn appended(stream: u32, seq: u64, size: usize) -> Record {
    let json = "x".repeat(size).into();
    let tags = Arc::from(["a".to_owned(), "b".to_owned()]);
    Record::Appended(StreamNo(stream), Arc::new(Stored { seq, entered_ms: 5, json, body_bytes: size, tags }))
}

fn settled(settlement: Settlement) -> Record {
    Record::Settled { reader: ReaderNo(3), lease: None, settlement }
}

fn count(store: &SqliteStore, table: &str) -> u64 {
    store.read(|conn| conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))).unwrap()
}

/// Opens the directory again as after a crash.
fn reopen(store: SqliteStore, dir: &Path) -> (SqliteStore, Snapshot) {
    store.release(false).unwrap();
    drop(store);
    SqliteStore::open(dir).unwrap()
}

#[test]
fn messages_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=9).map(|seq| appended(1, seq, 100)).collect::<Vec<_>>()).unwrap();
    let Record::Appended(_, expected) = appended(1, 4, 100) else { unreachable!() };
    let limit = ReadLimit { messages: 3, bytes: 1_000_000 };
    let read = Store::read(&store, StreamNo(1), 4, limit).unwrap();
    assert_eq!((read.len(), &read[0]), (3, &expected));
    let by_bytes = Store::read(&store, StreamNo(1), 1, ReadLimit { messages: 9, bytes: 600 }).unwrap();
    assert_eq!(by_bytes.len(), 2, "as many as fit");
    let first = Store::read(&store, StreamNo(1), 1, ReadLimit { messages: 9, bytes: 1 }).unwrap();
    assert_eq!(first.len(), 1, "the first whatever its size");
    let these = store.read_these(StreamNo(1), &[2, 77, 9], 1_000_000).unwrap();
    assert_eq!(these.iter().map(|message| message.seq).collect::<Vec<_>>(), [2, 9]);
    assert_eq!(store.entered(StreamNo(1), 8, 10).unwrap(), [(8, 5), (9, 5)]);
    assert!(Store::read(&store, StreamNo(2), 1, limit).unwrap().is_empty());
}

/// Whole pages leave one row or none, wherever the holes are.
#[test]
fn pages_that_are_settled_whole_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=5_000).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    let skip = |range| settled(Settlement { skipped: vec![range], head: 5_001, ..Settlement::default() });
    store.commit(&[skip(1..100), skip(101..5_001)]).unwrap();
    assert_eq!(count(&store, "settled"), 5, "all wait for place 100");
    let (store, snapshot) = reopen(store, dir.path());
    assert_eq!(snapshot.groups[0].reader.ready, [(100, 0)]);
    store.commit(&[settled(Settlement { failed: vec![(100, 2)], ..Settlement::default() })]).unwrap();
    let (store, snapshot) = reopen(store, dir.path());
    assert_eq!(snapshot.groups[0].reader.ready, [(100, 2)]);
    store.commit(&[settled(Settlement { done: vec![100], ..Settlement::default() })]).unwrap();
    assert_eq!(count(&store, "settled"), 1, "the page that is being filled");
    let (_store, snapshot) = reopen(store, dir.path());
    let reader = &snapshot.groups[0].reader;
    assert_eq!((reader.head, reader.consumed, reader.ready.len()), (5_001, 1, 0));
}

/// A group that begins in the middle of a page does not get what lies before.
#[test]
fn a_reader_does_not_go_back_behind_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=100).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    store.commit(&[Record::GroupCreated(group(5, 51))]).unwrap();
    let settlement = Settlement { done: vec![60], head: 71, ..Settlement::default() };
    store.commit(&[Record::Settled { reader: ReaderNo(5), lease: None, settlement }]).unwrap();
    let (_store, snapshot) = reopen(store, dir.path());
    let ready: Vec<u64> = snapshot.groups[1].reader.ready.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(ready, (51..71).filter(|seq| *seq != 60).collect::<Vec<_>>());
}

#[test]
fn what_expired_is_gone_with_its_pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=3_000).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    store.commit(&[settled(Settlement { done: vec![1, 1_500, 2_999], head: 3_001, ..Settlement::default() })]).unwrap();
    store.commit(&[Record::Expired { stream: StreamNo(1), low: 2_900, oldest: None }]).unwrap();
    assert_eq!((count(&store, "messages"), count(&store, "settled")), (101, 1));
    let (_store, snapshot) = reopen(store, dir.path());
    assert_eq!(snapshot.queues[0].stream.low, 2_900);
    assert_eq!(snapshot.groups[0].reader.ready.len(), 100);
}

/// A commit that fails in the middle leaves nothing behind, in the file or in memory.
#[test]
fn a_failed_commit_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&[appended(1, 1, 1)]).unwrap();
    let done = settled(Settlement { done: vec![1], head: 2, ..Settlement::default() });
    let twice = [appended(1, 2, 1), done.clone(), appended(1, 2, 1)];
    assert!(store.commit(&twice).is_err(), "a place is taken once");
    assert_eq!(count(&store, "messages"), 1);
    store.commit(&[appended(1, 2, 1), done]).unwrap();
    let (_store, snapshot) = reopen(store, dir.path());
    assert_eq!((snapshot.queues[0].stream.next, snapshot.groups[0].reader.consumed), (3, 1));
}

/// A deleted queue is gone at once, its messages step by step, and the room is used again.
#[test]
fn what_was_deleted_is_swept_and_its_room_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    let fill = |stream| (1..=2_500).map(|seq| appended(stream, seq, 500)).collect::<Vec<_>>();
    store.commit(&fill(1)).unwrap();
    let pages = || store.read(|conn| conn.pragma_query_value(None, "page_count", |row| row.get::<_, u64>(0))).unwrap();
    let before = pages();
    store.commit(&[Record::QueueDeleted(QueueId::new("queue-1"))]).unwrap();
    assert_eq!((count(&store, "queues"), count(&store, "consumer_groups"), count(&store, "messages")), (0, 0, 2_500));
    let mut steps = 0;
    while store.wants_tidying() {
        store.tidy().unwrap();
        steps += 1;
    }
    assert!(steps >= 3, "{steps} steps for 2,500 messages");
    assert_eq!((count(&store, "messages"), count(&store, "garbage")), (0, 0));
    store.commit(&[Record::QueueCreated(queue(5))]).unwrap();
    store.commit(&fill(5)).unwrap();
    assert!(pages() <= before + 4, "{} pages, {before} before", pages());
}

/// The log does not grow without bound while commits follow each other.
#[test]
fn the_log_is_copied_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    let mut seq = 0;
    for _ in 0..60 {
        let mut records = Vec::new();
        for _ in 0..20 {
            seq += 1;
            records.push(appended(1, seq, 100_000));
        }
        store.commit(&records).unwrap();
        if store.wants_tidying() {
            store.tidy().unwrap();
        }
    }
    let log = std::fs::metadata(dir.path().join("dms.db-wal")).unwrap().len();
    assert!(log < 2 * LOG_BYTES as u64, "{log} bytes of log after 120 MB");
    store.release(true).unwrap();
    assert!(std::fs::metadata(dir.path().join("dms.db-wal")).map_or(0, |meta| meta.len()) == 0);
}

/// A page that cannot be read, or a stream without its end, is found when the file is opened.
#[test]
fn damage_inside_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=10).map(|seq| appended(1, seq, 1)).collect::<Vec<_>>()).unwrap();
    store.commit(&[settled(Settlement { done: vec![2], head: 5, ..Settlement::default() })]).unwrap();
    store.write(|writer| Ok(writer.conn.execute_batch("UPDATE settled SET bits = x'00'")?)).unwrap();
    store.release(true).unwrap();
    let damaged = SqliteStore::open(dir.path()).unwrap_err();
    assert!(
        matches!(&damaged, OpenError::Damaged { reason, .. } if reason.contains("page 0 of reader 3")),
        "{damaged}"
    );
    let file = Connection::open(dir.path().join("dms.db")).unwrap();
    file.execute_batch("DELETE FROM settled; DELETE FROM messages WHERE id & 0xffff = 10").unwrap();
    drop(file);
    let damaged = SqliteStore::open(dir.path()).unwrap_err();
    assert!(matches!(&damaged, OpenError::Damaged { reason, .. } if reason.contains("messages 1 to 10")), "{damaged}");
}
