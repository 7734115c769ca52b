//! A full disk: the changes that still succeed, and recovery when there is space again.
#![allow(clippy::unwrap_used)]

use crate::store::{
    Settlement, StoredMessage,
    disk::{
        tests::{ALL, appended, count, group, log_file, log_files, places, queue, settled, small_disk, tidy_up},
        *,
    },
};
use dms_protocol::{message::DeadLetterInfo, queue::QueueId};

const SEGMENT: u64 = 64 * 1024;

/// A store with queue 1 and group 3, whose dead letters are stream 4.
fn begin(dir: &Path) -> DiskStore {
    let (store, _) = DiskStore::open_with(dir, SEGMENT).unwrap();
    store.commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(group(3, 1))]).unwrap();
    store
}

fn reopen(store: DiskStore, dir: &Path) -> (DiskStore, Snapshot) {
    store.release(false).unwrap();
    drop(store);
    DiskStore::open_with(dir, SEGMENT).unwrap()
}

/// Sends messages of 1,000 bytes until the disk is full. Returns how many.
fn fill(store: &DiskStore, first: u64) -> u64 {
    let send = |seq: &u64| match store.commit(&[appended(1, *seq, 1_000)]) {
        Err(error) => {
            assert!(error.is_full(), "{error}");
            false
        }
        Ok(()) => true,
    };
    (first..first + 1_000).take_while(send).count() as u64
}

/// A message that fails for the last time.
fn dies(seq: u64) -> [Record; 2] {
    let Record::Appended(_, message) = appended(1, seq, 1_000) else { unreachable!() };
    let StoredMessage { entered_ms, ref json, body_bytes, .. } = *message;
    let dead_letter = Some(Arc::new(DeadLetterInfo::default()));
    let copy = StoredMessage {
        seq,
        entered_ms,
        json: json.clone(),
        body_bytes,
        tags: Arc::default(),
        dead_letter,
        ..StoredMessage::default()
    };
    let settlement = Settlement { dead: vec![seq], head: seq + 1, ..Settlement::default() };
    [Record::Appended(StreamId(4), Arc::new(copy)), settled(settlement)]
}

fn delayed(seq: u64, size: usize) -> Record {
    let (json, tags) = ("x".repeat(size).into(), Arc::default());
    let message = StoredMessage { seq, entered_ms: 9, json, body_bytes: size, tags, ..StoredMessage::default() };
    Record::Delayed(StreamId(2), Arc::new(message))
}

/// New messages are refused first. Then there is half a segment for dead letters, ended delays and acknowledgements.
#[test]
fn what_is_not_new_goes_on_when_new_messages_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=5).map(|seq| delayed(seq, 1_000)).collect::<Vec<_>>()).unwrap();
    small_disk::fill(dir.path());
    let sent = fill(&store, 1);
    assert!((50..60).contains(&sent), "{sent} of 1,000 bytes in the one file");
    assert_eq!(store.disk_full().map(|error| error.to_string()), None, "the reserve was not needed yet");
    for seq in 1..=5 {
        let [due, next] = [Record::DelayEnded(StreamId(2), 9, seq), appended(1, sent + seq, 1_000)];
        store.commit(&[due, next]).unwrap();
    }
    for seq in 1..=15 {
        store.commit(&dies(seq)).unwrap();
    }
    assert!(store.disk_full().is_some_and(|error| error.is_full()));
    let refused = store.commit(&[appended(1, sent + 6, 10)]).unwrap_err();
    assert!(refused.is_full() && refused.to_string().contains("no new message"), "{refused}");
    let refused = store.commit(&[delayed(6, 10)]).unwrap_err();
    assert!(refused.is_full(), "{refused}");
    let (store, _) = reopen(store, dir.path());
    assert_eq!(places(&store.read(StreamId(4), 1, ALL).unwrap().messages), (1..=15).collect::<Vec<_>>());
    assert_eq!(places(&store.read(StreamId(1), sent + 1, ALL).unwrap().messages).len(), 5);
    let done = |seq| settled(Settlement { done: vec![seq], head: seq + 1, ..Settlement::default() });
    store.commit(&[done(16)]).unwrap();
}

/// The reserves are created again when there is space, and then new messages are accepted.
#[test]
fn new_messages_are_taken_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    small_disk::fill(dir.path());
    let sent = fill(&store, 1);
    (1..=15).for_each(|seq| store.commit(&dies(seq)).unwrap());
    assert!(store.maintain().unwrap_err().is_full() && store.probe().unwrap_err().is_full());
    small_disk::limit(dir.path(), u64::MAX);
    store.probe().unwrap();
    assert!(store.disk_full().is_none());
    store.commit(&[appended(1, sent + 1, 1_000)]).unwrap();
    let (store, _) = reopen(store, dir.path());
    assert_eq!(store.read(StreamId(1), 1, ALL).unwrap().messages.len() as u64, sent + 1);
}

/// The space of a deleted queue is freed at once, also in the last segment, whose messages of other queues are moved.
#[test]
fn the_room_of_a_deleted_queue_is_free_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&[Record::QueueCreated(queue(5)), appended(5, 1, 1_000)]).unwrap();
    small_disk::limit(dir.path(), small_disk::used(dir.path()) + 3 * SEGMENT);
    let sent = fill(&store, 1);
    assert!(sent > 200, "{sent}");
    store.commit(&[Record::QueueDeleted(QueueId::new("queue-1"))]).unwrap();
    tidy_up(&store);
    assert_eq!(count(&store, "runs"), 1);
    assert!(log_files(dir.path()).len() <= 4, "{:?}", log_files(dir.path()));
    let moved_bytes = (2..=100).take_while(|seq| store.commit(&[appended(5, *seq, 1_000)]).is_ok()).count();
    assert_eq!(moved_bytes, 99);
    let (store, _) = reopen(store, dir.path());
    assert_eq!(places(&store.read(StreamId(5), 1, ALL).unwrap().messages), (1..=100).collect::<Vec<_>>());
}

/// A segment is deleted as soon as its last message was swept, while there is more to sweep. One step sweeps a bounded number.
#[test]
fn files_go_while_a_large_queue_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open_with(dir.path(), 4 * 1024 * 1024).unwrap();
    store.commit(&[Record::QueueCreated(queue(1)), Record::GroupCreated(group(3, 1))]).unwrap();
    // Each delayed message has a row.
    for first in (1..=50_000).step_by(1_000) {
        store.commit(&(first..first + 1_000).map(|seq| delayed(seq, 200)).collect::<Vec<_>>()).unwrap();
    }
    store.commit(&[Record::QueueDeleted(QueueId::new("queue-1"))]).unwrap();
    let mut seen = vec![log_files(dir.path()).len()];
    while store.maintain().unwrap() {
        seen.push(log_files(dir.path()).len());
    }
    let first_went = seen.iter().position(|files| *files < seen[0]).unwrap();
    assert!(seen.len() > 5 && first_went < seen.len() / 2, "files after each step: {seen:?}");
    assert!(seen.windows(2).all(|steps| steps[1] <= steps[0] + 1));
}

/// A directory opens on a full disk, again and again, in the reserved space.
#[test]
fn a_directory_opens_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.flush_memtable().unwrap();
    store.commit(&(1..=400).map(|seq| delayed(seq, 10)).collect::<Vec<_>>()).unwrap();
    small_disk::fill(dir.path());
    let sent = fill(&store, 1);
    small_disk::index_needs(dir.path(), 100);
    // The space that the index gets is used by others.
    small_disk::limit(dir.path(), small_disk::used(dir.path()) - 1);
    let (store, _) = reopen(store, dir.path());
    let kept = || std::fs::metadata(dir.path().join("dms.reserve")).map_or(0, |meta| meta.len());
    assert!((SEGMENT / 8..SEGMENT / 4).contains(&kept()), "a part was given up, not all of it: {}", kept());
    assert!(store.disk_full().is_some());
    assert_eq!(store.read(StreamId(1), 1, ALL).unwrap().messages.len() as u64, sent);
    store.commit(&dies(1)).unwrap();
    let (store, _) = reopen(store, dir.path());
    small_disk::limit(dir.path(), u64::MAX);
    assert!(!store.maintain().unwrap());
    assert!(kept() == SEGMENT / 4 && store.disk_full().is_none());
    store.commit(&[appended(1, sent + 1, 1_000)]).unwrap();
}

/// Other programs fill the disk again after each start: the reserves last for many starts.
#[test]
fn a_disk_that_is_filled_again_after_each_start_is_opened_many_times() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = begin(dir.path());
    store.commit(&(1..=400).map(|seq| delayed(seq, 10)).collect::<Vec<_>>()).unwrap();
    small_disk::fill(dir.path());
    let sent = fill(&store, 1);
    small_disk::index_needs(dir.path(), 200);
    for start in 1..=30 {
        small_disk::fill(dir.path());
        store.release(false).unwrap();
        drop(store);
        let opened = DiskStore::open_with(dir.path(), SEGMENT);
        store = opened.unwrap_or_else(|error| panic!("start {start}: {error}")).0;
        // Attempts to restore the reserves must not use up the remaining part.
        assert!(store.maintain().unwrap_err().is_full() && store.probe().unwrap_err().is_full());
    }
    assert_eq!(store.read(StreamId(1), 1, ALL).unwrap().messages.len() as u64, sent);
    small_disk::limit(dir.path(), u64::MAX);
    tidy_up(&store);
    assert!(store.disk_full().is_none());
}

/// If the index has no space, new messages are refused and the reserve of the index is used.
#[test]
fn an_index_without_room_takes_what_is_kept_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    store.commit(&(1..=2_000).map(|seq| delayed(seq, 100)).collect::<Vec<_>>()).unwrap();
    small_disk::fill(dir.path());
    let pages = |most: u64| store.change_index(|writer| Ok(writer.conn.pragma_update(None, "max_page_count", most)?));
    pages(1).unwrap();
    assert!(store.flush_memtable().unwrap_err().is_full());
    assert!(store.disk_full().is_some() && !dir.path().join("dms.reserve").exists());
    assert!(store.commit(&[appended(1, 1, 10)]).unwrap_err().is_full());
    pages(u64::from(u32::MAX) - 1).unwrap();
    small_disk::limit(dir.path(), u64::MAX);
    tidy_up(&store);
    assert_eq!((count(&store, "runs"), store.disk_full().is_some()), (2_000, false));
}

/// A reserve that is too long, or a sparse copy of one, is corrected.
#[test]
fn what_is_kept_is_made_right_when_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = begin(dir.path());
    for (name, size) in [("log/reserve", 10), ("dms.reserve", 10 * SEGMENT)] {
        std::fs::write(dir.path().join(name), vec![0; usize::try_from(size).unwrap()]).unwrap();
    }
    let (store, _) = reopen(store, dir.path());
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    assert_eq!((size("log/reserve"), size("dms.reserve")), (SEGMENT / 2, SEGMENT / 4));
    small_disk::fill(dir.path());
    let sent = fill(&store, 1);
    store.commit(&dies(1)).unwrap();
    store.commit(&dies(2)).unwrap();
    assert!(sent > 50 && log_file(dir.path(), 2).exists());
    let (store, _) = reopen(store, dir.path());
    assert_eq!(store.read(StreamId(1), 1, ALL).unwrap().messages.len() as u64, sent);
}
