//! `send`: messages from the command line, a file or standard input.

mod input;
mod journal;
mod pump;
mod rejected;
mod report;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use self::journal::{Journal, Wanted};
pub(crate) use self::{
    input::{Input, attribute},
    pump::{Choice, Pump},
    rejected::Rejected,
    report::Report,
};
use crate::{
    cli::{
        service::signals,
        support::{
            context::Context,
            failure::{ExitKind, Failure},
        },
    },
    config::Span,
};
use dms_protocol::{
    message::{Body, Message},
    queue::Queue,
};
use dms_worker::{
    client::Client,
    producer::{Producer, ProducerBuilder},
};

/// Options of `send`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker send orders '{\"id\": 1}' '{\"id\": 2}'      bodies that are JSON are sent as JSON, others as text
  dms-worker send orders hello --tag red --attribute n=1 --delay 10s
  dms-worker send orders --file orders.jsonl          one {\"body\":…,\"attributes\":…,\"tags\":…,\"delay_time\":…} per line
  dms-worker send orders --file orders.jsonl --resume after a kill or an outage: continues where the earlier run ended
  dms-worker send orders --file orders.jsonl --rejected bad.jsonl
  dms-worker send reports '{}' --deduplication-key nightly-2026-11-28      stored once, however often it is sent
  generate | dms-worker send orders -

Each refused line is reported with its number and the reason; the others are sent, and the exit code is 1. --rejected writes the \
refused lines to a file, to be corrected and sent again.

If the service cannot be reached or answers 5xx, no lines are refused: messages that were surely not stored are retried for 30 s, then \
the run ends with exit code 69. The journal of a file has the position; lines of standard input that are not stored are written to the \
file of --rejected.

While a file is sent, FILE.journal records the position. --resume continues there, and reports how many lines at most may be \
stored twice: those that were in flight. No line is lost. The journal is removed once every line is stored; it stays if lines were \
refused, or after a run with --resume, so that another run with --resume sends only what was added to the file since.")]
pub(crate) struct SendArgs {
    /// The queue's name or id
    queue: String,
    /// A body, or `-` for JSON lines from standard input
    #[arg(value_name = "BODY", required_unless_present = "file")]
    bodies: Vec<String>,
    /// A file of JSON lines
    #[arg(long, value_name = "FILE", conflicts_with = "bodies")]
    file: Option<PathBuf>,
    /// Continue where an earlier run with this file ended; without a journal, from the first line
    #[arg(long, requires = "file", conflicts_with = "bodies")]
    resume: bool,
    /// The journal with the position in the file; FILE.journal by default
    #[arg(long, value_name = "FILE", requires = "file", conflicts_with = "bodies")]
    journal: Option<PathBuf>,
    /// A new file for refused lines, to be corrected and sent again
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// Send the bodies as text even where they are JSON
    #[arg(long, conflicts_with = "file")]
    text: bool,
    /// A label of every message; up to three
    #[arg(long = "tag", value_name = "LABEL")]
    tags: Vec<String>,
    /// An attribute of every message; a value that is JSON is sent as JSON
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = input::attribute)]
    attributes: Vec<(String, Box<serde_json::value::RawValue>)>,
    /// Delay before the messages can be consumed, at most 7d (366d on this project's server)
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    delay: Span,
    /// Store the message once: others with this key are not stored while it counts
    #[arg(long, value_name = "KEY", conflicts_with = "file")]
    deduplication_key: Option<String>,
    /// How long the deduplication key counts, 1s to 7d; 5m by default
    #[arg(long, value_name = "DURATION", requires = "deduplication_key")]
    deduplication_window: Option<Span>,
    /// Print the id of each message
    #[arg(long)]
    ids: bool,
    /// Repeat requests whose result is unknown: no message is lost, but some may be stored twice
    #[arg(long)]
    allow_duplicates: bool,
}

/// Sends everything; exit code 1 when a line was refused.
pub(crate) async fn run(args: SendArgs, context: &Context) -> Result<ExitCode, Failure> {
    if args.deduplication_key.is_some() && (args.bodies.len() > 1 || args.bodies == ["-"]) {
        let hint = "--deduplication-key is for one BODY: write \"deduplication_key\" into each of several JSON lines";
        return Err(Failure::of(ExitKind::Usage, hint));
    }
    let client = context.client()?;
    let queue = client.find_queue(&args.queue).await?;
    let (mut input, journal) = open(&args, &queue).await?;
    let rejected = match rejected(&args) {
        Ok(rejected) => rejected,
        Err(failure) => {
            if let Some(journal) = journal {
                journal.stop(true).await;
            }
            return Err(failure);
        }
    };
    if rejected.is_some() {
        input.keep_texts();
    }
    let producer = producer(client, &queue, args.ids, args.allow_duplicates)?;
    let mut report = Report::new(context, input.size());
    if let Some(journal) = journal.as_ref().filter(|journal| journal.is_resumed()) {
        report.resume(journal.progress());
    }
    let mut pump = Pump::new(producer, journal, report);
    pump.rejected = rejected;
    let (report, ended) = pump.run(&mut input, Choice::Send, signals::first()).await?;
    match ended {
        true => report.finish(&queue.name),
        false => Err(Failure::new("stopped by a signal")),
    }
}

async fn open(args: &SendArgs, queue: &Queue) -> Result<(Input, Option<Journal>), Failure> {
    let mut common = Message::new(Body::trusted("null".into())).delay(args.delay.get());
    common.tags.clone_from(&args.tags);
    common.deduplication_key.clone_from(&args.deduplication_key);
    common.deduplication_window = args.deduplication_window.map(Span::get);
    for (name, value) in &args.attributes {
        common.attributes.insert_raw(name.as_str(), value.clone());
    }
    if let Some(path) = &args.file {
        let task = format!("send to queue {}", queue.id);
        return open_file(path, args.journal.as_deref(), args.resume, task, common).await;
    }
    let input = match args.bodies.as_slice() {
        [dash] if dash == "-" => Input::standard(common),
        bodies => Input::arguments(bodies, args.text, common),
    };
    Ok((input, None))
}

/// The file for refused lines, if one is asked for.
fn rejected(args: &SendArgs) -> Result<Option<Rejected>, Failure> {
    let Some(path) = &args.rejected else { return Ok(None) };
    if args.file.is_none() && args.bodies != ["-"] {
        return Err(Failure::of(ExitKind::Usage, "--rejected is for the lines of a --file or of standard input (-)"));
    }
    Rejected::open(path, args.file.as_deref(), args.resume).map(Some)
}

/// A file of JSON lines with its journal, where the run begins or goes on.
pub(crate) async fn open_file(
    path: &Path,
    journal: Option<&Path>,
    resume: bool,
    task: String,
    common: Message,
) -> Result<(Input, Option<Journal>), Failure> {
    // A file that is not there has no journal, and is what the user should hear of.
    std::fs::metadata(path).map_err(|error| Failure::unreadable(path.display(), &error))?;
    let journal = Journal::open(&Wanted { input: path, journal, task, resume })?;
    let (line, offset) = journal.as_ref().map_or((0, 0), |journal| {
        let progress = journal.progress();
        (progress.line, progress.offset)
    });
    Ok((Input::file(path, common, line, offset).await?, journal))
}

/// A producer for lines: bounded in messages and bytes, and in the order of the lines where the queue has one.
pub(crate) fn producer(client: Client, queue: &Queue, ids: bool, allow_duplicates: bool) -> Result<Producer, Failure> {
    let builder = ProducerBuilder::of(client, queue.clone())
        .max_in_flight(pump::IN_FLIGHT)
        .max_pending(pump::WINDOW, pump::MAX_PENDING_BYTES)
        .return_ids(ids)
        .allow_duplicates(allow_duplicates);
    Ok(builder.build()?)
}
