//! `message`: one message by its id.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::cli::support::{
    confirm::{confirm, counted},
    context::Context,
    failure::Failure,
    table::Table,
};
use dms_protocol::{
    internal::{text::brief, visible::visible},
    message::MessageId,
    message_places::{MessagePlace, MessagePlaces, StateForGroup},
    queue::{GroupId, QueueId},
};
use dms_worker::client::{Client, Resolved};

/// Options of `message`.
#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    #[command(subcommand)]
    command: MessageCommand,
}

#[derive(Debug, Subcommand)]
enum MessageCommand {
    /// Show where a message is: its state for each group, when it was leased, why it failed
    #[command(after_help = "Examples:\n  dms-worker message show m_RjkDiiQaIPJBFSAAAAAAAR\n  \
                            dms-worker -o json message show m_RjkDiiQaIPJBFSAAAAAAAR | jq .places[].message")]
    Show {
        /// The id, as `send --ids`, a log line or `dlq show` print it
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Give a dead letter back to its group. Other groups do not get it, and its attempts begin again
    #[command(after_help = "Examples:\n  dms-worker message retry m_RjkDiiQaIPJBFSAAAAAAAR\n  \
                            dms-worker message retry m_RjkDiiQaIPJBFSAAAAAAAR --queue orders --group billing")]
    Retry(ResolveArgs),
    /// Settle a message wherever it waits: it is not delivered again, and is no dead letter any more
    #[command(after_help = "Examples:\n  dms-worker message discard m_RjkDiiQaIPJBFSAAAAAAAR --yes")]
    Discard {
        #[command(flatten)]
        which: ResolveArgs,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct ResolveArgs {
    /// The id, as `send --ids`, a log line or `dlq show` print it
    #[arg(allow_hyphen_values = true)]
    id: String,
    /// Only in this queue, by name or id
    #[arg(long)]
    queue: Option<String>,
    /// Only for this group, by name or id
    #[arg(long, requires = "queue")]
    group: Option<String>,
}

/// Finds, retries or discards a message.
pub(crate) async fn run(args: MessageArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        MessageCommand::Show { id } => show(&client, &id, context).await,
        MessageCommand::Retry(which) => {
            let (queue, group) = which.limits(&client).await?;
            let done = client.retry_message(&MessageId::new(&which.id), queue.as_ref(), group.as_ref()).await?;
            report(&done, done.retried, "given back to its group", context)
        }
        MessageCommand::Discard { which, yes } => {
            let (queue, group) = which.limits(&client).await?;
            confirm(yes, &format!("the message {} will be thrown away", visible(&which.id)))?;
            let done = client.discard_message(&MessageId::new(&which.id), queue.as_ref(), group.as_ref()).await?;
            report(&done, done.discarded, "discarded", context)
        }
    }
}

impl ResolveArgs {
    /// The queue and the group that the change is limited to.
    async fn limits(&self, client: &Client) -> Result<(Option<QueueId>, Option<GroupId>), Failure> {
        let Some(queue) = &self.queue else {
            announce(client).await?;
            return Ok((None, None));
        };
        let queue = client.find_queue(queue).await?.id;
        let group = match &self.group {
            Some(group) => Some(client.find_group(&queue, group).await?.id),
            None => None,
        };
        Ok((Some(queue), group))
    }
}

/// Makes a call whose answer announces the extensions of the service.
async fn announce(client: &Client) -> Result<(), Failure> {
    client.quotas().await?;
    Ok(())
}

async fn show(client: &Client, id: &str, context: &Context) -> Result<(), Failure> {
    announce(client).await?;
    let found = client.find_message(&MessageId::new(id)).await?;
    if found.places.is_empty() {
        let hint = "it was never there, was deleted, or is in a queue that you may not consume";
        return Err(Failure::new(format!("there is no message {} now: {hint}", visible(id))));
    }
    if !found.complete {
        context.say("not everything was searched: copies may be behind 10000 other messages");
    }
    let mut table =
        Table::new(&["QUEUE", "PLACE", "SEQUENCE", "SINCE", "GROUP", "STATE", "FAILURES", "REASON", "ERROR", "WORKER"]);
    for place in &found.places {
        if place.groups.is_empty() {
            table.row(cells(place, None));
        }
        place.groups.iter().for_each(|group| table.row(cells(place, Some(group))));
    }
    let mut text = table.to_string();
    if let Some(attempts) = attempts(&found) {
        text.push_str(&format!("\n{attempts}"));
    }
    Ok(context.printer().print(&text, &found)?)
}

/// The leases of the message that the server remembers, those of now included.
fn attempts(found: &MessagePlaces) -> Option<Table> {
    let mut table = Table::new(&["GROUP", "ATTEMPT", "LEASED", "LASTED", "END"]);
    let groups: Vec<_> = found.places.iter().flat_map(|place| &place.groups).collect();
    let is_remembered = |group: &&StateForGroup| !group.attempts.is_empty() || group.leased_since.is_some();
    for group in groups.iter().copied().filter(is_remembered) {
        let is_leased = u32::from(group.left_ms.is_some());
        let remembered = u32::try_from(group.attempts.len()).unwrap_or(u32::MAX).saturating_add(is_leased);
        let mut number = group.handed_out.saturating_sub(remembered);
        let mut row = |began: Option<i64>, ended: Option<i64>, end: String| {
            number += 1;
            let lasted = began.zip(ended).and_then(|(began, ended)| u64::try_from(ended.saturating_sub(began)).ok());
            let lasted = lasted.map(Duration::from_millis);
            table.row([group.group.clone(), number.to_string(), time(began), or(lasted.map(brief)), end]);
        };
        group.attempts.iter().for_each(|attempt| row(attempt.began, Some(attempt.ended), attempt.end.clone()));
        if let Some(left) = group.left_ms {
            // How long it has lasted is not computed, because the clock of the server may be another one.
            row(group.leased_since, None, format!("leased for another {}", brief(Duration::from_millis(left))));
        }
    }
    groups.iter().any(is_remembered).then_some(table)
}

fn or(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

fn time(unix_ms: Option<i64>) -> String {
    or(unix_ms.and_then(|unix_ms| Timestamp::from_millisecond(unix_ms).ok()))
}

fn cells(place: &MessagePlace, group: Option<&StateForGroup>) -> [String; 10] {
    let died = group.and_then(|group| group.dead_letter.as_ref());
    let failed = died.or(group.and_then(|group| group.failure.as_ref()));
    let state = group.map(|group| match group.left_ms {
        Some(left) => format!("{} for {}", group.state, brief(Duration::from_millis(left))),
        None => group.state.clone(),
    });
    let failures = group.map(|group| died.map_or(group.failures, |died| died.attempts).to_string());
    [
        place.queue.clone(),
        place.place.as_str().to_owned(),
        place.sequence.to_string(),
        time(Some(place.entered)),
        or(group.map(|group| group.group.clone())),
        or(state),
        or(failures),
        or(failed.map(|failed| &failed.reason)),
        or(failed.and_then(|failed| failed.error.as_ref())),
        or(failed.and_then(|failed| failed.worker.as_ref())),
    ]
}

fn report(resolved: &Resolved, done: usize, what: &str, context: &Context) -> Result<(), Failure> {
    let Resolved { leased, delayed, .. } = *resolved;
    let times = |count: usize, place: &str| counted(count, place);
    let mut text = format!("{what} in {}", times(done, "place"));
    if leased > 0 {
        text.push_str(&format!("; consumers hold it in {}: try again later", times(leased, "place")));
    }
    if delayed > 0 {
        text.push_str("; it is delayed: try again when its delay has ended");
    }
    let json = json!({ "done": done, "leased": leased, "delayed": delayed });
    context.printer().print(&text, &json)?;
    if done == 0 { Err(Failure::new("nothing was changed")) } else { Ok(()) }
}
