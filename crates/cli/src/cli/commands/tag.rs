//! `tag`: the resource tags of queues (API reference 5.4), not the labels of messages.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::support::{
    context::Context,
    failure::{ExitKind, Failure},
    table::Table,
};
use dms_protocol::queue::QueueTag;

/// Options of `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    #[command(subcommand)]
    command: TagCommand,
}

#[derive(Debug, Subcommand)]
enum TagCommand {
    /// Add tags to a queue; existing keys are overwritten
    #[command(after_help = "Examples:\n  dms-worker tag add orders team=billing stage=prod")]
    Add {
        /// The queue's name or id
        queue: String,
        /// A tag
        #[arg(required = true, value_name = "KEY=VALUE")]
        tags: Vec<String>,
    },
    /// Remove tags from a queue, by key, or by key and value
    #[command(after_help = "Examples:\n  dms-worker tag remove orders team stage=prod")]
    Remove {
        /// The queue's name or id
        queue: String,
        /// A key, or a key with its value
        #[arg(required = true, value_name = "KEY[=VALUE]")]
        tags: Vec<String>,
    },
    /// List the tags of a queue
    #[command(after_help = "Examples:\n  dms-worker tag list orders")]
    List {
        /// The queue's name or id
        queue: String,
    },
    /// List the tags of all queues of the project
    #[command(after_help = "Examples:\n  dms-worker tag project -o json")]
    Project,
}

/// Changes or shows tags.
pub(crate) async fn run(args: TagArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        TagCommand::Add { queue, tags } => {
            let tags = tags.iter().map(|tag| pair(tag)).collect::<Result<Vec<_>, _>>()?;
            let queue = client.find_queue(&queue).await?;
            client.put_tags(&queue.id, &tags).await?;
            let text = match tags.len() {
                1 => format!("{} now has this tag", queue.name),
                count => format!("{} now has these {count} tags", queue.name),
            };
            context.done(&text, &json!({ "queue": queue.name, "added": tags }))?;
        }
        TagCommand::Remove { queue, tags } => {
            let wanted: Vec<_> = tags.iter().map(|tag| split(tag)).collect();
            let queue = client.find_queue(&queue).await?;
            client.delete_tags(&queue.id, &wanted).await?;
            let removed: Vec<_> = wanted.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
            context.done(
                &format!("{} has none of these tags any more", queue.name),
                &json!({ "queue": queue.name, "removed": removed }),
            )?;
        }
        TagCommand::List { queue } => {
            let queue = client.find_queue(&queue).await?;
            let tags = client.tags(&queue.id).await?;
            let mut table = Table::new(&["KEY", "VALUE"]);
            tags.iter().for_each(|tag| table.row([tag.key.clone(), tag.value.clone()]));
            context.printer().table(&table, &tags.iter().map(|tag| json!(tag)).collect::<Vec<_>>())?;
        }
        TagCommand::Project => {
            let tags = client.project_tags().await?;
            let mut table = Table::new(&["KEY", "VALUES"]);
            tags.iter().for_each(|tag| table.row([tag.key.clone(), tag.values.join(", ")]));
            context.printer().table(&table, &tags.iter().map(|tag| json!(tag)).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)))
}

fn pair(text: &str) -> Result<QueueTag, Failure> {
    match split(text) {
        (key, Some(value)) => Ok(QueueTag { key: key.to_owned(), value: value.to_owned() }),
        (key, None) => Err(Failure::of(ExitKind::Usage, format!("`{key}` has no value: write {key}=VALUE"))),
    }
}
