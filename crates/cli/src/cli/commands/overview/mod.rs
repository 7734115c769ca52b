//! Queues and groups with their backlogs and rates, as `queue list`, `group list`, `stats` and `top` show them.

pub(crate) mod figures;
pub(crate) mod table;

use std::time::Duration;

use serde_json::{Value, json};

use dms_worker::client::{GroupOverview, QueueOverview};

/// A group of a queue with what its table shows, or a queue without groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) queue: String,
    /// `None` for a queue without groups.
    pub(crate) group: Option<String>,
    /// Messages that can be consumed now.
    pub(crate) backlog: u64,
    /// Messages that are leased.
    pub(crate) in_flight: Option<u64>,
    pub(crate) delayed: Option<u64>,
    pub(crate) dead: Option<u64>,
    pub(crate) oldest: Option<Duration>,
    /// Consume calls that are waiting.
    pub(crate) waiting: Option<u64>,
    pub(crate) in_per_second: Option<f64>,
    pub(crate) out_per_second: Option<f64>,
}

impl Row {
    pub(crate) fn of(queue: &QueueOverview, group: &GroupOverview) -> Self {
        Self {
            queue: queue.queue.name.clone(),
            group: Some(group.group.name.clone()),
            backlog: group.group.available_messages,
            in_flight: group.leased,
            delayed: queue.delayed,
            dead: group.group.available_dead_letters,
            oldest: group.oldest_age,
            waiting: group.waiting_polls,
            in_per_second: queue.produced_per_second,
            out_per_second: group.consumed_per_second,
        }
    }

    /// Nobody consumes from a queue without groups, so all of its messages are its backlog.
    fn without_groups(queue: &QueueOverview) -> Self {
        Self {
            queue: queue.queue.name.clone(),
            group: None,
            backlog: queue.queue.produced_messages.saturating_sub(queue.delayed.unwrap_or(0)),
            in_flight: None,
            delayed: queue.delayed,
            dead: None,
            oldest: None,
            waiting: None,
            in_per_second: queue.produced_per_second,
            out_per_second: None,
        }
    }

    /// All messages that the group still has to get: backlog, in flight and delayed. `None` if the service does not report the parts.
    pub(crate) fn total(&self) -> Option<u64> {
        Some(self.backlog + self.in_flight? + self.delayed?)
    }

    /// `queue/group`, or the queue alone.
    pub(crate) fn name(&self) -> String {
        match &self.group {
            Some(group) => format!("{}/{group}", self.queue),
            None => self.queue.clone(),
        }
    }
}

/// The rows of all queues, in their order.
pub(crate) fn rows(queues: &[QueueOverview]) -> Vec<Row> {
    let of = |queue: &QueueOverview| match queue.groups.as_slice() {
        [] => vec![Row::without_groups(queue)],
        groups => groups.iter().map(|group| Row::of(queue, group)).collect(),
    };
    queues.iter().flat_map(of).collect()
}

/// A group for a program.
pub(crate) fn group_object(queue: &QueueOverview, group: &GroupOverview) -> Value {
    let (row, of) = (Row::of(queue, group), &group.group);
    json!({
        "id": of.id,
        "name": of.name,
        "backlog": row.backlog,
        "in_flight": row.in_flight,
        "delayed": row.delayed,
        "total": row.total(),
        "dead": row.dead,
        "oldest_age_ms": millis(row.oldest),
        "consumers_waiting": row.waiting,
        "in_per_second": row.in_per_second,
        "out_per_second": row.out_per_second,
        "damaged": group.damaged,
        "produced_messages": of.produced_messages,
        "consumed_messages": of.consumed_messages,
        "available_messages": of.available_messages,
        "produced_dead_letters": of.produced_dead_letters,
        "available_dead_letters": of.available_dead_letters,
    })
}

/// The members of a queue that sum up its groups, and the groups themselves. `object` describes the queue.
pub(crate) fn add_groups(mut object: Value, queue: &QueueOverview) -> Value {
    let rows: Vec<Row> = queue.groups.iter().map(|group| Row::of(queue, group)).collect();
    let sum = |part: fn(&Row) -> Option<u64>| rows.iter().map(part).sum::<Option<u64>>();
    object["backlog"] = sum(|row| Some(row.backlog)).into();
    object["in_flight"] = sum(|row| row.in_flight).into();
    object["delayed"] = queue.delayed.into();
    object["dead"] = sum(|row| row.dead).into();
    object["oldest_age_ms"] = millis(rows.iter().filter_map(|row| row.oldest).max()).into();
    object["consumers_waiting"] = sum(|row| row.waiting).into();
    object["in_per_second"] = queue.produced_per_second.into();
    object["out_per_second"] = rows.iter().map(|row| row.out_per_second).sum::<Option<f64>>().into();
    object["total_produced_messages"] = queue.total_produced.into();
    object["retention_ms"] = millis(queue.retention).into();
    object["delete_when_settled"] = queue.delete_when_settled.into();
    object["groups"] = queue.groups.iter().map(|group| group_object(queue, group)).collect();
    object
}

fn millis(span: Option<Duration>) -> Option<u64> {
    span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
