//! `dlq redrive` and `dlq discard`: sending messages again, from the queue or from a file, or throwing them away.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::{json, value::RawValue};
use sha2::{Digest, Sha256};

use crate::{
    cli::{
        commands::{
            dlq::{filter::Filter, selection::Selection, sweep_bar::SweepBar, visitors::Discard},
            send::{self, Choice, Pump, Report},
        },
        service::signals,
        support::{
            confirm::confirm,
            context::Context,
            failure::{ExitKind, Failure},
        },
    },
    config::Rate,
};
use dms_protocol::{
    auth::canonical::hex,
    internal::private,
    message::{Body, Message},
};
use dms_worker::{
    Dialect,
    client::Client,
    internal::{as_redriven, is_exhausted, without_unsupported},
    redrive::{Redrive, RedriveError, RedriveReport, Sweep},
};

/// Options of `dlq redrive`.
#[derive(Debug, Args)]
pub(super) struct RedriveArgs {
    /// The queue's name or id
    queue: String,
    /// The group's name or id
    #[arg(required_unless_present = "file")]
    group: Option<String>,
    /// Send the messages of a parking queue back to their queues
    #[arg(long, conflicts_with = "file")]
    parked: bool,
    #[command(flatten)]
    filter: Filter,
    /// Send the messages of this file, written by `dlq dump`, to QUEUE, instead of a group's dead letters
    #[arg(long, value_name = "FILE", conflicts_with = "group")]
    file: Option<PathBuf>,
    /// Continue an earlier run with this file; from a group, every run continues
    #[arg(long, requires = "file")]
    resume: bool,
    /// The journal of messages in flight; FILE.journal, or a file in the user's state directory, by default
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Maximum number of messages
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
    /// Limit the rate, as in 20/s
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Send the copies to this queue instead
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Set an attribute of the copies; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = send::attribute)]
    set: Vec<(String, Box<RawValue>)>,
    /// Leave an attribute out of the copies; may be repeated
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// How often a message may be redriven in total; 3 by default
    #[arg(long, value_name = "TIMES")]
    max_redrives: Option<u32>,
    /// Also send the originals of dead letters that were edited and sent again (reason `edited`)
    #[arg(long)]
    edited: bool,
    /// Send nothing; print how many messages would be sent
    #[arg(long)]
    dry_run: bool,
}

/// Options of `dlq discard`.
#[derive(Debug, Args)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    filter: Filter,
    /// Maximum number of messages
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
    /// Discard nothing; print how many messages would be
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

impl RedriveArgs {
    fn max_redrives(&self) -> u32 {
        self.max_redrives.unwrap_or(3)
    }

    /// Refuses what ROMA Connect MQS cannot do.
    fn check_dialect(&self, client: &Client) -> Result<(), Failure> {
        let refused = match client.dialect() {
            Dialect::Dms => None,
            _ if self.max_redrives.is_some() => Some("--max-redrives"),
            _ if !self.set.is_empty() => Some("--set"),
            _ => None,
        };
        if let Some(option) = refused {
            let text =
                format!("{option} needs attributes, which messages of ROMA Connect MQS do not have: leave it out");
            return Err(Failure::of(ExitKind::Usage, text));
        }
        // A file may be of another service.
        if self.file.is_some() || client.dialect() == Dialect::Dms {
            return Ok(());
        }
        if self.edited {
            let text = "--edited is about dead letters, which ROMA Connect MQS does not have: leave it out";
            return Err(Failure::of(ExitKind::Usage, text));
        }
        self.filter.check_for(client)
    }
}

/// How the copies are changed.
#[derive(Clone, Debug)]
struct Change {
    set: Vec<(String, Box<RawValue>)>,
    unset: Vec<String>,
}

impl Change {
    fn apply(&self, mut message: Message) -> Message {
        message.attributes.retain(|name| !self.unset.iter().any(|unset| unset == name));
        for (name, value) in &self.set {
            message.attributes.insert_raw(name.as_str(), value.clone());
        }
        message
    }
}

/// Sends messages again.
pub(super) async fn redrive(client: &Client, args: RedriveArgs, context: &Context) -> Result<ExitCode, Failure> {
    args.check_dialect(client)?;
    match (&args.file, &args.group) {
        (Some(file), _) => from_file(client, &args, file, context).await,
        (None, Some(group)) => {
            let which = Selection { queue: args.queue.clone(), group: group.clone(), parked: args.parked };
            from_group(client, &args, &which, context).await?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => Err(Failure::of(ExitKind::Usage, "name a group, or a --file")),
    }
}

async fn from_group(client: &Client, args: &RedriveArgs, which: &Selection, context: &Context) -> Result<(), Failure> {
    let source = which.source(client).await?;
    let endpoint = context.endpoint().unwrap_or_default();
    let project = context.global.project_id.as_deref().unwrap_or_default();
    let about = format!("{endpoint} {project} {source:?}");
    let journal = journal_file("redrive", &about, args.journal.as_deref(), args.dry_run, context);
    let progress = SweepBar::new(context);
    let mut redrive = Redrive::new(client.clone(), source).edited_originals(args.edited).dry_run(args.dry_run);
    if let Some(times) = args.max_redrives {
        redrive = redrive.max_redrives(times);
    }
    let mut redrive = with_options(redrive, (args.max, args.rate), &args.filter, journal, &progress);
    if let Some(queue) = &args.to {
        redrive = redrive.to(client.find_queue(queue).await?.id);
    }
    let change = Change { set: args.set.clone(), unset: args.unset.clone() };
    let result = redrive.map(move |copy| change.apply(copy)).run(signals::first()).await;
    progress.clear();
    print(&result?, args.dry_run, context)
}

/// A redrive with the options that all sweeps of the command line have.
pub(crate) fn with_options(
    mut redrive: Redrive,
    (max, rate): (Option<u64>, Option<Rate>),
    filter: &Filter,
    journal: Option<PathBuf>,
    progress: &SweepBar,
) -> Redrive {
    let mut progress = progress.clone();
    redrive = redrive.sweep(|sweep| {
        sweep.max(max).rate(rate.map(Rate::per_second)).on_progress(move |report| progress.show(report))
    });
    if let Some(journal) = journal {
        redrive = redrive.journal(journal);
    }
    if !filter.is_empty() {
        let filter = filter.clone();
        redrive = redrive.only(move |message| filter.passes(message));
    }
    redrive
}

/// The journal of a run: the named file, or a file in the user's state directory for exactly this task. `None` for a dry run, and
/// where no journal is possible.
pub(crate) fn journal_file(
    kind: &str,
    about: &str,
    named: Option<&Path>,
    dry_run: bool,
    context: &Context,
) -> Option<PathBuf> {
    match named {
        None if dry_run => None,
        None => state_file(kind, about).filter(|path| is_usable(path, context)),
        Some(named) => Some(named.to_owned()),
    }
}

/// A file of `$STATE_DIRECTORY`, or of `${XDG_STATE_HOME:-~/.local/state}/dms-worker`.
fn state_file(kind: &str, about: &str) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = || {
        let home = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        home.map(|home| home.join("dms-worker"))
    };
    let directory = variable("STATE_DIRECTORY").or_else(state)?;
    let hash = hex(&Sha256::digest(about)[..8]);
    Some(directory.join(format!("{kind}-{hash}.journal")))
}

/// Whether a journal can be there. Without one a redrive still loses nothing.
fn is_usable(path: &Path, context: &Context) -> bool {
    let opened = path.parent().map_or(Ok(()), private::create_dir_all);
    let opened = opened.and_then(|()| private::options().append(true).create(true).open(path));
    if let Err(error) = &opened {
        let path = path.display();
        context.say(&format!(
            "no journal at {path} ({error}): what a killed run doubles is not counted; --journal names a place"
        ));
    }
    opened.is_ok()
}

fn print(report: &RedriveReport, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let left = report.filtered + report.exhausted + report.edited + report.refused;
    let edited = match report.edited {
        0 => String::new(),
        count => format!(", {count} are originals of edited messages: --edited sends them"),
    };
    let verb = if dry_run { "would be redriven" } else { "redriven" };
    let earlier = match report.earlier {
        0 => String::new(),
        copies => format!(" after {copies} by earlier runs that were not finished"),
    };
    let text = format!(
        "{} {verb}{earlier}, {left} left ({} did not match, {} were redriven too often, {} cannot be sent{edited}), {} may be there twice",
        report.redriven, report.filtered, report.exhausted, report.refused, report.doubled
    );
    let json = json!({
        "redriven": report.redriven,
        "filtered": report.filtered,
        "exhausted": report.exhausted,
        "edited": report.edited,
        "refused": report.refused,
        "doubled": report.doubled,
        "earlier": report.earlier,
        "dry_run": dry_run,
    });
    Ok(context.printer().print(&text, &json)?)
}

/// What became of the lines that were not sent.
#[derive(Debug, Default)]
struct SkippedLines {
    chosen: u64,
    filtered: u64,
    exhausted: u64,
}

async fn from_file(client: &Client, args: &RedriveArgs, file: &Path, context: &Context) -> Result<ExitCode, Failure> {
    let queue = client.find_queue(args.to.as_ref().unwrap_or(&args.queue)).await?;
    let task = format!("redrive to queue {}", queue.id);
    let common = Message::new(Body::trusted("null".into()));
    let (mut input, journal) = match args.dry_run {
        true => (send::Input::file(file, common, 0, 0).await?, None),
        false => send::open_file(file, args.journal.as_deref(), args.resume, task, common).await?,
    };
    input.keep_ids();
    if !args.edited {
        input.leave_originals();
    }
    let mut report = Report::new(context, input.size());
    if let Some(journal) = journal.as_ref().filter(|journal| journal.is_resumed()) {
        report.resume(journal.progress());
    }
    let mut pump = Pump::new(send::producer(client.clone(), &queue, false, false)?, journal, report);
    pump.interval = args.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.per_second().recip()));
    let mut left = SkippedLines::default();
    let choose = |message| match choose(args, &mut left, message) {
        Choice::Send(copy) => Choice::Send(without_unsupported(client, copy)),
        other => other,
    };
    let (report, ended) = pump.run(&mut input, choose, signals::first()).await?;
    report.clear();
    let total = report.total();
    let redriven = if args.dry_run { left.chosen } else { total.sent };
    let counted = RedriveReport::of_file(
        redriven,
        left.filtered,
        left.exhausted,
        input.originals(),
        total.refused,
        report.doubled(),
    );
    print(&counted, args.dry_run, context)?;
    let complete = ended || args.max.is_some_and(|max| left.chosen >= max);
    Ok(ExitCode::from(u8::from(total.refused > 0 || !complete)))
}

fn choose(args: &RedriveArgs, left: &mut SkippedLines, message: Message) -> Choice {
    if args.max.is_some_and(|max| left.chosen >= max) {
        return Choice::Stop;
    }
    if !args.filter.passes_line(&message) {
        left.filtered += 1;
        return Choice::Skip;
    }
    if is_exhausted(&message.attributes, args.max_redrives()) {
        left.exhausted += 1;
        return Choice::Skip;
    }
    left.chosen += 1;
    if args.dry_run {
        return Choice::Skip;
    }
    let change = Change { set: args.set.clone(), unset: args.unset.clone() };
    Choice::Send(change.apply(as_redriven(message)))
}

/// Throws messages away.
pub(super) async fn discard(client: &Client, args: DiscardArgs, context: &Context) -> Result<(), Failure> {
    args.filter.check_for(client)?;
    let source = args.which.source(client).await?;
    if !args.dry_run {
        let what =
            format!("{} of group {} of {} will be thrown away", args.which.what(), args.which.group, args.which.queue);
        confirm(args.yes, &what)?;
    }
    let mut discard = Discard::new(args.filter, args.dry_run, args.max);
    let progress = SweepBar::new(context);
    let mut shown = progress.clone();
    let sweep = Sweep::new(client.clone(), source).parked(args.which.parked);
    let sweep = sweep.ack_wait(Duration::from_secs(300)).max(args.max);
    let sweep = sweep.on_progress(move |report| shown.show(report));
    let swept = sweep.run(&mut discard, signals::first()).await;
    progress.clear();
    let taken = swept?.taken;
    let discarded = if args.dry_run { discard.would_be() } else { taken };
    let verb = if args.dry_run { "would be thrown away" } else { "thrown away" };
    let json = json!({ "discarded": discarded, "dry_run": args.dry_run });
    Ok(context.printer().print(&format!("{discarded} {verb}"), &json)?)
}

impl From<RedriveError> for Failure {
    fn from(error: RedriveError) -> Self {
        let failure = Self::from(error.source);
        let RedriveReport { redriven, doubled, .. } = error.report;
        let text = format!("{failure}; {redriven} messages were redriven before, {doubled} may be there twice");
        failure.saying(text)
    }
}
