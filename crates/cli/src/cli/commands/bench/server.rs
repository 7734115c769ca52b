//! The server to measure: one in a child process, or one that runs already.

use std::{env, path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use crate::{
    cli::{
        commands::bench::{args::BenchArgs, usage::Process},
        support::{
            context::Context,
            failure::{ExitKind, Failure},
            terminal,
        },
    },
    config::load,
    sidecar::assemble::connect,
};
use dms_worker::{Dialect, client::Client};

/// The text of the ready line of `serve` before the address.
const SERVING: &str = "serving on ";
/// The text of that line before the address for MQS.
const SERVING_MQS: &str = "MQS on ";

/// How many queues the server that is started may have: as many as a sweep creates, and the queue of the run.
const QUEUES: u32 = 10_100;

/// A server to measure.
#[derive(Debug)]
pub(super) struct BenchServer {
    /// Talks to it.
    pub(super) client: Client,
    /// Its process, where it runs on this machine.
    pub(super) process: Option<Process>,
    child: Option<Child>,
}

impl BenchServer {
    /// Finds the server that the options name, or starts one.
    pub(super) async fn open(args: &BenchArgs, context: &Context) -> Result<Self, Failure> {
        match &args.against {
            Some(url) => {
                let config = load(&context.request(true).flag("--against", "dms.endpoint", url))?.config;
                let process = args.server_pid.map(Process::Other);
                let client = connect::to_service(&config)?;
                if client.dialect() == Dialect::Mqs && args.queue.is_none() {
                    let text = "ROMA Connect MQS cannot create or delete topics: name one with --queue; its messages are consumed";
                    return Err(Failure::of(ExitKind::Usage, text));
                }
                Ok(Self { client, process, child: None })
            }
            None => start(args.data_dir.clone(), context.dialect_flag()?).await,
        }
    }

    /// Ends a server that was started for this.
    pub(super) async fn close(self) {
        if let Some(mut child) = self.child {
            // As by a crash: its queues are deleted, and what else is in its directory is safe.
            let _ = child.kill().await;
        }
    }
}

/// Starts a server in a child process, so that the system accounts for its CPU time separately.
async fn start(data_dir: Option<PathBuf>, dialect: Dialect) -> Result<BenchServer, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot start a server: {error}")).because(error);
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    if let Some(dir) = &data_dir {
        command.arg("--data-dir").arg(dir);
    }
    // Its settings are the defaults, whatever the environment says of other servers.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DMS_WORKER_")) {
        command.env_remove(name);
    }
    if dialect == Dialect::Mqs {
        command.env("DMS_WORKER_SERVER__MQS__LISTEN", "127.0.0.1:0");
    }
    command.env("DMS_WORKER_SERVER__QUOTAS__QUEUES", QUEUES.to_string()).env("DMS_WORKER_LOG__FILTER", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let Some(errors) = child.stderr.take() else { return Err(Failure::new("the server has no standard error")) };
    let mut lines = BufReader::new(errors).lines();
    let url = announced_address(&mut lines, dialect).await?;
    // The pipe has to be read on, or a server with something to say would stop.
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            terminal::tell(&line);
        }
    });
    let process = child.id().map(Process::Other);
    let client = Client::builder(url, "local").dialect(dialect).build()?;
    Ok(BenchServer { client, process, child: Some(child) })
}

/// Waits for the server's ready line. Lines before it are the reason if the server does not start.
async fn announced_address(lines: &mut Lines<BufReader<ChildStderr>>, dialect: Dialect) -> Result<String, Failure> {
    let mark = if dialect == Dialect::Mqs { SERVING_MQS } else { SERVING };
    let mut said = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, rest)) = line.split_once(mark) {
            return Ok(rest.split([' ', ',', ')']).next().unwrap_or_default().to_owned());
        }
        said.push(line);
    }
    Err(Failure::new(format!("the server did not start: {}", said.join("\n"))))
}
