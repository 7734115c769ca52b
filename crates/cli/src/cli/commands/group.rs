//! `group`: create, list and delete consumer groups.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{
    commands::{
        overview::{
            Row,
            figures::{age, or_dash},
            group_object,
        },
        stats,
    },
    support::{
        confirm::{confirm, counted},
        context::Context,
        failure::Failure,
        table::Table,
    },
};
use dms_worker::client::QueueOverview;

/// Options of `group`.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Create up to three groups of a queue; prints their ids
    #[command(after_help = "Examples:\n  dms-worker group create orders billing shipping")]
    Create {
        /// The queue's name or id
        queue: String,
        /// A name: 1-32 of A-Z a-z 0-9 _ -
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// List a queue's groups with their counters
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  dms-worker group list orders

TOTAL is BACKLOG, IN FLIGHT and DELAYED together: what the group has not acknowledged yet.
DEAD letters and CONSUMED messages are counted by themselves."
    )]
    List {
        /// The queue's name or id
        queue: String,
    },
    /// Delete a group with its position and its dead letters
    #[command(visible_alias = "rm", after_help = "Examples:\n  dms-worker group delete orders billing --yes")]
    Delete {
        /// The queue's name or id
        queue: String,
        /// The group's name or id
        group: String,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

/// Changes or shows groups.
pub(crate) async fn run(args: GroupArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        GroupCommand::Create { queue, names } => {
            let queue = client.find_queue(&queue).await?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let created = client.create_groups(&queue.id, &names).await?;
            let text: Vec<_> = created.iter().map(|(id, _)| id.as_str()).collect();
            let json: Vec<_> = created.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
            context.printer().print(&text.join("\n"), &json)?;
        }
        GroupCommand::List { queue } => {
            let queue = stats::find_queue(&client, &queue).await?;
            let objects: Vec<_> = queue.groups.iter().map(|group| group_object(&queue, group)).collect();
            context.printer().table(&table(&queue), &objects)?;
        }
        GroupCommand::Delete { queue, group, yes } => {
            let queue = client.find_queue(&queue).await?;
            let group = client.find_group(&queue.id, &group).await?;
            let lost = group.available_dead_letters.unwrap_or(0);
            let what =
                format!("group {} of {} with {} will be deleted", group.name, queue.name, counted(lost, "dead letter"));
            confirm(yes, &what)?;
            client.delete_group(&queue.id, &group.id).await?;
            let json = json!({ "deleted": { "id": group.id, "name": group.name, "queue": queue.name } });
            context.done(&format!("deleted group {} of {}", group.name, queue.name), &json)?;
        }
    }
    Ok(())
}

/// Groups with their counters: TOTAL is the sum of the three columns before it.
pub(super) fn table(queue: &QueueOverview) -> Table {
    let mut table = Table::new(&["GROUP", "BACKLOG", "IN FLIGHT", "DELAYED", "TOTAL", "DEAD", "CONSUMED", "OLDEST"]);
    let number = |count: u64| count.to_string();
    for group in &queue.groups {
        let row = Row::of(queue, group);
        table.row([
            group.group.name.clone(),
            number(row.backlog),
            or_dash(row.in_flight, number),
            or_dash(row.delayed, number),
            or_dash(row.total(), number),
            or_dash(row.dead, number),
            number(group.group.consumed_messages),
            or_dash(row.oldest, age),
        ]);
    }
    table
}
