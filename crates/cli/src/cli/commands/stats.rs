//! `stats`: one group of a queue in detail.

use std::time::Duration;

use clap::Args;

use crate::cli::{
    commands::overview::{
        Row,
        figures::{age, or_dash, rate},
        group_object,
    },
    support::{context::Context, failure::Failure},
};
use dms_protocol::internal::visible::visible;
use dms_worker::client::{Client, GroupOverview, QueueOverview};

/// Options of `stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker stats orders billing
  dms-worker stats orders billing -o json | jq .backlog

Rates are of the last 10 to 15 seconds. Services other than the server of dms-worker report
neither leased nor delayed messages, ages, consumers or rates.")]
pub(crate) struct StatsArgs {
    /// The queue's name or id
    queue: String,
    /// The group's name or id
    group: String,
}

/// Shows a group.
pub(crate) async fn run(args: StatsArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let (queue, group) = find(&client, &args.queue, &args.group).await?;
    let row = Row::of(&queue, &group);
    let number = |count: u64| count.to_string();
    let ever = group.group.produced_dead_letters.map_or_else(String::new, |ever| format!(" ({ever} ever)"));
    let facts = [
        ("queue", queue.queue.name.clone()),
        ("group", group.group.name.clone()),
        ("backlog", number(row.backlog)),
        ("in flight", or_dash(row.in_flight, number)),
        ("delayed", or_dash(row.delayed, number)),
        ("total", or_dash(row.total(), number)),
        ("dead letters", or_dash(row.dead, number) + &ever),
        ("acknowledged", number(group.group.consumed_messages)),
        ("oldest", or_dash(row.oldest, age)),
        ("consumers waiting", or_dash(row.waiting, number)),
        ("in", or_dash(row.in_per_second, |value| format!("{}/s", rate(value)))),
        ("out", or_dash(row.out_per_second, |value| format!("{}/s", rate(value)))),
        ("state", state(&row)),
    ];
    let text = facts.map(|(name, value)| format!("{name:18} {}", visible(&value))).join("\n");
    let mut json = group_object(&queue, &group);
    json["queue"] = queue.queue.name.clone().into();
    json["queue_id"] = queue.queue.id.as_str().into();
    json["state"] = state(&row).into();
    Ok(context.printer().print(&text, &json)?)
}

/// A queue with its groups, by its name or id.
///
/// # Errors
/// When it does not exist, with the name that was probably meant.
pub(crate) async fn find_queue(client: &Client, wanted: &str) -> Result<QueueOverview, Failure> {
    let mut queues = client.overview().await?;
    let by_name = queues.iter().position(|other| other.queue.name == wanted);
    match by_name.or_else(|| queues.iter().position(|other| other.queue.id.as_str() == wanted)) {
        Some(at) => Ok(queues.swap_remove(at)),
        None => {
            // It fails, with the names of the queues that exist, unless the queue was created just now.
            let queue = client.find_queue(wanted).await?;
            Err(Failure::new(format!("queue {} was created just now; try again", queue.name)))
        }
    }
}

async fn find(client: &Client, queue: &str, wanted: &str) -> Result<(QueueOverview, GroupOverview), Failure> {
    let mut queue = find_queue(client, queue).await?;
    let by_name = queue.groups.iter().position(|other| other.group.name == wanted);
    match by_name.or_else(|| queue.groups.iter().position(|other| other.group.id.as_str() == wanted)) {
        Some(at) => {
            let group = queue.groups.swap_remove(at);
            Ok((queue, group))
        }
        None => {
            let group = client.find_group(&queue.queue.id, wanted).await?;
            Err(Failure::new(format!("group {} was created just now; try again", group.name)))
        }
    }
}

/// What a person concludes from the figures, in one line.
fn state(row: &Row) -> String {
    let (Some(in_flight), Some(waiting), Some(input), Some(output)) =
        (row.in_flight, row.waiting, row.in_per_second, row.out_per_second)
    else {
        return "-".to_owned();
    };
    let growth = input - output;
    match row.backlog {
        0 if in_flight == 0 && waiting == 0 => "empty; no consumer is waiting".to_owned(),
        0 if in_flight == 0 => "empty; consumers are waiting".to_owned(),
        0 => "keeping up".to_owned(),
        _ if in_flight == 0 && waiting == 0 && output <= 0.0 => "nobody consumes".to_owned(),
        _ if output <= 0.0 && in_flight > 0 => "messages are leased, and none was acknowledged lately".to_owned(),
        _ if growth > 0.1 => format!("growing by {}/s", rate(growth)),
        backlog if growth < -0.1 => {
            #[allow(clippy::cast_precision_loss, reason = "the time is rounded")]
            let left = Duration::try_from_secs_f64(backlog as f64 / -growth);
            format!("shrinking by {}/s, empty in {}", rate(-growth), or_dash(left.ok(), age))
        }
        _ => "steady".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_says_what_the_figures_mean() {
        let state = |backlog, in_flight, waiting, input, output| {
            state(&Row {
                queue: "q".to_owned(),
                group: None,
                backlog,
                in_flight: Some(in_flight),
                delayed: Some(0),
                dead: None,
                oldest: None,
                waiting: Some(waiting),
                in_per_second: Some(input),
                out_per_second: Some(output),
            })
        };
        assert_eq!(state(0, 0, 0, 0.0, 0.0), "empty; no consumer is waiting");
        assert_eq!(state(5, 0, 0, 1.0, 0.0), "nobody consumes");
        assert_eq!(state(5, 3, 0, 1.0, 0.0), "messages are leased, and none was acknowledged lately");
        assert_eq!(state(5, 3, 0, 9.0, 4.0), "growing by 5.0/s");
        assert_eq!(state(600, 3, 0, 4.0, 9.0), "shrinking by 5.0/s, empty in 2m00s");
        assert_eq!(state(0, 3, 0, 4.0, 4.0), "keeping up");
        assert_eq!(state(7, 3, 0, 4.0, 4.0), "steady");
    }
}
