//! `queue move` and `queue copy`: messages of a queue into another one, of this service or of another server.
//!
//! Both are a redrive that leaves the messages unchanged. A move takes the backlog of a group. A copy creates a group, consumes with it,
//! and deletes it at the end. So the other groups are not affected, and a stopped copy continues at the position of its group.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{
        commands::dlq::{
            filter::Filter,
            redrive::{journal_file, with_options},
            sweep_bar::SweepBar,
        },
        service::signals,
        support::{
            context::Context,
            failure::{ExitKind, Failure},
        },
    },
    config::Rate,
};
use dms_protocol::{
    auth::canonical::hex,
    internal::secret_url::without_secrets,
    queue::{ConsumerGroup, Queue, SourcePath},
};
use dms_worker::{
    Dialect,
    client::Client,
    redrive::{Redrive, RedriveReport},
};

/// The refusal of a copy from ROMA Connect MQS.
const NO_COPY_OVER_MQS: &str = "a copy deletes its group at the end, and ROMA Connect MQS cannot: use `queue move TOPIC TARGET --group NAME` with a \
                                name that no consumer uses; then the groups of others keep their messages, and the group stays";

/// Options of `queue move`.
#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    #[command(flatten)]
    transfer: Transfer,
    /// The group whose backlog is moved, by name or id; required if the queue has several
    #[arg(long)]
    group: Option<String>,
}

/// Options of `queue copy`.
#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    #[command(flatten)]
    transfer: Transfer,
}

/// The options that both commands have.
#[derive(Debug, Args)]
struct Transfer {
    /// The queue that messages are taken from, by name or id
    source: String,
    /// The queue that they are sent to, by name or id
    target: String,
    /// The address of the target's server, with the credentials of this one [default: the same service]
    #[arg(long, value_name = "URL")]
    to_endpoint: Option<String>,
    /// The project of the target [default: the same]
    #[arg(long, value_name = "ID")]
    to_project_id: Option<String>,
    /// A configuration whose section `dms` has the target's address and credentials
    #[arg(long, value_name = "FILE")]
    to_config: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// Maximum number of messages
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
    /// Limit the rate, as in 20/s
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// The journal of messages in flight; a file in the user's state directory by default
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Send nothing; print how many messages would be sent
    #[arg(long)]
    dry_run: bool,
}

/// Which messages are taken, and from which group.
#[derive(Clone, Copy)]
enum Mode {
    /// The backlog of a group that other consumers use.
    Move,
    /// The messages of the group that was created for the copy. Messages that do not match are acknowledged, too. With `leased`, a
    /// killed run may still lease some of them.
    Copy { leased: bool },
}

/// Where messages go.
struct Target {
    client: Client,
    endpoint: String,
    queue: Queue,
}

/// Moves the backlog of a group.
pub(super) async fn run_move(args: &MoveArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    if client.dialect() == Dialect::Mqs && args.transfer.filter.needs_more_than_bodies() {
        let text = "messages of ROMA Connect MQS have neither attributes nor labels: choose them with --match-body";
        return Err(Failure::of(ExitKind::Usage, text.to_owned()));
    }
    let source = client.find_queue(&args.transfer.source).await?;
    let group = match &args.group {
        Some(group) => client.find_group(&source.id, group).await?,
        None if client.dialect() == Dialect::Mqs => {
            let text = "ROMA Connect MQS lists no groups: name the group with --group";
            return Err(Failure::of(ExitKind::Usage, text.to_owned()));
        }
        None => only_group(&source, client.groups(&source.id).await?)?,
    };
    let target = args.transfer.target(&client, &source, context).await?;
    let path = SourcePath::messages(source.id.clone(), group.id);
    let sent = args.transfer.send(&client, path, &target, Mode::Move, context).await;
    let (report, _) = sent.map_err(|failure| args.transfer.about_target(failure))?;
    print("moved", &report, args.transfer.dry_run, context)
}

/// Copies the messages that a queue keeps.
pub(super) async fn run_copy(args: &CopyArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    if client.dialect() == Dialect::Mqs {
        return Err(Failure::of(ExitKind::Usage, NO_COPY_OVER_MQS.to_owned()));
    }
    let source = client.find_queue(&args.transfer.source).await?;
    let target = args.transfer.target(&client, &source, context).await?;
    let (group, is_new) = own_group(&client, &source, &target, context).await?;
    let path = SourcePath::messages(source.id.clone(), group.id.clone());
    // A run that was killed a moment ago may still lease messages, which no poll shows.
    let is_leased = !is_new && leased(&client, &path).await?.is_none_or(|leased| leased > 0);
    match args.transfer.send(&client, path.clone(), &target, Mode::Copy { leased: is_leased }, context).await {
        // A dry run does not move the group of an unfinished copy.
        Ok((report, _)) if args.transfer.dry_run => {
            if is_new {
                client.delete_group(&source.id, &group.id).await?;
            }
            print("copied", &report, true, context)
        }
        Ok((report, finished)) => {
            // A sweep also ends at `--max`, and when it cannot skip more messages.
            let left = client.find_group(&source.id, group.id.as_str()).await?.available_messages;
            let leased = leased(&client, &path).await?.unwrap_or(0);
            let finished = finished && left + leased == 0 && report.refused == 0;
            if finished {
                client.delete_group(&source.id, &group.id).await?;
            }
            print("copied", &report, false, context)?;
            if !finished {
                context.say(&unfinished(&source, &group));
            }
            Ok(())
        }
        Err(failure) => {
            context.say(&unfinished(&source, &group));
            Err(failure)
        }
    }
}

/// The number of leased messages of a group; `None` if the service does not report it.
async fn leased(client: &Client, path: &SourcePath) -> Result<Option<u64>, Failure> {
    let overview = client.overview().await?;
    let groups = overview.into_iter().find(|queue| queue.queue.id == path.queue).map(|queue| queue.groups);
    let group = groups.into_iter().flatten().find(|group| group.group.id == path.group);
    Ok(group.and_then(|group| group.leased))
}

fn unfinished(source: &Queue, group: &ConsumerGroup) -> String {
    format!(
        "not finished: the same command continues; to give up, delete group {} of queue {}",
        group.name, source.name
    )
}

/// The group of a move that names none.
fn only_group(source: &Queue, mut groups: Vec<ConsumerGroup>) -> Result<ConsumerGroup, Failure> {
    match (groups.len(), groups.pop()) {
        (1, Some(only)) => Ok(only),
        (_, None) => Err(Failure::new(format!(
            "queue {} has no group, so its messages cannot be consumed; `queue copy` copies them",
            source.name
        ))),
        (_, Some(last)) => {
            let names: Vec<_> = groups.iter().chain([&last]).map(|group| group.name.as_str()).collect();
            let text =
                format!("queue {} has several groups: name one of {} with --group", source.name, names.join(", "));
            Err(Failure::of(ExitKind::Usage, text))
        }
    }
}

/// The group with which this copy consumes, and whether it is new or belongs to an earlier copy that did not finish.
async fn own_group(
    client: &Client,
    source: &Queue,
    target: &Target,
    context: &Context,
) -> Result<(ConsumerGroup, bool), Failure> {
    let about = format!("{} {}", target.endpoint, target.queue.id);
    let name = format!("copy-{}", hex(&Sha256::digest(about)[..8]));
    let found = |groups: Vec<ConsumerGroup>| groups.into_iter().find(|group| group.name == name);
    if let Some(group) = found(client.groups(&source.id).await?) {
        context.say(&format!("continuing the copy of group {name}"));
        return Ok((group, false));
    }
    client.create_groups(&source.id, &[&name]).await.map_err(|error| {
        let failure = Failure::from(error);
        let text = format!("a copy needs a separate group in queue {}: {failure}", source.name);
        failure.saying(text)
    })?;
    let group = client.find_group(&source.id, &name).await?;
    if group.available_messages == 0 && group.produced_messages > 0 {
        context.say("new groups of this service get later messages only (`new_group_starts: end`): there may be nothing to copy");
    }
    Ok((group, true))
}

impl Transfer {
    async fn target(&self, client: &Client, source: &Queue, context: &Context) -> Result<Target, Failure> {
        let from = context.endpoint().unwrap_or_default().to_owned();
        let elsewhere = self.to_endpoint.is_some() || self.to_project_id.is_some() || self.to_config.is_some();
        // Ids of queues are random, so two servers have no queue in common. The id of a topic is its name, which they may share.
        let other =
            |queue: Queue, to: &str| match queue.id == source.id && (client.dialect() == Dialect::Dms || to == from) {
                true => Err(Failure::of(ExitKind::Usage, format!("{} is the source and the target", queue.name))),
                false => Ok(queue),
            };
        if !elsewhere {
            let queue = other(client.find_queue(&self.target).await?, &from)?;
            return Ok(Target { client: client.clone(), endpoint: from, queue });
        }
        let mut global = context.global.clone();
        if self.to_config.is_some() {
            // Options of the source do not apply to another configuration.
            (global.config, global.endpoint, global.project_id) = (self.to_config.clone(), None, None);
            (global.context, global.api_version, global.dialect) = (None, None, None);
        }
        global.endpoint = self.to_endpoint.clone().or(global.endpoint);
        global.project_id = self.to_project_id.clone().or(global.project_id);
        let context = Context::new(global);
        let to = if self.to_config.is_some() { context.client_of_file() } else { context.client() }?;
        let endpoint = context.endpoint().unwrap_or_default().to_owned();
        let found = to.find_queue(&self.target).await.map_err(|error| self.about_target(error.into()))?;
        let queue = other(found, &endpoint)?;
        Ok(Target { client: to, endpoint, queue })
    }

    /// Adds that a target of another API needs another option, if the target may be one.
    fn about_target(&self, failure: Failure) -> Failure {
        let Some(to) = self.to_endpoint.as_ref().filter(|_| self.to_config.is_none() && failure.is_foreign()) else {
            return failure;
        };
        let to = without_secrets(to);
        let text = format!(
            "{failure}; --to-endpoint is for a service with the API of the source: if {to} has the other one, name it in a file with \
             --to-config"
        );
        Failure::of(failure.kind(), text)
    }

    /// Sends the messages. Returns the report, and whether the work was finished and not interrupted.
    async fn send(
        &self,
        client: &Client,
        source: SourcePath,
        target: &Target,
        mode: Mode,
        context: &Context,
    ) -> Result<(RedriveReport, bool), Failure> {
        let about =
            format!("{} {source:?} to {} {}", context.endpoint().unwrap_or_default(), target.endpoint, target.queue.id);
        let signal = signals::first();
        let journal = journal_file("transfer", &about, self.journal.as_deref(), self.dry_run, context);
        let progress = SweepBar::new(context);
        let redrive = Redrive::new(client.clone(), source)
            .to_service(target.client.clone(), target.queue.id.clone())
            .unchanged(true)
            .skip_filtered(matches!(mode, Mode::Copy { .. }))
            .dry_run(self.dry_run);
        let mut redrive = with_options(redrive, (self.max, self.rate), &self.filter, journal, &progress);
        if matches!(mode, Mode::Copy { leased: true }) {
            context.say("an earlier run still leases messages: waiting until they are available");
            redrive = redrive.sweep(|sweep| {
                let lease = sweep.lease();
                sweep.at_least(lease)
            });
        }
        let stopped = CancellationToken::new();
        let stop = async {
            signal.await;
            stopped.cancel();
        };
        let result = redrive.run(stop).await;
        progress.clear();
        Ok((result?, !stopped.is_cancelled()))
    }
}

fn print(verb: &str, report: &RedriveReport, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let would = if dry_run { "would be " } else { "" };
    let earlier = match report.earlier {
        0 => String::new(),
        copies => format!(" after {copies} by earlier, unfinished runs"),
    };
    let text = format!(
        "{} {would}{verb}{earlier}, {} did not match, {} cannot be sent, {} may be there twice",
        report.redriven, report.filtered, report.refused, report.doubled
    );
    let json = json!({
        verb: report.redriven,
        "filtered": report.filtered,
        "refused": report.refused,
        "doubled": report.doubled,
        "earlier": report.earlier,
        "dry_run": dry_run,
    });
    Ok(context.printer().print(&text, &json)?)
}
