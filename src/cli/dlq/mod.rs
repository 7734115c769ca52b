//! `dlq`: look at the dead letters of a group, send them again, or throw them away.

mod visitors;

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::visitors::{Discard, Look, Matches};
use super::{confirm::confirm, context::Context, failure::Failure, send, signals, table::Table};
use crate::{
    client::Client,
    config::Rate,
    queue::{SourcePath, Stream},
    redrive::{Redrive, RedriveError, Sweep, SweepError},
};

/// Options of `dlq`.
#[derive(Debug, Args)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List the groups of a queue with the number of their dead letters
    #[command(visible_alias = "ls", after_help = "Examples:\n  dms-worker dlq list orders")]
    List {
        /// The queue's name or id
        queue: String,
        /// Only this group, by name or id
        group: Option<String>,
    },
    /// Show dead letters in a table, without taking them
    #[command(after_help = "Examples:\n  dms-worker dlq show orders billing --max 50")]
    Show(LookArgs),
    /// Print dead letters as JSON lines, without taking them; `send` reads what this prints
    #[command(after_help = "\
Examples:
  dms-worker dlq dump orders billing > dead.jsonl
  dms-worker dlq dump orders billing --match tenant=7 | jq .body")]
    Dump(LookArgs),
    /// Send dead letters again; each is acknowledged only after its copy is stored
    #[command(after_help = "\
Examples:
  dms-worker dlq redrive orders billing --dry-run     how many would be sent
  dms-worker dlq redrive orders billing --max 100 --rate 20/s
  dms-worker dlq redrive orders billing --match tenant=7 --to orders-repaired

A message that was redriven three times is left, so that none goes round for ever (--max-redrives).")]
    Redrive(RedriveArgs),
    /// Throw dead letters away
    #[command(after_help = "Examples:\n  dms-worker dlq discard orders billing --match tenant=7 --yes")]
    Discard(DiscardArgs),
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Which {
    /// The queue's name or id
    queue: String,
    /// The group's name or id
    group: String,
    /// Only messages with this attribute; may be repeated
    #[arg(long = "match", value_name = "NAME=VALUE", value_parser = send::attribute)]
    matching: Vec<(String, Value)>,
}

/// Options of `dlq show` and `dlq dump`.
#[derive(Debug, Args)]
struct LookArgs {
    #[command(flatten)]
    which: Which,
    /// Messages at most; 20 for `show`, all for `dump`
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
}

/// Options of `dlq redrive`.
#[derive(Debug, Args)]
struct RedriveArgs {
    #[command(flatten)]
    which: Which,
    /// Messages at most
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
    /// Messages in a unit of time, as in 20/s
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Send the copies to this queue instead
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// How often a message may be redriven in all
    #[arg(long, value_name = "TIMES", default_value_t = 3)]
    max_redrives: u32,
    /// Send nothing, and say how many would be sent
    #[arg(long)]
    dry_run: bool,
}

/// Options of `dlq discard`.
#[derive(Debug, Args)]
struct DiscardArgs {
    #[command(flatten)]
    which: Which,
    /// Messages at most
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
    /// Throw nothing away, and say how many would be
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Looks at dead letters, or empties them.
pub(crate) async fn run(args: DlqArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        DlqCommand::List { queue, group } => list(&client, &queue, group.as_deref(), context).await,
        DlqCommand::Show(args) => show(&client, args, context).await,
        DlqCommand::Dump(args) => dump(&client, args, context).await,
        DlqCommand::Redrive(args) => redrive(&client, args, context).await,
        DlqCommand::Discard(args) => discard(&client, args, context).await,
    }
}

async fn source(client: &Client, which: &Which) -> Result<SourcePath, Failure> {
    let queue = client.find_queue(&which.queue).await?;
    let group = client.find_group(&queue.id, &which.group).await?;
    Ok(SourcePath { queue: queue.id, group: group.id, stream: Stream::DeadLetters })
}

async fn list(client: &Client, queue: &str, group: Option<&str>, context: &Context) -> Result<(), Failure> {
    let queue = client.find_queue(queue).await?;
    let groups = match group {
        Some(group) => vec![client.find_group(&queue.id, group).await?],
        None => client.groups(&queue.id).await?,
    };
    let mut table = Table::new(&["GROUP", "DEAD LETTERS", "EVER", "ID"]);
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for group in &groups {
        let (now, ever) = (count(group.available_dead_letters), count(group.produced_dead_letters));
        table.row([group.name.clone(), now, ever, group.id.to_string()]);
    }
    let object = |group: &crate::queue::ConsumerGroup| {
        json!({
            "group": group.name,
            "id": group.id,
            "available_dead_letters": group.available_dead_letters,
            "produced_dead_letters": group.produced_dead_letters,
        })
    };
    Ok(context.printer().table(&table, &groups.iter().map(object).collect::<Vec<_>>())?)
}

async fn show(client: &Client, args: LookArgs, context: &Context) -> Result<(), Failure> {
    let mut rows = Vec::new();
    look(client, &args.which, args.max.unwrap_or(20), |message| {
        rows.push(message.clone());
        Ok(())
    })
    .await?;
    let mut table = Table::new(&["PLACE", "REASON", "BODY", "ATTRIBUTES"]);
    for message in &rows {
        let place = message.sequence.map_or_else(|| "-".to_owned(), |place| place.to_string());
        let reason = message.attributes.get(crate::worker::ERROR).and_then(Value::as_str).unwrap_or("-");
        let attributes = Value::Object(message.attributes.clone()).to_string();
        table.row([place, reason.to_owned(), shortened(message.body.as_str()), shortened(&attributes)]);
    }
    let json: Vec<_> = rows
        .iter()
        .map(|message| {
            json!({
                "place": message.sequence,
                "body": message.body.parse::<Value>().unwrap_or_default(),
                "attributes": message.attributes,
            })
        })
        .collect();
    Ok(context.printer().table(&table, &json)?)
}

/// One line of at most sixty characters.
fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= 60 { line } else { line.chars().take(59).chain(['…']).collect() }
}

async fn dump(client: &Client, args: LookArgs, context: &Context) -> Result<(), Failure> {
    let printer = context.printer();
    let max = args.max.unwrap_or(u64::MAX);
    let seen = look(client, &args.which, max, |message| printer.line(&super::receive::line(message, false))).await?;
    context.say(&format!("{seen} dead letters of {} printed, and left where they are", args.which.group));
    Ok(())
}

/// Shows `see` dead letters without taking them; says how many.
async fn look(
    client: &Client,
    which: &Which,
    max: u64,
    see: impl FnMut(&crate::message::ReceivedMessage) -> std::io::Result<()> + Send,
) -> Result<u64, Failure> {
    let enough = CancellationToken::new();
    let mut look = Look::new(Matches::new(&which.matching), max, enough.clone(), see);
    let sweep = Sweep::new(client.clone(), source(client, which).await?);
    let stop = async {
        tokio::select! {
            () = enough.cancelled() => {}
            () = signals::first() => {}
        }
    };
    sweep.run(&mut look, stop).await?;
    Ok(look.finish()?)
}

async fn redrive(client: &Client, args: RedriveArgs, context: &Context) -> Result<(), Failure> {
    let bar = progress(context);
    let drawn = bar.clone();
    let mut redrive = Redrive::new(client.clone(), source(client, &args.which).await?)
        .max_redrives(args.max_redrives)
        .dry_run(args.dry_run)
        .sweep(|sweep| {
            let sweep = sweep.max(args.max).rate(args.rate.map(Rate::per_second));
            sweep.on_progress(move |report| {
                drawn.set_length(report.expected);
                drawn.set_position(report.taken + report.passed_over);
            })
        });
    for (name, value) in args.which.matching {
        redrive = redrive.attribute(name, value);
    }
    if let Some(queue) = &args.to {
        redrive = redrive.to(client.find_queue(queue).await?.id);
    }
    let result = redrive.run(signals::first()).await;
    bar.finish_and_clear();
    let report = result?;
    let left = report.filtered + report.exhausted + report.refused;
    let verb = if args.dry_run { "would be redriven" } else { "redriven" };
    let text = format!(
        "{} {verb}, {left} left ({} did not match, {} were redriven too often, {} cannot be sent), {} may be there twice",
        report.redriven, report.filtered, report.exhausted, report.refused, report.doubled
    );
    let json = json!({
        "redriven": report.redriven,
        "filtered": report.filtered,
        "exhausted": report.exhausted,
        "refused": report.refused,
        "doubled": report.doubled,
        "dry_run": args.dry_run,
    });
    Ok(context.printer().print(&text, &json)?)
}

async fn discard(client: &Client, args: DiscardArgs, context: &Context) -> Result<(), Failure> {
    let source = source(client, &args.which).await?;
    if !args.dry_run {
        let what = format!("dead letters of group {} of {} will be thrown away", args.which.group, args.which.queue);
        confirm(args.yes, &what)?;
    }
    let mut discard = Discard::new(Matches::new(&args.which.matching), args.dry_run, args.max);
    let bar = progress(context);
    let drawn = bar.clone();
    let sweep = Sweep::new(client.clone(), source).ack_wait(Duration::from_secs(300)).max(args.max);
    let sweep = sweep.on_progress(move |report| {
        drawn.set_length(report.expected);
        drawn.set_position(report.taken + report.passed_over);
    });
    let swept = sweep.run(&mut discard, signals::first()).await;
    bar.finish_and_clear();
    let taken = swept?.taken;
    let discarded = if args.dry_run { discard.would_be() } else { taken };
    let verb = if args.dry_run { "would be thrown away" } else { "thrown away" };
    let json = json!({ "discarded": discarded, "dry_run": args.dry_run });
    Ok(context.printer().print(&format!("{discarded} {verb}"), &json)?)
}

fn progress(context: &Context) -> ProgressBar {
    if !context.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Self {
        error.source.into()
    }
}

impl From<RedriveError> for Failure {
    fn from(error: RedriveError) -> Self {
        let failure = Self::from(error.source);
        Self::of(failure.kind(), format!("{failure}; {} messages were redriven before", error.report.redriven))
    }
}
