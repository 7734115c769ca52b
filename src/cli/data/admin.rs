//! What a running server does for `data`, through its admin address.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    cli::{
        context::Context,
        failure::{Failure, Kind},
        table::Table,
    },
    transport::{HttpOptions, HttpTransport, Transport, TransportError},
};

/// A copy takes as long as the disk needs for it.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Which damaged messages, and whom to ask.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The admin address of the server [config: server.admin]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Only those of this group, by name or id
    #[arg(long)]
    group: Option<String>,
    /// Only these: messages, deadletters or delayed
    #[arg(long)]
    stream: Option<String>,
    /// Only the one at this place
    #[arg(long)]
    sequence: Option<u64>,
}

/// A copy that a server made.
#[derive(Debug, Deserialize)]
pub(super) struct Made {
    pub(super) commit: u64,
    pub(super) files: usize,
    pub(super) bytes: u64,
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
struct Skipped {
    skipped: u64,
}

/// Has a server copy its directory.
pub(super) async fn back_up(dest: &Path, admin: Option<&str>, context: &Context) -> Result<Made, Failure> {
    let admin = address(admin, context)?;
    ask(&admin, Method::POST, "/admin/backup", &[("to", &dest.to_string_lossy())]).await
}

/// Shows what is set aside.
pub(super) async fn list(asked: &Asked, queue: Option<&str>, context: &Context) -> Result<(), Failure> {
    let admin = address(asked.admin.as_deref(), context)?;
    let found: Vec<Damaged> = ask(&admin, Method::GET, "/admin/damaged", &asked.parameters(queue)).await?;
    let mut table = Table::new(&["QUEUE", "GROUP", "STREAM", "SEQUENCE", "FILE", "OFFSET"]);
    for one in &found {
        let group = one.group.clone().unwrap_or_else(|| "-".to_owned());
        let (sequence, offset) = (one.sequence.to_string(), one.offset.to_string());
        table.row([one.queue.clone(), group, one.stream.clone(), sequence, one.file.clone(), offset]);
    }
    Ok(context.printer().table(&table, &found)?)
}

/// Skips some for good.
pub(super) async fn skip(asked: &Asked, queue: &str, context: &Context) -> Result<(), Failure> {
    let admin = address(asked.admin.as_deref(), context)?;
    let Skipped { skipped } = ask(&admin, Method::POST, "/admin/damaged/skip", &asked.parameters(Some(queue))).await?;
    context.done(&format!("{skipped} damaged messages were skipped"), &json!({ "skipped": skipped }))
}

impl Asked {
    fn parameters<'a>(&'a self, queue: Option<&'a str>) -> Vec<(&'static str, std::borrow::Cow<'a, str>)> {
        let sequence = self.sequence.map(|sequence| sequence.to_string().into());
        let named = [("queue", queue), ("group", self.group.as_deref()), ("stream", self.stream.as_deref())];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value?.into())));
        named.chain(sequence.map(|sequence| ("sequence", sequence))).collect()
    }
}

/// The admin address that was named, or that of the configuration.
fn address(named: Option<&str>, context: &Context) -> Result<String, Failure> {
    if let Some(named) = named {
        let url = if named.contains("://") { named.to_owned() } else { format!("http://{named}") };
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let configured = context.load()?.config.server.admin;
    let address = configured.ok_or_else(|| {
        Failure::of(Kind::Usage, "the server's admin address is not known: name it with --admin, or set server.admin")
    })?;
    Ok(format!("http://{address}"))
}

async fn ask<T: DeserializeOwned>(
    admin: &str,
    method: Method,
    path: &str,
    parameters: &[(&str, impl AsRef<str>)],
) -> Result<T, Failure> {
    let unreachable =
        |error: TransportError| Failure::of(Kind::Unavailable, format!("{admin}: {error}")).because(error);
    let query: String = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters.iter().map(|(name, value)| (*name, value.as_ref())))
        .finish();
    let options = HttpOptions { tls: admin.starts_with("https"), ..HttpOptions::default() };
    let transport = HttpTransport::new(&options).map_err(unreachable)?;
    let request = Request::builder().method(method).uri(format!("{admin}{path}?{query}")).body(Bytes::new());
    let request = request.map_err(|error| Failure::of(Kind::Usage, format!("--admin {admin}: {error}")))?;
    let answer = transport.send(request, LONGEST).await.map_err(unreachable)?;
    let (status, body) = (answer.status(), answer.body());
    match serde_json::from_slice(body) {
        Ok(told) if status.is_success() => Ok(told),
        _ => {
            let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let said = said["error_msg"].as_str().unwrap_or("it is not the admin address of a server");
            Err(Failure::new(format!("{admin} answered {status}: {said}")))
        }
    }
}
