//! `group`: create, list and delete consumer groups.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::support::{
    confirm::{confirm, counted},
    context::Context,
    failure::Failure,
    table::Table,
};
use dms_protocol::queue::ConsumerGroup;

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
    #[command(visible_alias = "ls", after_help = "Examples:\n  dms-worker group list orders")]
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
            let queue = client.find_queue(&queue).await?;
            let groups = client.groups(&queue.id).await?;
            context.printer().table(&table(&groups), &groups.iter().map(object).collect::<Vec<_>>())?;
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

/// Groups with their counters.
pub(super) fn table(groups: &[ConsumerGroup]) -> Table {
    let mut table = Table::new(&["GROUP", "AVAILABLE", "CONSUMED", "PRODUCED", "DEAD", "ID"]);
    for group in groups {
        table.row([
            group.name.clone(),
            group.available_messages.to_string(),
            group.consumed_messages.to_string(),
            group.produced_messages.to_string(),
            group.available_dead_letters.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            group.id.to_string(),
        ]);
    }
    table
}

/// A group for a program.
pub(super) fn object(group: &ConsumerGroup) -> Value {
    json!({
        "id": group.id,
        "name": group.name,
        "produced_messages": group.produced_messages,
        "consumed_messages": group.consumed_messages,
        "available_messages": group.available_messages,
        "produced_dead_letters": group.produced_dead_letters,
        "available_dead_letters": group.available_dead_letters,
    })
}
