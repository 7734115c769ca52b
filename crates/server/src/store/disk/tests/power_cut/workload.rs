//! Random operations of a broker on a store.

use std::{sync::Arc, time::Duration};

use crate::store::{
    CursorId, FirstPlace, GroupRow, KeyHash, LastTick, MessageOrigin, MissedTicks, QueueRow, RetentionPolicy,
    ScheduleProgress, ScheduleRow, ScheduleSource, SentKey, SentKeys, Settlement, StoredMessage,
    disk::{
        tests::power_cut::model::{Model, Stream},
        *,
    },
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId, QueueMode, QueueTag, TagFilter, TagMode},
};

/// An operation.
#[derive(Debug)]
pub(crate) enum Step {
    Commit(Vec<Record>),
    CatchUp,
    Tidy,
    /// The process ends, in order or killed, and another one opens the directory.
    Restart(bool),
}

/// The next operation on a store with this content.
pub(crate) fn step(model: &Model, rng: &mut fastrand::Rng) -> Step {
    if model.queues.is_empty() {
        return Step::Commit(vec![create_queue(model)]);
    }
    loop {
        let records = match rng.u8(..100) {
            0..2 if model.queues.len() < 4 => vec![create_queue(model)],
            2..6 if model.groups.len() < 6 => vec![create_group(model, rng)],
            6..7 => delete_queue(model, rng),
            7..8 => delete_group(model, rng),
            8..9 => vec![set_tags(model, rng)],
            9..10 => vec![set_retention(model, rng)],
            10..11 => fix_rule(model, rng),
            11..45 => append(model, rng),
            45..50 => vec![park(model, rng)],
            50..53 => unpark(model, rng),
            53..54 => vec![empty(model, rng)],
            54..55 => purge(model, rng),
            55..57 => change_schedule(model, rng),
            57..60 => tick(model, rng),
            60..76 => settle(model, rng),
            76..82 => expire(model, rng),
            82..86 => return Step::CatchUp,
            86..98 => return Step::Tidy,
            98..100 => return Step::Restart(rng.bool()),
            _ => continue,
        };
        if !records.is_empty() {
            return Step::Commit(records);
        }
    }
}

fn any<T>(rng: &mut fastrand::Rng, all: impl ExactSizeIterator<Item = T>) -> Option<T> {
    rng.choice(all)
}

fn any_queue<'a>(model: &'a Model, rng: &mut fastrand::Rng) -> &'a QueueRow {
    &any(rng, model.queues.values()).unwrap().row
}

pub(crate) fn create_queue(model: &Model) -> Record {
    let number = model.next_number;
    Record::QueueCreated(QueueRow {
        number,
        id: QueueId::new(format!("queue-{number}")),
        project: ProjectId::new("p"),
        name: format!("q{number}"),
        mode: QueueMode::Normal,
        description: "x".repeat(number as usize),
        max_consume_count: Some(3),
        retention_hours: None,
        created_ms: i64::from(number),
    })
}

fn create_group(model: &Model, rng: &mut fastrand::Rng) -> Record {
    let (queue, number) = (any_queue(model, rng), model.next_number);
    let stream = &model.streams[&queue.number];
    let start = if rng.bool() { stream.low } else { stream.next };
    let (id, name) = (GroupId::new(format!("g-{number}")), format!("g{number}"));
    Record::GroupCreated(GroupRow { number, queue: queue.id.clone(), id, name, created_ms: 8, start })
}

fn delete_queue(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    if model.queues.len() < 2 { Vec::new() } else { vec![Record::QueueDeleted(any_queue(model, rng).id.clone())] }
}

fn delete_group(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let group = any(rng, model.groups.values());
    group.map(|group| Record::GroupDeleted(group.queue.clone(), group.id.clone())).into_iter().collect()
}

fn set_tags(model: &Model, rng: &mut fastrand::Rng) -> Record {
    let queue = any_queue(model, rng).id.clone();
    let tags = (0..rng.u8(..4)).map(|tag| QueueTag { key: format!("k{tag}"), value: rng.u32(..).to_string() });
    Record::TagsSet(queue, tags.collect())
}

fn set_retention(model: &Model, rng: &mut fastrand::Rng) -> Record {
    let policy = RetentionPolicy {
        retention: rng.bool().then(|| Duration::from_secs(rng.u64(1..100_000))),
        delete_when_settled: *rng.choice(&[None, Some(false), Some(true)]).unwrap(),
    };
    Record::RetentionSet(any_queue(model, rng).id.clone(), policy)
}

/// Purges a delay queue, or its first messages.
fn empty(model: &Model, rng: &mut fastrand::Rng) -> Record {
    let delay_queue = any_queue(model, rng).delay_queue();
    Record::DelayQueuePurged { delay_queue, below: rng.u64(1..=model.streams[&delay_queue.0].next) }
}

/// Purges the backlog of a group.
fn purge(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let group = any(rng, model.groups.values());
    let end = |group: &GroupRow| model.streams[&model.cursors[&group.number].stream].next;
    group.map(|group| Record::Purged { cursor: group.cursor(), below: end(group) }).into_iter().collect()
}

fn fix_rule(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let rule = TagFilter { tags: vec![rng.u32(..).to_string()], mode: TagMode::Or };
    let group = any(rng, model.groups.values());
    group.map(|group| Record::RuleFixed(group.cursor(), rule)).into_iter().collect()
}

/// A message of a random size, with everything that a message can have.
fn message(seq: u64, entered_ms: i64, rng: &mut fastrand::Rng) -> Arc<StoredMessage> {
    let size = match rng.u8(..20) {
        0 => rng.usize(..30_000),
        1..6 => rng.usize(..3_000),
        _ => rng.usize(..200),
    };
    let json = format!("{seq}:{}", std::iter::repeat_with(|| rng.alphanumeric()).take(size).collect::<String>());
    let tags: Vec<String> = (0..rng.u8(..3)).map(|tag| format!("tag{tag}")).collect();
    Arc::new(StoredMessage {
        seq,
        entered_ms,
        body_bytes: json.len(),
        json: json.into(),
        tags: tags.into(),
        ..StoredMessage::default()
    })
}

fn append(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let stream = any_queue(model, rng).stream();
    let Stream { next, newest, .. } = model.streams[&stream.0];
    let places = next..next + rng.u64(1..12);
    let mut records: Vec<_> =
        places.zip(newest..).map(|(seq, entered_ms)| Record::Appended(stream, message(seq, entered_ms, rng))).collect();
    if rng.u8(..4) == 0 {
        let (id, length) = (MessageOrigin::new("9bf46390-38a2", FirstPlace::Queue, next, newest), rng.i64(1..50));
        let key = |until_ms| SentKey { queue: stream, key: KeyHash::of(&rng.u8(..).to_string()), id, until_ms };
        let until = [newest + length, newest + 7];
        records.push(Record::KeysSent { now_ms: newest, keys: SentKeys(until.into_iter().map(key).collect()) });
    }
    records
}

/// Adds, replaces or removes a schedule.
fn change_schedule(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let queue = any(rng, model.queues.values()).unwrap();
    let (id, existing) = (queue.row.id.clone(), any(rng, queue.schedules.keys()));
    if let Some(name) = existing.filter(|_| rng.u8(..3) == 0) {
        return vec![Record::ScheduleRemoved(id, name.clone())];
    }
    let row = ScheduleRow {
        name: format!("s{}", rng.u8(..3)),
        cron: "* * * * *".to_owned(),
        timezone: "UTC".to_owned(),
        missed: MissedTicks::Once,
        source: ScheduleSource::Command,
        paused: rng.bool(),
        body: "\"队列\"".into(),
        attributes: format!("{{\"n\":{}}}", rng.u32(..)).into(),
        tags: Arc::default(),
        created_ms: 7,
    };
    let progress = ScheduleProgress { done_ms: rng.i64(..), ..ScheduleProgress::default() };
    vec![Record::ScheduleSet { queue: id, row: Box::new(row), progress }]
}

/// A tick, in one commit with its message.
fn tick(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let queue = any(rng, model.queues.values()).unwrap();
    let Some((name, before)) = any(rng, queue.schedules.iter()) else { return Vec::new() };
    let Stream { next, newest, .. } = model.streams[&queue.row.number];
    let id = MessageOrigin::new(queue.row.id.as_str(), FirstPlace::Queue, next, newest);
    let progress = ScheduleProgress {
        done_ms: newest,
        last: Some(LastTick { planned_ms: newest, sent_ms: newest, id }),
        sent: before.progress.sent + 1,
        missed: rng.u64(..9),
    };
    let appended = Record::Appended(queue.row.stream(), message(next, newest, rng));
    vec![appended, Record::ScheduleTicked { queue: queue.row.id.clone(), name: name.clone(), progress }]
}

fn park(model: &Model, rng: &mut fastrand::Rng) -> Record {
    let delay_queue = any_queue(model, rng).delay_queue();
    Record::Delayed(delay_queue, message(model.streams[&delay_queue.0].next, rng.i64(-50..50), rng))
}

fn unpark(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let queue = any_queue(model, rng);
    let due = model.streams[&queue.delay_queue().0].messages.values().min_by_key(|due| (due.entered_ms, due.seq));
    let Some(due) = due else { return Vec::new() };
    let Stream { next, newest, .. } = model.streams[&queue.number];
    let entered = message(next, newest + 1, rng);
    vec![Record::DelayEnded(queue.delay_queue(), due.entered_ms, due.seq), Record::Appended(queue.stream(), entered)]
}

/// The end of a lease: some messages are acknowledged, others fail, some for the last time.
fn settle(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let Some(group) = any(rng, model.groups.values()) else { return Vec::new() };
    let of_dead_letters = rng.u8(..4) == 0;
    let number = if of_dead_letters { group.number + 1 } else { group.number };
    let cursor = &model.cursors[&number];
    let stream = &model.streams[&cursor.stream];
    let mut open = cursor.open(stream, stream.next);
    open.truncate(rng.usize(1..25));
    let Some(last) = open.last() else { return Vec::new() };
    let mut settlement = Settlement { head: last + 1, ..Settlement::default() };
    for place in open {
        match rng.u8(..10) {
            0 => settlement.failed.push((place, rng.u32(1..3))),
            1 if !of_dead_letters => settlement.dead.push(place),
            2 => settlement.skipped.push(place..place + 1),
            _ => settlement.done.push(place),
        }
    }
    let Stream { next, newest, .. } = model.streams[&(group.number + 1)];
    let places = settlement.dead.iter().zip(next..).zip(newest..);
    let dead: Vec<_> = places.map(|((_, seq), entered_ms)| dead_letter(group, seq, entered_ms, rng)).collect();
    let settled = Record::Settled { cursor: CursorId(number), lease: None, histories: Vec::new(), settlement };
    std::iter::once(settled).chain(dead).collect()
}

fn dead_letter(group: &GroupRow, seq: u64, entered_ms: i64, rng: &mut fastrand::Rng) -> Record {
    let message = Arc::into_inner(message(seq, entered_ms, rng)).unwrap();
    let mut info = DeadLetterInfo::new("failed");
    info.attempts = 3;
    Record::Appended(group.dead_letters(), Arc::new(StoredMessage { dead_letter: Some(Arc::new(info)), ..message }))
}

fn expire(model: &Model, rng: &mut fastrand::Rng) -> Vec<Record> {
    let stream = any_queue(model, rng).stream();
    let marks = &model.streams[&stream.0];
    let low = (marks.low + rng.u64(1..60)).min(marks.next);
    if low == marks.low { Vec::new() } else { vec![Record::Expired { stream, low, oldest: None }] }
}
