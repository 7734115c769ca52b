//! Damaged messages of a running server.

use std::borrow::Cow;

use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::support::{admin_client::AdminClient, context::Context, failure::Failure, table::Table};

/// Which damaged messages, and whom to ask.
#[derive(Debug, Args)]
pub(super) struct DamagedArgs {
    /// The admin address of the server [config: server.admin]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Only messages of this group, by name or id
    #[arg(long)]
    group: Option<String>,
    /// Only this stream: messages, deadletters or delayed
    #[arg(long)]
    stream: Option<String>,
    /// Only the message with this sequence number
    #[arg(long)]
    sequence: Option<u64>,
}

/// A damaged message as a server shows it.
#[derive(Debug, Deserialize, Serialize)]
struct Damaged {
    project: String,
    queue_id: String,
    queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    stream: String,
    sequence: u64,
    file: String,
    offset: u64,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct SkipAnswer {
    skipped: u64,
}

/// Lists the damaged messages.
pub(super) async fn list(asked: &DamagedArgs, queue: Option<&str>, context: &Context) -> Result<(), Failure> {
    let admin = AdminClient::of_queues(asked.admin.as_deref(), context)?;
    let found: Vec<Damaged> = admin.ask(Method::GET, "/admin/damaged", &asked.parameters(queue)).await?;
    let mut table = Table::new(&["QUEUE", "GROUP", "STREAM", "SEQUENCE", "FILE", "OFFSET"]);
    for one in &found {
        let group = one.group.clone().unwrap_or_else(|| "-".to_owned());
        let (sequence, offset) = (one.sequence.to_string(), one.offset.to_string());
        table.row([one.queue.clone(), group, one.stream.clone(), sequence, one.file.clone(), offset]);
    }
    Ok(context.printer().table(&table, &found)?)
}

/// Skips damaged messages permanently.
pub(super) async fn skip(asked: &DamagedArgs, queue: &str, context: &Context) -> Result<(), Failure> {
    let admin = AdminClient::of_queues(asked.admin.as_deref(), context)?;
    let SkipAnswer { skipped } = admin.ask(Method::POST, "/admin/damaged/skip", &asked.parameters(Some(queue))).await?;
    context.done(&format!("{skipped} damaged messages were skipped"), &json!({ "skipped": skipped }))
}

impl DamagedArgs {
    fn parameters<'a>(&'a self, queue: Option<&'a str>) -> Vec<(&'static str, Cow<'a, str>)> {
        let sequence = self.sequence.map(|sequence| sequence.to_string().into());
        let named = [("queue", queue), ("group", self.group.as_deref()), ("stream", self.stream.as_deref())];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value?.into())));
        named.chain(sequence.map(|sequence| ("sequence", sequence))).collect()
    }
}
