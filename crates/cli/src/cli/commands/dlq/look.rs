//! `dlq list`, `dlq show` and `dlq dump`: looking at dead letters.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{json, value::RawValue};
use tokio_util::sync::CancellationToken;

use crate::cli::{
    commands::{
        dlq::{filter::Filter, peek::Peeker, selection::Selection, visitors::Viewer},
        receive,
    },
    service::signals,
    support::{
        context::Context,
        failure::{ExitKind, Failure},
        table::Table,
    },
};
use dms_protocol::{
    internal::{private, visible::visible},
    message::{Attributes, Body, DeadLetterInfo, MessageId, ReceivedMessage},
    queue::{ConsumerGroup, SourcePath},
};
use dms_worker::{
    Dialect,
    client::{Client, PeekedMessage},
    redrive::Sweep,
    worker::attributes::{ATTEMPTS, ERROR, FIRST_FAILURE, LAST_FAILURE, REASON, WORKER},
};

/// Options of `dlq list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The queue's name or id
    pub(super) queue: String,
    /// Only this group, by name or id
    pub(super) group: Option<String>,
    /// Count the messages of a parking queue by reason, instead of dead letters
    #[arg(long, requires = "group")]
    pub(super) parked: bool,
    /// Count the dead letters by reason, with the last error of each
    #[arg(long)]
    pub(super) by_reason: bool,
    /// The server's admin address, which shows dead letters without leasing them [config: server.admin]
    #[arg(long, value_name = "URL", requires = "by_reason")]
    pub(super) admin: Option<String>,
}

/// Options of `dlq show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    filter: Filter,
    /// Maximum number of messages
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    max: u64,
    /// Ask at the server's admin address instead of the endpoint
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Options of `dlq dump`.
#[derive(Debug, Args)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    filter: Filter,
    /// Maximum number of messages; all by default
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
    /// Write the lines to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Append to the file
    #[arg(long, requires = "file")]
    append: bool,
    /// Remove the messages: acknowledge each one once its line is written and, in a file, on the disk
    #[arg(long)]
    ack: bool,
}

/// A row of `dlq show`.
pub(super) struct Row {
    id: Option<MessageId>,
    place: Option<u64>,
    /// What the server says of it, where it was asked.
    state: Option<(&'static str, u32)>,
    body: Body,
    pub(super) attributes: Attributes,
    pub(super) died: Option<DeadLetterInfo>,
}

/// Lists the groups of a queue with their numbers of dead letters.
pub(super) async fn list(client: &Client, args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let queue = client.find_queue(&args.queue).await?;
    let groups = match &args.group {
        Some(group) => vec![client.find_group(&queue.id, group).await?],
        None => client.groups(&queue.id).await?,
    };
    let mut table = Table::new(&["GROUP", "DEAD LETTERS", "EVER", "MESSAGES", "ID"]);
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for group in &groups {
        let (now, ever) = (count(group.available_dead_letters), count(group.produced_dead_letters));
        table.row([group.name.clone(), now, ever, group.available_messages.to_string(), group.id.to_string()]);
    }
    let object = |group: &ConsumerGroup| {
        json!({
            "group": group.name,
            "id": group.id,
            "available_dead_letters": group.available_dead_letters,
            "produced_dead_letters": group.produced_dead_letters,
            "available_messages": group.available_messages,
        })
    };
    Ok(context.printer().table(&table, &groups.iter().map(object).collect::<Vec<_>>())?)
}

/// Shows messages in a table.
pub(super) async fn show(client: &Client, args: ShowArgs, context: &Context) -> Result<(), Failure> {
    let look = Look { which: &args.which, filter: &args.filter, max: args.max, admin: args.admin.as_deref() };
    let rows = look.rows(client, context).await?;
    let mut table =
        Table::new(&["ID", "STATE", "REASON", "ERROR", "ATTEMPTS", "FIRST FAILURE", "LAST FAILURE", "WORKER", "BODY"]);
    for row in &rows {
        table.row(cells(row));
    }
    Ok(context.printer().table(&table, &rows.iter().map(shown).collect::<Vec<_>>())?)
}

/// A look at messages that takes none.
pub(super) struct Look<'a> {
    pub(super) which: &'a Selection,
    pub(super) filter: &'a Filter,
    pub(super) max: u64,
    pub(super) admin: Option<&'a str>,
}

impl Look<'_> {
    /// The messages: shown by the server, or leased for the look.
    pub(super) async fn rows(&self, client: &Client, context: &Context) -> Result<Vec<Row>, Failure> {
        self.filter.check_for(client)?;
        if self.admin.is_some() && client.dialect() == Dialect::Mqs {
            let text = "--admin: ROMA Connect MQS has no admin address: leave it out, and the messages are leased for the look";
            return Err(Failure::of(ExitKind::Usage, text));
        }
        let source = self.which.source(client).await?;
        match peeked(client, self, &source, context).await? {
            Some(rows) => Ok(rows),
            None => consumed(client, self, context).await,
        }
    }
}

/// The rows of a server that can be asked for a look. An admin address that the configuration names need not be there.
async fn peeked(
    client: &Client,
    args: &Look<'_>,
    source: &SourcePath,
    context: &Context,
) -> Result<Option<Vec<Row>>, Failure> {
    let Some(peeker) = Peeker::of(args.admin, client, context)? else { return Ok(None) };
    let peeked = match peeker.first(source, args.filter, args.max).await {
        Err(failure) if args.admin.is_none() && failure.kind() == ExitKind::Unavailable => return Ok(None),
        peeked => peeked?,
    };
    let row = |peeked: PeekedMessage| Row {
        id: peeked.message_id(),
        place: Some(peeked.sequence),
        body: peeked.body,
        attributes: peeked.attributes,
        died: peeked.dead_letter,
        state: Some((peeked.state.as_str(), peeked.failures)),
    };
    Ok(Some(peeked.into_iter().map(row).collect()))
}

/// The rows of a service that cannot be asked for a look: they are leased meanwhile.
async fn consumed(client: &Client, args: &Look<'_>, context: &Context) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let see = |messages: &[ReceivedMessage]| {
        rows.extend(messages.iter().map(|message| Row {
            id: message.message_id(),
            place: message.sequence,
            state: None,
            body: message.body.clone(),
            attributes: message.attributes.clone(),
            died: message.dead_letter.clone(),
        }));
        Ok(())
    };
    look(client, args.which, args.filter, args.max, false, see).await?;
    context.say(&format!(
        "{} of {} leased for the look, and given back; this service cannot show messages otherwise",
        args.which.what(),
        args.which.group
    ));
    Ok(rows)
}

fn cells(row: &Row) -> [String; 9] {
    let died = row.died.as_ref();
    let time = |ms: Option<i64>| ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|time| time.to_string());
    // Parked messages say it in their attributes, dead letters where the service tells it.
    let cell = |name: &str, told: Option<String>| {
        let text = told.or_else(|| row.attributes.text(name).map(Cow::into_owned));
        text.map_or_else(|| "-".to_owned(), |text| shortened(&text))
    };
    [
        row.id.as_ref().map_or_else(|| "-".to_owned(), |id| visible(id.as_str()).into_owned()),
        row.state.as_ref().map_or_else(|| "-".to_owned(), |(state, _)| (*state).to_owned()),
        cell(REASON, died.map(|died| died.reason.clone())),
        cell(ERROR, died.and_then(|died| died.error.clone())),
        cell(ATTEMPTS, died.map(|died| died.attempts.to_string())),
        cell(FIRST_FAILURE, died.and_then(|died| time(died.first_failure_ms))),
        cell(LAST_FAILURE, died.and_then(|died| time(died.last_failure_ms))),
        cell(WORKER, died.and_then(|died| died.worker.clone())),
        shortened(row.body.as_str()),
    ]
}

/// A row for programs: body and attributes in their own text; of a message that cannot be read its text and the reason.
#[derive(Serialize)]
struct ShownRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    place: Option<u64>,
    state: Option<&'a str>,
    failures: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    attributes: &'a Attributes,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<&'a DeadLetterInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable: Option<String>,
}

fn shown(row: &Row) -> ShownRow<'_> {
    let text = row.body.as_bytes();
    let (body, undecodable) = match (row.body.fault(), serde_json::from_slice(text)) {
        (Some(fault), _) => (None, Some(fault.to_owned())),
        (None, Ok(body)) => (Some(body), None),
        (None, Err(error)) => (None, Some(error.to_string())),
    };
    ShownRow {
        id: row.id.as_ref().map(MessageId::as_str),
        place: row.place,
        state: row.state.as_ref().map(|(state, _)| *state),
        failures: row.state.as_ref().map(|(_, failures)| *failures),
        body,
        attributes: &row.attributes,
        dead_letter: row.died.as_ref(),
        raw: undecodable.is_some().then(|| String::from_utf8_lossy(text)),
        undecodable,
    }
}

/// One line of at most sixty characters.
fn shortened(text: &str) -> String {
    let line = visible(text);
    if line.chars().count() <= 60 { line.into_owned() } else { line.chars().take(59).chain(['…']).collect() }
}

/// Prints messages as JSON lines, or writes them to a file.
pub(super) async fn dump(client: &Client, args: DumpArgs, context: &Context) -> Result<(), Failure> {
    args.filter.check_for(client)?;
    let printer = context.printer();
    let max = args.max.unwrap_or(u64::MAX);
    let mut file = args.file.as_deref().map(|path| open(path, args.append)).transpose()?;
    let see = |messages: &[ReceivedMessage]| match &mut file {
        Some(file) => write(file, messages, args.ack),
        None => messages.iter().try_for_each(|message| printer.json_line(&receive::line(message, false))),
    };
    let seen = look(client, &args.which, &args.filter, max, args.ack, see).await?;
    if let (Some(file), Some(path)) = (&file, &args.file) {
        file.sync_all().map_err(|error| Failure::unwritable(path, &error))?;
    }
    let result = if args.ack { "taken out of the queue" } else { "left where they are" };
    let verb = if args.file.is_some() { "written" } else { "printed" };
    context.say(&format!("{seen} {} of {} {verb}, and {result}", args.which.what(), args.which.group));
    Ok(())
}

fn open(path: &Path, append: bool) -> Result<File, Failure> {
    private::append(path, append).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::of(
            ExitKind::Usage,
            format!("{} is there already: name another file, or add --append", path.display()),
        ),
        _ => Failure::unwritable(path, &error),
    })
}

/// Writes lines; on the disk before it answers where the messages go afterwards.
fn write(file: &mut File, messages: &[ReceivedMessage], durable: bool) -> io::Result<()> {
    let lines: String = messages.iter().map(|message| receive::line(message, false) + "\n").collect();
    file.write_all(lines.as_bytes())?;
    if durable { file.sync_data() } else { Ok(()) }
}

/// Shows `see` messages, and acknowledges them if it `takes` them; says how many.
async fn look(
    client: &Client,
    which: &Selection,
    filter: &Filter,
    max: u64,
    takes: bool,
    see: impl FnMut(&[ReceivedMessage]) -> io::Result<()> + Send,
) -> Result<u64, Failure> {
    let enough = CancellationToken::new();
    let mut look = Viewer::new(filter.clone(), takes, max, enough.clone(), see);
    let mut sweep = Sweep::new(client.clone(), which.source(client).await?).parked(which.parked);
    if takes {
        sweep = sweep.max(max);
    }
    if !filter.is_empty() {
        // Messages that do not match stay leased until the end.
        sweep = sweep.ack_wait(Duration::from_secs(300));
    }
    let stop = async {
        tokio::select! {
            () = enough.cancelled() => {}
            () = signals::first() => {}
        }
    };
    sweep.run(&mut look, stop).await?;
    Ok(look.finish()?)
}
