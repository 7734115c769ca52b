// `[1..2]` is one range here, not its numbers.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use crate::{
    broker::embedded::{config::EffectiveRetention, state::cursor::*},
    store::{Damaged, StreamSnapshot},
};
use dms_protocol::queue::{TagFilter, TagMode};

const STREAM: StreamId = StreamId(1);
const KEEPING: EffectiveRetention = EffectiveRetention { retention_ms: 1_000, when_settled: false };

fn message(seq: u64, tag: &str) -> Arc<StoredMessage> {
    let tags = if tag.is_empty() { Vec::new() } else { vec![tag.to_owned()] };
    Arc::new(StoredMessage {
        seq,
        entered_ms: 0,
        json: "{}".into(),
        body_bytes: 10,
        tags: tags.into(),
        ..StoredMessage::default()
    })
}

/// A complete read without damage.
fn found(messages: Vec<Arc<StoredMessage>>) -> ReadBatch {
    ReadBatch { messages, damaged: Vec::new(), until: u64::MAX }
}

/// A stream `1..=length` of which nothing is in memory.
fn cold(length: u64) -> Stream {
    Stream::new(StreamSnapshot { low: 1, next: length + 1, oldest: Some(0), newest: 0 }, KEEPING)
}

/// A stream of messages with these labels, all in memory.
fn warm<'a>(labels: impl IntoIterator<Item = &'a str>) -> Stream {
    let mut stream = Stream::empty(KEEPING);
    (1..).zip(labels).for_each(|(seq, label)| stream.push(message(seq, label)));
    stream
}

fn cursor(head: u64, ready: &[(u64, u32)]) -> Cursor {
    Cursor::new(STREAM, CursorSnapshot { head, consumed: 0, ready: ready.to_vec(), rule: None })
}

fn by_label(label: &str) -> Cursor {
    let rule = TagFilter { tags: vec![label.to_owned()], mode: TagMode::Or };
    Cursor::new(STREAM, CursorSnapshot { head: 1, consumed: 0, ready: Vec::new(), rule: Some(rule) })
}

fn want(messages: usize) -> BatchLimit {
    BatchLimit { messages, bytes: 1_000 }
}

/// The sequence numbers of a batch, and the skipped ranges.
fn batch(taken: Take) -> (Vec<u64>, Vec<Range<u64>>) {
    match taken {
        Take::Batch(entries, skipped) => (entries.iter().map(|entry| entry.message.seq).collect(), skipped),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_in_memory_is_asked_for_and_then_there() {
    let (stream, mut cursor) = (cold(20), cursor(1, &[]));
    let Take::Missing(read) = cursor.take(&stream, want(3)) else { panic!() };
    assert_eq!(read, ReadRequest::From { place: 1, end: 21 });
    cursor.fill(&read, found((1..=4).map(|seq| message(seq, "")).collect()));
    assert_eq!(batch(cursor.take(&stream, want(3))).0, [1, 2, 3]);
    // A batch is completed rather than leased short.
    let Take::Missing(read) = cursor.take(&stream, want(3)) else { panic!() };
    assert_eq!(read, ReadRequest::From { place: 5, end: 21 });
    cursor.fill(&read, found((5..=9).map(|seq| message(seq, "")).collect()));
    assert_eq!(batch(cursor.take(&stream, want(3))).0, [4, 5, 6]);
    assert_eq!(cursor.available(&stream), 14);
}

#[test]
fn messages_are_read_before_they_are_asked_for() {
    let (stream, mut cursor) = (cold(20), cursor(1, &[]));
    assert_eq!(cursor.prefetch(&stream, PREFETCH), None, "nothing was read yet");
    cursor.fill(&ReadRequest::From { place: 1, end: 21 }, found((1..=5).map(|seq| message(seq, "")).collect()));
    assert_eq!(cursor.prefetch(&stream, PREFETCH), Some(ReadRequest::From { place: 6, end: 21 }));
    assert_eq!(batch(cursor.take(&stream, want(5))).0, [1, 2, 3, 4, 5]);
    cursor.fill(&ReadRequest::From { place: 6, end: 21 }, found((6..=9).map(|seq| message(seq, "")).collect()));
    assert_eq!(batch(cursor.take(&stream, want(3))).0, [6, 7, 8]);
    // A message that was read twice is taken once.
    cursor.fill(&ReadRequest::From { place: 6, end: 21 }, found((6..=11).map(|seq| message(seq, "")).collect()));
    assert_eq!(batch(cursor.take(&stream, want(3))).0, [9, 10, 11]);
}

/// Retention deletes messages while a read is under way: they are skipped, and not asked for again.
#[test]
fn what_the_store_no_longer_has_is_passed_over() {
    let (stream, mut cursor) = (cold(20), cursor(1, &[]));
    let read = ReadRequest::From { place: 1, end: 21 };
    cursor.fill(&read, found(vec![message(5, ""), message(6, ""), message(9, "")]));
    assert_eq!(batch(cursor.take(&stream, want(2))).0, [5, 6]);
    let Take::Missing(read) = cursor.take(&stream, want(2)) else { panic!() };
    assert_eq!(read, ReadRequest::From { place: 7, end: 21 });
    cursor.fill(&read, found(Vec::new()));
    assert!(matches!(cursor.take(&stream, want(2)), Take::Nothing));
    assert_eq!(cursor.available(&stream), 0);
}

#[test]
fn failed_messages_come_first_and_are_read_by_place() {
    let (mut stream, mut cursor) = (cold(10), cursor(11, &[(3, 1), (7, 2), (9, 0)]));
    stream.push(message(11, ""));
    let Take::Missing(read) = cursor.take(&stream, want(10)) else { panic!() };
    assert_eq!(read, ReadRequest::Sequences(vec![3, 7, 9]));
    // 7 no longer exists, and 9 did not fit into the read.
    cursor.fill(&ReadRequest::Sequences(vec![3, 7, 8]), found(vec![message(3, ""), message(8, "")]));
    assert_eq!(cursor.ready_from(0).collect::<Vec<_>>(), [(3, 1), (9, 0)]);
    cursor.fill(&ReadRequest::Sequences(vec![9]), found(vec![message(9, "")]));
    let Take::Batch(entries, _) = cursor.take(&stream, want(10)) else { panic!() };
    let entries: Vec<_> = entries.iter().map(|entry| (entry.message.seq, entry.failures)).collect();
    assert_eq!(entries, [(3, 1), (9, 0), (11, 0)]);
}

#[test]
fn a_batch_keeps_to_its_bytes_but_is_never_empty() {
    let (stream, mut cursor) = (warm([""; 5]), cursor(1, &[]));
    let want = |bytes| BatchLimit { messages: 10, bytes };
    assert_eq!(batch(cursor.take(&stream, want(9))).0, [1]);
    assert_eq!(batch(cursor.take(&stream, want(20))).0, [2, 3]);
    assert_eq!(batch(cursor.take(&stream, want(29))).0, [4, 5]);
}

#[test]
fn a_batch_records_what_was_passed_over_on_the_way_to_it() {
    let (stream, mut cursor) = (warm(["", "x", "", "", "x", ""]), by_label("x"));
    assert_eq!(batch(cursor.take(&stream, want(10))), (vec![2, 5], vec![1..2, 3..5, 6..7]));
    assert_eq!(cursor.durable_head(), 7);
    assert!(matches!(cursor.take(&stream, want(10)), Take::Nothing));
}

#[test]
fn passing_over_much_takes_turns_and_is_recorded_by_itself() {
    let (stream, mut cursor) = (warm(["y"; 2_500]), by_label("x"));
    assert!(matches!(cursor.take(&stream, want(1)), Take::More));
    let skips = cursor.overdue_skips(stream.low).unwrap();
    assert_eq!((skips.skipped, skips.head), (vec![1..1_025], 1_025));
    assert!(matches!(cursor.take(&stream, want(1)), Take::More));
    assert!(matches!(cursor.take(&stream, want(1)), Take::Nothing));
    assert_eq!(cursor.overdue_skips(stream.low).unwrap().head, 2_501);
    assert!(cursor.overdue_skips(stream.low).is_none());
}

/// Messages that were leased when the broker stopped: the label filter skips the same ones as before.
#[test]
fn after_a_restart_the_rule_sorts_out_what_was_out() {
    let stream = warm(["", "x", ""]);
    let mut cursor = by_label("x");
    let _ = cursor.take(&stream, want(1));
    let mut restarted = Cursor { ready: BTreeMap::new(), ..by_label("x") };
    for seq in 1..=2 {
        restarted.ready.insert(seq, Ready::new(0));
    }
    restarted.head = 3;
    restarted.recorded_head = 3;
    restarted.fill(&ReadRequest::Sequences(vec![1, 2]), found(vec![message(1, ""), message(2, "x")]));
    assert_eq!(batch(restarted.take(&stream, want(10))), (vec![2], vec![1..2, 3..4]));
}

#[test]
fn expiry_takes_what_is_failed_and_what_was_not_looked_at() {
    let (mut stream, mut cursor) = (warm([""; 10]), cursor(5, &[(2, 1), (4, 1)]));
    stream.expire(4, Some(0));
    cursor.expire(4);
    assert_eq!(cursor.available(&stream), 7);
    stream.expire(8, Some(0));
    cursor.expire(8);
    assert_eq!(batch(cursor.take(&stream, want(10))).0, [8, 9, 10]);
}

fn damaged(seq: u64) -> Damaged {
    Damaged { seq, entered_ms: None, file: "f".into(), offset: 0, reason: "r".into(), is_unreadable: false }
}

/// Damaged messages are skipped but not settled: nothing records them, and a restart looks at them again.
#[test]
fn damaged_messages_are_set_aside() {
    let (stream, mut cursor) = (cold(8), cursor(1, &[]));
    let read = ReadRequest::From { place: 1, end: 9 };
    let messages = [2, 4, 5].map(|seq| message(seq, "")).to_vec();
    cursor.fill(&read, ReadBatch { messages, damaged: [1, 3, 6].map(damaged).to_vec(), until: 7 });
    assert_eq!(batch(cursor.take(&stream, want(3))), (vec![2, 4, 5], vec![]));
    assert_eq!(cursor.set_aside.len(), 3);
    let Take::Missing(read) = cursor.take(&stream, want(3)) else { panic!() };
    assert_eq!(read, ReadRequest::From { place: 7, end: 9 });
    cursor.fill(&read, ReadBatch { messages: vec![], damaged: vec![damaged(7)], until: 8 });
    assert_eq!(cursor.available(&stream), 1, "8 was not looked at yet");
    let Take::Missing(read) = cursor.take(&stream, want(3)) else { panic!() };
    assert_eq!(read, ReadRequest::From { place: 8, end: 9 });
    cursor.fill(&read, found(vec![message(8, "")]));
    assert_eq!(batch(cursor.take(&stream, want(3))), (vec![8], vec![]), "6 and 7 are not settled");
    let skipped = Settlement { skipped: vec![1..2, 6..7], head: 9, ..Settlement::default() };
    cursor.settle(None, &skipped, 1);
    assert_eq!(cursor.set_aside.places().into_iter().collect::<Vec<_>>(), [3, 7]);
    cursor.expire(7);
    assert_eq!(cursor.set_aside.len(), 1);
}

/// The same for messages that failed, or were leased when the broker stopped.
#[test]
fn damaged_messages_among_the_failed_are_set_aside() {
    let (stream, mut cursor) = (cold(10), cursor(11, &[(3, 1), (7, 2), (9, 0)]));
    let Take::Missing(read) = cursor.take(&stream, want(10)) else { panic!() };
    cursor.fill(&read, ReadBatch { messages: vec![], damaged: vec![damaged(3), damaged(7)], until: 9 });
    assert_eq!(cursor.ready_from(0).collect::<Vec<_>>(), [(9, 0)]);
    cursor.fill(&ReadRequest::Sequences(vec![9]), found(vec![message(9, "")]));
    assert_eq!(batch(cursor.take(&stream, want(10))), (vec![9], vec![]));
    assert_eq!((cursor.set_aside.len(), cursor.available(&stream)), (2, 0));
}

/// Messages that can be read again are looked for again, and were never recorded as skipped.
#[test]
fn what_was_unreadable_is_looked_for_again() {
    for leased in [false, true] {
        let (stream, mut cursor) = (cold(5), cursor(1, &[]));
        let damaged = [1, 2].map(|seq| Damaged { is_unreadable: true, ..damaged(seq) }).to_vec();
        let messages = [3, 4, 5].map(|seq| message(seq, "")).to_vec();
        cursor.fill(&ReadRequest::From { place: 1, end: 6 }, ReadBatch { messages, damaged, until: u64::MAX });
        if leased {
            assert_eq!(batch(cursor.take(&stream, want(10))), (vec![3, 4, 5], vec![]));
        }
        assert!(cursor.retry_unreadable() && !cursor.retry_unreadable());
        let Take::Missing(read) = cursor.take(&stream, want(10)) else { panic!() };
        assert_eq!(
            read,
            if leased { ReadRequest::Sequences(vec![1, 2]) } else { ReadRequest::From { place: 1, end: 6 } }
        );
        let last = if leased { 2 } else { 5 };
        cursor.fill(&read, found((1..=last).map(|seq| message(seq, "")).collect()));
        assert_eq!(batch(cursor.take(&stream, want(10))), ((1..=last).collect(), vec![]));
    }
}

/// Messages that are passed stay in memory, so an operator who discards one after the other cannot pass any number of them.
#[test]
fn messages_that_are_passed_are_bounded_over_all_calls() {
    let (mut cursor, stream) = (cursor(1, &[]), cold(100_000));
    let take = |cursor: &mut Cursor, seq| {
        cursor.check_passing(&stream, seq).and_then(|()| cursor.take_one(&stream, &message(seq, ""))).is_ok()
    };
    assert!(take(&mut cursor, 10_001));
    assert!(!take(&mut cursor, 20_002));
    assert_eq!(cursor.ready.len(), 10_000);
    // Without passing others, any message can be taken.
    assert!(take(&mut cursor, 10_002) && take(&mut cursor, 1));
    assert!(take(&mut cursor, 10_004), "one message was taken, so another one can be passed");
}

/// The memory of what is read ahead stays within bounds, however many groups there are.
#[test]
fn many_cursors_read_ahead_less_each() {
    let bytes = |cursors| prefetch_among(cursors).bytes;
    assert_eq!([0, 1, 64].map(bytes), [4 * PREFETCH.bytes; 3]);
    assert_eq!([129, 256, 100_000].map(bytes), [PREFETCH.bytes; 3]);
    for cursors in 1..=256 {
        assert!(cursors * bytes(cursors) <= ALL_PREFETCH_BYTES, "{cursors} cursors");
        assert_eq!(prefetch_among(cursors).messages / PREFETCH.messages, bytes(cursors) / PREFETCH.bytes);
    }
}
