//! `queue purge` and `queue update`, which use the admin address of this project's server. Other services do not offer them.

use std::borrow::Cow;

use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};

use crate::{
    cli::support::{
        admin_client::AdminClient,
        confirm::{confirm, counted},
        context::Context,
        failure::{ExitKind, Failure},
    },
    config::Span,
};
use dms_protocol::{
    internal::{suggest::nearest, visible::visible},
    limits,
};

/// Options of `queue purge`.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The queue's name or id
    queue: String,
    /// Only the backlog of this group, by name or id
    #[arg(long)]
    group: Option<String>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
    /// The admin address of the server [config: server.admin]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Options of `queue update`.
#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// The queue's name or id
    queue: String,
    /// Retention of messages, consumed or not, 1s to 72h; or `default`
    #[arg(long, value_name = "DURATION", value_parser = retention)]
    retention: Option<String>,
    /// Delete messages once every group has settled them: true, false or default
    #[arg(long, value_name = "WHETHER", value_parser = ["true", "false", "default"], hide_possible_values = true)]
    delete_when_settled: Option<String>,
    /// Description, up to 160 characters; empty for none
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Failures that make a message a dead letter, 1 to 100; `none` switches dead letters off
    #[arg(long, value_name = "COUNT", value_parser = max_consume_count)]
    max_consume_count: Option<String>,
    /// The admin address of the server [config: server.admin]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// A queue as the admin address shows it.
#[derive(Debug, Deserialize)]
struct AdminQueue {
    project: String,
    id: String,
    name: String,
    produced_messages: u64,
    groups: Vec<AdminGroup>,
}

#[derive(Debug, Deserialize)]
struct AdminGroup {
    id: String,
    name: String,
    available_messages: u64,
    leased_messages: u64,
}

/// The result of a purge.
#[derive(Debug, Deserialize, Serialize)]
struct Purged {
    queue_id: String,
    queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    purged_messages: u64,
    purged_delayed_messages: u64,
}

/// A queue after an update.
#[derive(Debug, Deserialize, Serialize)]
struct Updated {
    queue_id: String,
    queue: String,
    #[serde(default)]
    description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_consume_count: Option<u32>,
    retention_ms: u64,
    delete_when_settled: bool,
}

/// Reads a retention. Returns milliseconds, the unit of the admin address.
fn retention(text: &str) -> Result<String, String> {
    if text == "default" {
        return Ok(text.to_owned());
    }
    let span: Span = text.parse().map_err(|error| format!("{error}, or default"))?;
    let millis = u64::try_from(span.get().as_millis()).unwrap_or(u64::MAX);
    if limits::RETENTION_MS.contains(&millis) {
        Ok(millis.to_string())
    } else {
        Err("1s to 72h are allowed, or default".to_owned())
    }
}

/// Reads a number of failures, or `none`.
fn max_consume_count(text: &str) -> Result<String, String> {
    match text.parse() {
        _ if text == "none" => Ok(text.to_owned()),
        Ok(count) if limits::MAX_CONSUME_COUNT.contains(&count) => Ok(text.to_owned()),
        _ => Err("1 to 100 are allowed, or none".to_owned()),
    }
}

/// Purges a queue or a group.
pub(super) async fn purge(args: &PurgeArgs, context: &Context) -> Result<(), Failure> {
    let admin = AdminClient::of_queues(args.admin.as_deref(), context)?;
    let queue = find(&admin, &args.queue, context).await?;
    let group = args.group.as_deref().map(|wanted| queue.group(wanted)).transpose()?;
    confirm(args.yes, &what(&queue, group, &admin))?;
    let parameters: Vec<_> = group.map(|group| ("group", Cow::from(&group.id))).into_iter().collect();
    let purged: Purged = admin.ask(Method::POST, &format!("/admin/queues/{}/purge", queue.id), &parameters).await?;
    let Purged { purged_messages, purged_delayed_messages, .. } = &purged;
    let deleted = counted(purged_messages + purged_delayed_messages, "message");
    let whose = group.map_or_else(String::new, |group| format!(" for group {}", group.name));
    let json = serde_json::to_value(&purged).map_err(|error| Failure::new(error.to_string()))?;
    context.done(&format!("purged {deleted} of queue {}{whose} at {}", queue.name, admin.url()), &json)
}

/// Describes the messages that will be purged.
fn what(queue: &AdminQueue, group: Option<&AdminGroup>, admin: &AdminClient) -> String {
    let of = format!("{} at {}", queue.name, admin.url());
    match group {
        None => format!(
            "{} of queue {of} will be deleted, for all of its groups",
            counted(queue.produced_messages, "message")
        ),
        Some(group) => format!(
            "{} of queue {of} will be deleted for group {}",
            counted(group.available_messages + group.leased_messages, "message"),
            group.name
        ),
    }
}

/// Changes the properties of a queue, and how long it keeps messages.
pub(super) async fn update(args: &UpdateArgs, context: &Context) -> Result<(), Failure> {
    let changes = [
        ("retention_ms", &args.retention),
        ("delete_when_settled", &args.delete_when_settled),
        ("description", &args.description),
        ("max_consume_count", &args.max_consume_count),
    ];
    let parameters: Vec<_> =
        changes.into_iter().filter_map(|(name, value)| Some((name, Cow::from(value.as_deref()?)))).collect();
    if parameters.is_empty() {
        let text = "nothing to set: add --retention, --delete-when-settled, --description or --max-consume-count";
        return Err(Failure::of(ExitKind::Usage, text));
    }
    let admin = AdminClient::of_queues(args.admin.as_deref(), context)?;
    let queue = find(&admin, &args.queue, context).await?;
    let updated: Updated = admin.ask(Method::POST, &format!("/admin/queues/{}/update", queue.id), &parameters).await?;
    let json = serde_json::to_value(&updated).map_err(|error| Failure::new(error.to_string()))?;
    let said = updated.in_words(args);
    context.done(&format!("queue {} at {} {said}", queue.name, admin.url()), &json)
}

impl Updated {
    /// The changed settings with their new values, as a sentence.
    fn in_words(&self, args: &UpdateArgs) -> String {
        let mut parts = Vec::new();
        if args.retention.is_some() || args.delete_when_settled.is_some() {
            let until = if self.delete_when_settled { ", or until every group has settled them" } else { "" };
            parts.push(format!("keeps messages for {}{until}", Span::millis(self.retention_ms)));
        }
        if args.max_consume_count.is_some() {
            parts.push(match self.max_consume_count {
                Some(1) => "makes a message a dead letter after 1 failure".to_owned(),
                Some(count) => format!("makes a message a dead letter after {count} failures"),
                None => "has no dead letters".to_owned(),
            });
        }
        if args.description.is_some() {
            parts.push(match self.description.as_str() {
                "" => "has no description".to_owned(),
                text => format!("is described as: {}", visible(text)),
            });
        }
        parts.join("; it ")
    }
}

/// The queue of this name or id; of the project that `--project-id` names, if it does.
async fn find(admin: &AdminClient, wanted: &str, context: &Context) -> Result<AdminQueue, Failure> {
    let project = context.global.project_id.as_deref();
    let parameters: Vec<_> = project.map(|project| ("project", Cow::from(project))).into_iter().collect();
    let queues: Vec<AdminQueue> = admin.ask(Method::GET, "/admin/queues", &parameters).await?;
    let names: Vec<String> = queues.iter().map(|queue| queue.name.clone()).collect();
    let mut found: Vec<AdminQueue> =
        queues.into_iter().filter(|queue| queue.id == wanted || queue.name == wanted).collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Failure::new(format!("the server has no queue {wanted}{}", meant(wanted, names.iter())))),
        (Some(last), false) => {
            let projects: Vec<_> = found.iter().chain([&last]).map(|queue| queue.project.as_str()).collect();
            let text = format!(
                "{wanted} is a queue of several projects: name one of {} with --project-id",
                projects.join(", ")
            );
            Err(Failure::of(ExitKind::Usage, text))
        }
    }
}

impl AdminQueue {
    /// The group of this name or id.
    fn group(&self, wanted: &str) -> Result<&AdminGroup, Failure> {
        let found = self.groups.iter().find(|group| group.id == wanted || group.name == wanted);
        let names = || self.groups.iter().map(|group| &group.name);
        found
            .ok_or_else(|| Failure::new(format!("queue {} has no group {wanted}{}", self.name, meant(wanted, names()))))
    }
}

/// The name that was probably meant, as the end of a sentence.
fn meant<'a>(wanted: &str, names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    nearest(wanted, &names).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}
