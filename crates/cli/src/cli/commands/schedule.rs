//! `schedule`: messages that a server of this project sends at the times of a cron expression.

use std::borrow::Cow;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{
    cli::support::{
        admin_client::AdminClient,
        context::Context,
        failure::{ExitKind, Failure},
        table::Table,
    },
    config::MissedTicks,
};
use dms_protocol::message::Body;
use dms_server::broker::{NewSchedule, ScheduledMessage};

/// Options of `schedule`.
#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    command: ScheduleCommand,
    /// The admin address of the server [config: server.admin]
    #[arg(long, value_name = "URL", global = true)]
    admin: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// List the schedules with their next and last ticks
    #[command(after_help = "Examples:\n  dms-worker schedule list\n  dms-worker schedule list --queue orders -o json")]
    List {
        /// Only those of this queue, by name or id
        #[arg(long)]
        queue: Option<String>,
    },
    /// Add a schedule, and show the next three times at which it sends
    #[command(
        override_usage = "dms-worker schedule add [OPTIONS] <NAME>\n           --cron <CRON> --queue <QUEUE> --message <MESSAGE>",
        after_help = "\
Examples:
  dms-worker schedule add nightly --cron '0 2 * * *' --queue reports --message '{\"kind\": \"nightly\"}'
  dms-worker schedule add monday --cron '0 9 * * MON' --timezone Europe/Berlin --queue mails --message hello

A message is JSON, or else text. An object with `body` may have `attributes` and `tags` beside it."
    )]
    Add(AddArgs),
    /// Pause a schedule: it sends nothing until it is resumed
    #[command(after_help = "Examples:\n  dms-worker schedule pause nightly")]
    Pause(NameArgs),
    /// Resume a schedule; ticks of the pause are not sent later
    #[command(after_help = "Examples:\n  dms-worker schedule resume nightly")]
    Resume(NameArgs),
    /// Remove a schedule that was added by command
    #[command(after_help = "Examples:\n  dms-worker schedule remove nightly")]
    Remove(NameArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The name, unique in the project
    name: String,
    /// When it sends: minute, hour, day of the month, month, day of the week; or @daily
    #[arg(long)]
    cron: String,
    /// The queue's name or id
    #[arg(long)]
    queue: String,
    /// The message
    #[arg(long, value_name = "MESSAGE")]
    message: String,
    /// The time zone of the cron expression, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// What ticks send that are more than a minute late: nothing, the last its message, or the last 100 theirs
    #[arg(long, value_name = "POLICY", default_value = "once")]
    missed: Missed,
}

#[derive(Debug, Args)]
struct NameArgs {
    /// The schedule's name
    name: String,
    /// The queue's name or id, if other queues have a schedule of this name
    #[arg(long)]
    queue: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Missed {
    Skip,
    Once,
    All,
}

impl From<Missed> for MissedTicks {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Skip => Self::Skip,
            Missed::Once => Self::Once,
            Missed::All => Self::All,
        }
    }
}

/// A schedule as the admin address shows it.
#[derive(Debug, Deserialize, Serialize)]
struct Schedule {
    project: String,
    name: String,
    queue_id: Option<String>,
    queue: String,
    cron: String,
    timezone: String,
    missed: String,
    source: String,
    paused: bool,
    /// Older servers do not say it.
    #[serde(default)]
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    message: Box<RawValue>,
    created_at: Option<String>,
    next: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<LastTick>,
    sent_messages: u64,
    missed_ticks: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct LastTick {
    planned_at: Option<String>,
    sent_at: Option<String>,
    message_id: String,
}

/// Lists and changes the schedules of a server.
pub(crate) async fn run(args: ScheduleArgs, context: &Context) -> Result<(), Failure> {
    let admin = args.admin.as_deref();
    match args.command {
        ScheduleCommand::List { queue } => {
            list(&AdminClient::of_queues(admin, context)?, queue.as_deref(), context).await
        }
        ScheduleCommand::Add(add_args) => add(&add_args, admin, context).await,
        ScheduleCommand::Pause(of) => pause(&AdminClient::of_queues(admin, context)?, &of, true, context).await,
        ScheduleCommand::Resume(of) => pause(&AdminClient::of_queues(admin, context)?, &of, false, context).await,
        ScheduleCommand::Remove(of) => {
            let admin = AdminClient::of_queues(admin, context)?;
            let path = format!("/admin/schedules/{}/remove", in_path(&of.name)?);
            let removed: Value = admin.ask(Method::POST, &path, &narrowed(of.queue.as_deref(), context)).await?;
            context.done(&format!("schedule {} at {} is removed", of.name, admin.url()), &removed)
        }
    }
}

async fn list(admin: &AdminClient, queue: Option<&str>, context: &Context) -> Result<(), Failure> {
    let schedules: Vec<Schedule> = admin.ask(Method::GET, "/admin/schedules", &narrowed(queue, context)).await?;
    if schedules.is_empty() {
        context.say(&format!("{} has no schedules: add one with `dms-worker schedule add`", admin.url()));
    }
    let mut table = Table::new(&["NAME", "QUEUE", "CRON", "ZONE", "NEXT", "SENT", "MISSED", "FROM"]);
    for schedule in &schedules {
        let next = match (schedule.state.as_str(), schedule.next.first()) {
            _ if schedule.paused => "paused".to_owned(),
            ("waiting" | "late", _) => schedule.state.clone(),
            (_, Some(next)) => minute(next),
            (_, None) => "never".to_owned(),
        };
        table.row([
            schedule.name.clone(),
            schedule.queue.clone(),
            schedule.cron.clone(),
            schedule.timezone.clone(),
            next,
            schedule.sent_messages.to_string(),
            schedule.missed_ticks.to_string(),
            if schedule.source == "configuration" { "config" } else { "added" }.to_owned(),
        ]);
    }
    context.printer().table(&table, &schedules)?;
    for Schedule { name, queue, problem, .. } in &schedules {
        if let Some(problem) = problem {
            context.say(&format!("schedule {name} of queue {queue}: {problem}"));
        }
    }
    Ok(())
}

async fn add(args: &AddArgs, admin: Option<&str>, context: &Context) -> Result<(), Failure> {
    let body = Body::raw(args.message.clone()).or_else(|_| Body::json(&args.message));
    let body = body.map_err(|error| Failure::of(ExitKind::Usage, format!("--message: {error}")))?;
    // Checked here first, so that a mistake is wrong usage and needs no server.
    let mistake = |error: dms_server::broker::ScheduleError| {
        let option = if error.property() == "name" { "NAME".to_owned() } else { format!("--{}", error.property()) };
        Failure::of(ExitKind::Usage, format!("{option} {}", error.mistake()))
    };
    let message = ScheduledMessage::parse(body.as_str()).map_err(mistake)?;
    let schedule = NewSchedule::new(args.name.as_str(), args.cron.as_str(), message).timezone(args.timezone.as_str());
    schedule.check().map_err(mistake)?;
    let admin = AdminClient::of_queues(admin, context)?;
    let request = Request {
        name: &args.name,
        cron: &args.cron,
        queue: &args.queue,
        message: serde_json::from_str(body.as_str()).map_err(|error| Failure::new(error.to_string()))?,
        timezone: &args.timezone,
        missed: args.missed.into(),
        project: context.global.project_id.as_deref(),
    };
    let request = serde_json::to_vec(&request).map_err(|error| Failure::new(error.to_string()))?;
    let added: Schedule = admin.send(Method::POST, "/admin/schedules", &[], request).await?;
    let times: Vec<String> = added.next.iter().map(|time| format!("\n  {}", local(time, &added.timezone))).collect();
    let Schedule { name, queue, .. } = &added;
    let text = format!("schedule {name} of queue {queue} at {} is added, and sends at{}", admin.url(), times.concat());
    context.done(&text, &json!(added))
}

async fn pause(admin: &AdminClient, of: &NameArgs, paused: bool, context: &Context) -> Result<(), Failure> {
    let mut parameters = narrowed(of.queue.as_deref(), context);
    parameters.push(("paused", Cow::from(paused.to_string())));
    let path = format!("/admin/schedules/{}/pause", in_path(&of.name)?);
    let now: Schedule = admin.ask(Method::POST, &path, &parameters).await?;
    let text = match now.next.first() {
        _ if paused => format!("schedule {} at {} is paused", now.name, admin.url()),
        Some(next) => {
            format!("schedule {} at {} goes on, next at {}", now.name, admin.url(), local(next, &now.timezone))
        }
        None => format!("schedule {} at {} is resumed, and no time fits it any more", now.name, admin.url()),
    };
    context.done(&text, &json!(now))
}

/// The body of a request that adds a schedule.
#[derive(Debug, Serialize)]
struct Request<'a> {
    name: &'a str,
    cron: &'a str,
    queue: &'a str,
    message: Box<RawValue>,
    timezone: &'a str,
    missed: MissedTicks,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
}

/// The parameters that choose a project and a queue.
fn narrowed<'a>(queue: Option<&'a str>, context: &'a Context) -> Vec<(&'static str, Cow<'a, str>)> {
    let project = context.global.project_id.as_deref().map(|project| ("project", Cow::from(project)));
    project.into_iter().chain(queue.map(|queue| ("queue", Cow::from(queue)))).collect()
}

/// A name as a part of a path: names of schedules are words.
fn in_path(name: &str) -> Result<&str, Failure> {
    dms_protocol::limits::schedule_name(name).map_err(|error| Failure::of(ExitKind::Usage, error.to_string()))?;
    Ok(name)
}

/// A time without seconds that are zero, in UTC.
fn minute(time: &str) -> String {
    time.strip_suffix(":00Z").map_or_else(|| time.to_owned(), |minute| format!("{minute}Z"))
}

/// A time in its time zone, and in UTC if that is another one.
fn local(time: &str, zone: &str) -> String {
    let parsed = time.parse::<jiff::Timestamp>().ok();
    let local = parsed.and_then(|parsed| parsed.in_tz(zone).ok());
    match local.filter(|_| zone != "UTC") {
        Some(local) => format!("{} ({time})", local.strftime("%Y-%m-%dT%H:%M:%S%:z")),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_where_nothing_is_lost() {
        assert_eq!(minute("2026-03-05T02:00:00Z"), "2026-03-05T02:00Z");
        assert_eq!(minute("2026-03-05T02:00:30Z"), "2026-03-05T02:00:30Z");
        assert_eq!(local("2026-03-05T02:00:00Z", "UTC"), "2026-03-05T02:00:00Z");
        let berlin = "2026-03-05T03:00:00+01:00 (2026-03-05T02:00:00Z)";
        assert_eq!(local("2026-03-05T02:00:00Z", "Europe/Berlin"), berlin);
        assert_eq!(local("2026-03-05T02:00:00Z", "Mars"), "2026-03-05T02:00:00Z");
    }
}
