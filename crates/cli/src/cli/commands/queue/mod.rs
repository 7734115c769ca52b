//! `queue`: create, list, show, change, purge and delete queues.

mod on_server;
mod transfer;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::{
    on_server::{PurgeArgs, UpdateArgs},
    transfer::{CopyArgs, MoveArgs},
};
use crate::{
    cli::{
        commands::{
            group,
            overview::{self, table},
            stats,
        },
        support::{
            confirm::{confirm, counted},
            context::Context,
            failure::Failure,
        },
    },
    config::Span,
};
use dms_protocol::{
    internal::visible::visible,
    limits,
    queue::{NewQueue, Queue, QueueMode},
};
use dms_worker::client::{self, Client, QueueOverview};

/// Options of `queue`.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Create a queue, and groups in it; prints its id
    #[command(after_help = "\
Examples:
  dms-worker queue create orders --max-consume-count 3 --group billing
  dms-worker queue create events --mode FIFO")]
    Create(CreateArgs),
    /// List all queues and groups with their backlogs, consumers and rates
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  dms-worker queue list
  dms-worker queue list -o json | jq '.[] | select(.dead > 0) | .name'

BACKLOG: messages that can be consumed. FLIGHT: leased ones. OLDEST: the age of the oldest message that is not
acknowledged. POLLS: consume calls that wait for a message. IN/S and OUT/S: messages sent and acknowledged per second,
over the last 10 to 15 seconds. Services other than the server of dms-worker report BACKLOG and DEAD alone."
    )]
    List,
    /// Show a queue and its groups
    #[command(after_help = "Examples:\n  dms-worker queue show orders")]
    Show {
        /// The queue's name or id
        queue: String,
    },
    /// Change retention, description or dead letters of a queue; only on the server of dms-worker
    #[command(after_help = "\
Examples:
  dms-worker queue update orders --retention 12h
  dms-worker queue update orders --delete-when-settled true
  dms-worker queue update orders --retention default      as configured
  dms-worker queue update orders --max-consume-count 5

With --delete-when-settled, messages are deleted once every group has settled
them. Groups that are created later do not receive them.

--max-consume-count applies to failures that were counted before, too. `none`
switches dead letters off; no group may have any then.")]
    Update(UpdateArgs),
    /// Delete all messages of a queue, or the backlog of one group; only on the server of dms-worker
    #[command(after_help = "\
Examples:
  dms-worker queue purge orders --yes                      for all groups
  dms-worker queue purge orders --group billing --yes      other groups keep theirs

Leased messages are purged too: their acknowledgements are answered as usual, and
they are not redelivered. Without --group, delayed messages are deleted as well.
Dead letters stay; `dlq discard` deletes them.")]
    Purge(PurgeArgs),
    /// Move the backlog of a group into another queue, of this service or of another server
    #[command(after_help = "\
Examples:
  dms-worker queue move orders orders-eu --group billing --match region=eu
  dms-worker queue move orders orders --to-endpoint http://10.0.0.2:9400 --rate 100/s
  dms-worker queue move orders orders --to-config new-server.yaml

Each message is acknowledged once its copy is stored, so it is sent at least once. A move that was stopped or killed is
continued by the same command. Other groups keep their messages; delayed ones stay until they are due.")]
    Move(MoveArgs),
    /// Copy the messages that a queue keeps into another queue, of this service or of another server
    #[command(after_help = "\
Examples:
  dms-worker queue copy orders orders-test --max 1000
  dms-worker queue copy orders orders --to-endpoint http://10.0.0.2:9400

The copy consumes with a group of its own, `copy-…`, which it deletes in the end; groups and messages of the queue
stay as they are. Messages that were consumed and are still kept are copied too, delayed ones are not. A copy that was
stopped or killed is continued by the same command.")]
    Copy(CopyArgs),
    /// Delete a queue with all its messages and groups
    #[command(visible_alias = "rm", after_help = "Examples:\n  dms-worker queue delete orders --yes")]
    Delete {
        /// The queue's name or id
        queue: String,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

/// Options of `queue create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// The name: 1-64 of A-Z a-z 0-9 _ -
    name: String,
    /// NORMAL, FIFO, KAFKA_HA or KAFKA_HT
    #[arg(long, default_value = "NORMAL", value_parser = mode)]
    mode: QueueMode,
    /// Free text of at most 160 characters
    #[arg(long)]
    description: Option<String>,
    /// Enable dead letters: the number of failures (1-100) after which a message becomes one
    #[arg(long, value_name = "COUNT")]
    max_consume_count: Option<u32>,
    /// Kafka modes: how long messages are kept, 1-72
    #[arg(long, value_name = "HOURS")]
    retention_hours: Option<u32>,
    /// A group to create in it; may be repeated
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
}

fn mode(text: &str) -> Result<QueueMode, String> {
    serde_json::from_value(json!(text.to_uppercase()))
        .map_err(|_| "NORMAL, FIFO, KAFKA_HA and KAFKA_HT are allowed".to_owned())
}

/// Changes or shows queues.
pub(crate) async fn run(args: QueueArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        QueueCommand::Create(args) => create(&context.client()?, args, context).await,
        QueueCommand::List => list(&context.client()?, context).await,
        QueueCommand::Show { queue } => show(&context.client()?, &queue, context).await,
        QueueCommand::Update(args) => on_server::update(&args, context).await,
        QueueCommand::Move(args) => transfer::run_move(&args, context).await,
        QueueCommand::Copy(args) => transfer::run_copy(&args, context).await,
        QueueCommand::Purge(args) => on_server::purge(&args, context).await,
        QueueCommand::Delete { queue, yes } => delete(&context.client()?, &queue, yes, context).await,
    }
}

async fn delete(client: &Client, queue: &str, yes: bool, context: &Context) -> Result<(), Failure> {
    let queue = client.find_queue(queue).await?;
    let what = format!(
        "queue {} with {} and {} will be deleted",
        queue.name,
        counted(queue.produced_messages, "message"),
        counted(queue.group_count, "group")
    );
    confirm(yes, &what)?;
    client.delete_queue(&queue.id).await?;
    context
        .done(&format!("deleted queue {}", queue.name), &json!({ "deleted": { "id": queue.id, "name": queue.name } }))
}

async fn create(client: &Client, args: CreateArgs, context: &Context) -> Result<(), Failure> {
    // Checked first, because otherwise the queue would be created without its groups.
    args.groups.iter().try_for_each(|group| limits::group_name(group))?;
    let queue = NewQueue {
        name: args.name,
        mode: args.mode,
        description: args.description,
        max_consume_count: args.max_consume_count,
        retention_hours: args.retention_hours,
    };
    let created = client.create_queue(queue).await?;
    let mut groups = Vec::new();
    if !args.groups.is_empty() {
        let names: Vec<&str> = args.groups.iter().map(String::as_str).collect();
        groups =
            client.create_groups(&created.id, &names).await.map_err(|error| without_groups(&created.name, error))?;
    }
    let groups: Vec<Value> = groups.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
    let json = json!({ "id": created.id, "name": created.name, "kafka_topic": created.kafka_topic, "groups": groups });
    Ok(context.printer().print(created.id.as_str(), &json)?)
}

/// The error when the queue was created and its groups were not.
fn without_groups(queue: &str, error: client::Error) -> Failure {
    let kind = Failure::from(error.clone()).kind();
    let text = format!("queue {queue} was created, but not its groups: {error}; `dms-worker group create` adds them");
    Failure::of(kind, text).because(error)
}

async fn list(client: &Client, context: &Context) -> Result<(), Failure> {
    let queues = sorted(client.overview().await?);
    let text = table::lines(&overview::rows(&queues), table::width()).join("\n");
    Ok(context.printer().print(&text, &queues.iter().map(overview_object).collect::<Vec<_>>())?)
}

/// The queues in the order of their names.
pub(super) fn sorted(mut queues: Vec<QueueOverview>) -> Vec<QueueOverview> {
    queues.sort_by(|one, other| one.queue.name.cmp(&other.queue.name));
    queues
}

/// A queue with its groups and their counters, for a program.
pub(super) fn overview_object(queue: &QueueOverview) -> Value {
    overview::add_groups(object(&queue.queue), queue)
}

async fn show(client: &Client, queue: &str, context: &Context) -> Result<(), Failure> {
    let overview = stats::find_queue(client, queue).await?;
    let queue = client.queue(&overview.queue.id).await?;
    let kept = overview.retention.unwrap_or(Duration::from_secs(queue.reservation_minutes.saturating_mul(60)));
    let facts = [
        ("name", queue.name.clone()),
        ("id", queue.id.to_string()),
        ("mode", queue.mode.to_string()),
        ("description", queue.description.clone()),
        ("created", time(queue.created_ms)),
        ("kept for", Span::from(kept).to_string()),
        ("messages", queue.produced_messages.to_string()),
        ("dead letters", dead_letters(&queue)),
    ];
    let facts = facts.map(|(name, value)| format!("{name:13} {}", visible(&value)).trim_end().to_owned()).join("\n");
    let ids = overview.groups.iter().map(|group| format!("{}  {}", group.group.id, visible(&group.group.name)));
    let ids = ids.collect::<Vec<_>>().join("\n");
    let text = format!("{facts}\n\n{}\n{ids}", group::table(&overview));
    Ok(context.printer().print(&text, &overview::add_groups(object(&queue), &overview))?)
}

fn dead_letters(queue: &Queue) -> String {
    match (queue.dead_letters, queue.max_consume_count) {
        (Some(true), Some(count)) => format!("after {count}"),
        (Some(true), None) => "on".to_owned(),
        (Some(false), _) => "off".to_owned(),
        (None, _) => "-".to_owned(),
    }
}

fn object(queue: &Queue) -> Value {
    json!({
        "id": queue.id,
        "name": queue.name,
        "mode": queue.mode,
        "description": queue.description,
        "created": time(queue.created_ms),
        "reservation_minutes": queue.reservation_minutes,
        "max_message_bytes": queue.max_message_bytes,
        "produced_messages": queue.produced_messages,
        "group_count": queue.group_count,
        "dead_letters": queue.dead_letters,
        "max_consume_count": queue.max_consume_count,
        "kafka_topic": queue.kafka_topic,
    })
}

/// RFC 3339 in UTC.
fn time(epoch_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(epoch_ms).map_or_else(|_| epoch_ms.to_string(), |time| time.to_string())
}
