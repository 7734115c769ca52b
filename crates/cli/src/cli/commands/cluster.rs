//! `cluster`: the servers that share the queues in PostgreSQL.

use std::{borrow::Cow, time::Duration};

use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cli::support::{admin_client::AdminClient, context::Context, failure::Failure, table::Table};
use dms_server::broker::ClusterStatus;

/// How often a drain looks whether it is done.
const LOOK: Duration = Duration::from_millis(500);
/// How many characters of an id are shown: enough to tell servers apart.
const SHOWN: usize = 8;

/// Options of `cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
    /// The admin address of any server of the cluster [config: server.admin]
    #[arg(long, value_name = "URL", global = true)]
    admin: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show the servers, which of them owns which shard, and the standbys of PostgreSQL
    #[command(after_help = "Examples:\n  dms-worker cluster status\n  dms-worker cluster status -o json")]
    Status,
    /// Hand a shard over to another server, where it stays
    #[command(after_help = "\
Examples:
  dms-worker cluster move 2                 to the server with the fewest shards
  dms-worker cluster move 2 --to 3f9a11c0")]
    Move {
        /// The number of the shard
        shard: u32,
        /// The server: its id or the beginning of it, its name, or its URL
        #[arg(long, value_name = "SERVER")]
        to: Option<String>,
    },
    /// Have a server give its shards away, before it is stopped; waits until it has none
    #[command(after_help = "\
Examples:
  dms-worker cluster drain                  the server at --admin
  dms-worker cluster drain 3f9a11c0
  dms-worker cluster drain 3f9a11c0 --undo")]
    Drain {
        /// The server: its id or the beginning of it, its name, or its URL
        server: Option<String>,
        /// Have it take shards again
        #[arg(long)]
        undo: bool,
        /// How many seconds to wait until it has no shard
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
}

#[derive(Debug, Deserialize)]
struct Moved {
    to: String,
}

#[derive(Debug, Deserialize)]
struct Drained {
    member: String,
}

/// Shows a cluster, or moves shards in it.
pub(crate) async fn run(args: ClusterArgs, context: &Context) -> Result<(), Failure> {
    let admin = AdminClient::find(args.admin.as_deref(), context)?;
    match args.command {
        ClusterCommand::Status => show(&ask_status(&admin).await?, context),
        ClusterCommand::Move { shard, to } => {
            let mut parameters = vec![("shard", Cow::from(shard.to_string()))];
            parameters.extend(to.as_deref().map(|to| ("to", to.into())));
            let Moved { to } = admin.ask(Method::POST, "/admin/cluster/move", &parameters).await?;
            context
                .done(&format!("shard {shard} is handed over to {}", short(&to)), &json!({ "shard": shard, "to": to }))
        }
        ClusterCommand::Drain { server, undo, timeout } => {
            let mut parameters = vec![("draining", Cow::from((!undo).to_string()))];
            parameters.extend(server.as_deref().map(|server| ("member", server.into())));
            let Drained { member } = admin.ask(Method::POST, "/admin/cluster/drain", &parameters).await?;
            let text = match undo {
                true => format!("{} takes shards again", short(&member)),
                false => {
                    await_empty(&admin, &member, Duration::from_secs(timeout)).await?;
                    format!("{} has no shard any more", short(&member))
                }
            };
            context.done(&text, &json!({ "member": member, "draining": !undo }))
        }
    }
}

async fn ask_status(admin: &AdminClient) -> Result<ClusterStatus, Failure> {
    admin.ask(Method::GET, "/admin/cluster", &[]).await
}

async fn await_empty(admin: &AdminClient, member: &str, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        let status = ask_status(admin).await?;
        let left = status.members.iter().find(|one| one.id == member).map_or(0, |one| one.shards.len());
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let text = format!("{} still has {left} shards after {} s", short(member), timeout.as_secs());
            return Err(Failure::new(text));
        }
        sleep(LOOK).await;
    }
}

fn show(status: &ClusterStatus, context: &Context) -> Result<(), Failure> {
    let mut table = Table::new(&["SERVER", "NAME", "ADDRESS", "STATE", "SHARDS"]);
    for member in &status.members {
        let mark = if member.id == status.this { "*" } else { "" };
        let shards: Vec<_> = member.shards.iter().map(ToString::to_string).collect();
        let address = member.url.strip_prefix("http://").unwrap_or(&member.url).to_owned();
        let shards = if shards.is_empty() { "-".to_owned() } else { shards.join(",") };
        table.row([
            format!("{}{mark}", short(&member.id)),
            member.name.clone(),
            if address.is_empty() { "-".to_owned() } else { address },
            member.state.clone(),
            shards,
        ]);
    }
    let mut text = format!("{table}\n");
    let mut shards = Table::new(&["SHARD", "OWNER", "EPOCH", "STATE", "NEXT"]);
    for shard in &status.shards {
        let name = |id: &Option<String>| id.as_deref().map_or_else(|| "-".to_owned(), |id| short(id).to_owned());
        let state = if shard.pinned { format!("{}, pinned", shard.state) } else { shard.state.clone() };
        let next = if shard.wanted == shard.owner { "-".to_owned() } else { name(&shard.wanted) };
        shards.row([shard.shard.to_string(), name(&shard.owner), shard.epoch.to_string(), state, next]);
    }
    text += &format!("{shards}\n");
    let mut standbys = Table::new(&["STANDBY", "SYNC", "LAG (BYTES)"]);
    for standby in &status.standbys {
        let unknown = || "unknown".to_owned();
        let sync = standby.sync_state.clone().unwrap_or_else(unknown);
        standbys.row([standby.name.clone(), sync, standby.lag_bytes.map_or_else(unknown, |lag| lag.to_string())]);
    }
    match status.standbys.is_empty() {
        true => text += "PostgreSQL has no standby, or its user may not see it\n",
        false => text += &standbys.to_string(),
    }
    Ok(context.printer().print(text.trim_end(), &json!(status))?)
}

/// The beginning of an id.
fn short(id: &str) -> &str {
    id.get(..SHOWN).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shortened() {
        assert_eq!(short("3f9a11c0-7425-40de-944b-e07fc1f90ae7"), "3f9a11c0");
        assert_eq!(short("3f"), "3f");
    }
}
