//! `send`: messages from the command line, a file or standard input.

mod batches;
mod input;
mod report;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use futures_util::{StreamExt, stream::FuturesOrdered};

pub(crate) use self::input::attribute;
use self::{
    batches::Batches,
    input::{Input, Line},
    report::Report,
};
use super::{
    context::Context,
    failure::{Failure, Kind},
};
use crate::{
    client::{Client, SendOptions},
    config::Span,
    message::Message,
    queue::{Queue, QueueMode},
};

/// Options of `send`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker send orders '{\"id\": 1}' '{\"id\": 2}'      bodies that are JSON are sent as JSON, others as text
  dms-worker send orders hello --tag red --attribute n=1 --delay 10s
  dms-worker send orders --file orders.jsonl          one {\"body\":…,\"attributes\":…,\"tags\":…,\"delay_time\":…} per line
  generate | dms-worker send orders -

Every line that is refused is named with its number and the reason; the others are sent, and the exit code is 1.")]
pub(crate) struct SendArgs {
    /// The queue's name or id
    queue: String,
    /// A body, or `-` for JSON lines from standard input
    #[arg(value_name = "BODY", required_unless_present = "file")]
    bodies: Vec<String>,
    /// A file of JSON lines
    #[arg(long, value_name = "FILE", conflicts_with = "bodies")]
    file: Option<PathBuf>,
    /// Send the bodies as text even where they are JSON
    #[arg(long, conflicts_with = "file")]
    text: bool,
    /// A label of every message; up to three
    #[arg(long = "tag", value_name = "LABEL")]
    tags: Vec<String>,
    /// An attribute of every message; a value that is JSON is sent as JSON
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = input::attribute)]
    attributes: Vec<(String, serde_json::Value)>,
    /// How long the messages stay invisible, at most 7d
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    delay: Span,
    /// Print the id of each message
    #[arg(long)]
    ids: bool,
    /// Repeat requests whose fate is unknown: no message is missing then, but some may be there twice
    #[arg(long)]
    allow_duplicates: bool,
}

/// Requests on their way at once; one for FIFO queues, whose order must be the lines'.
const IN_FLIGHT: usize = 8;

/// Sends everything; exit code 1 when a line was refused.
pub(crate) async fn run(args: SendArgs, context: &Context) -> Result<ExitCode, Failure> {
    let mut input = Input::open(&args).await?;
    let client = context.client()?;
    let queue = client.find_queue(&args.queue).await?;
    let options = SendOptions { return_ids: args.ids, allow_duplicates: args.allow_duplicates };
    let mut report = Report::new(context, input.size());
    send_all(&client, &queue, &mut input, options, &mut report).await?;
    report.finish(&queue.name)
}

/// Reads, batches and sends, with several requests on their way; results are taken in the order of the lines.
async fn send_all(
    client: &Client,
    queue: &Queue,
    input: &mut Input,
    options: SendOptions,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let in_flight = if queue.mode == QueueMode::Fifo { 1 } else { IN_FLIGHT };
    let mut batches = Batches::default();
    let mut sending = FuturesOrdered::new();
    loop {
        let batch = match input.next().await? {
            Some(Line { number, bytes, message: Ok(message) }) => {
                report.read(bytes);
                batches.add(number, message)
            }
            Some(Line { number, bytes, message: Err(reason) }) => {
                report.read(bytes);
                report.refused(number, reason);
                None
            }
            None => batches.take(),
        };
        let ended = batch.is_none() && input.ended();
        if let Some(batch) = batch {
            sending.push_back(send(client, queue, batch, options));
        }
        while sending.len() >= in_flight || (ended && !sending.is_empty()) {
            if let Some((numbers, outcome)) = sending.next().await {
                settle(&numbers, outcome, report)?;
            }
        }
        if ended {
            return Ok(());
        }
    }
}

type Outcome = Result<Vec<crate::client::SendOutcome>, crate::client::Error>;

async fn send(client: &Client, queue: &Queue, batch: Vec<(u64, Message)>, options: SendOptions) -> (Vec<u64>, Outcome) {
    let (numbers, messages): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let outcome = client.send_with(&queue.id, &messages, options).await;
    (numbers, outcome)
}

/// Notes what became of each line. A service that is gone, or that refuses the caller, ends the command.
fn settle(numbers: &[u64], outcome: Outcome, report: &mut Report<'_>) -> Result<(), Failure> {
    match outcome {
        Ok(outcomes) => {
            for (number, outcome) in numbers.iter().zip(outcomes) {
                match outcome {
                    Ok(id) => report.sent(id.as_ref())?,
                    Err(error) => report.refused(*number, error.to_string()),
                }
            }
            Ok(())
        }
        Err(error) if error.is_connect() || error.is_auth() || error.is_forbidden() => {
            report.stopped(numbers);
            Err(error.into())
        }
        Err(error) => {
            numbers.iter().for_each(|number| report.refused(*number, error.to_string()));
            Ok(())
        }
    }
}

/// A problem with the source of the messages.
fn unreadable(what: &str, error: &std::io::Error) -> Failure {
    Failure::of(Kind::Failed, format!("{what} cannot be read: {error}"))
}
