//! Delivery to a program, one process per message: JSON on its standard input, the answer is its exit code.

use std::{
    ffi::OsString,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command, time::sleep};

use crate::{
    sidecar::{children::Program, throttle::Brake},
    worker::{Delivery, Handler, HandlerError},
};

/// The exit code for "again, later" (`EX_TEMPFAIL`).
const AGAIN: i32 = 75;
/// The exit code for "this message is wrong" (`EX_DATAERR`).
const WRONG: i32 = 65;
/// For how long nothing is fetched for a program that cannot be started.
const CANNOT_START: Duration = Duration::from_secs(5);

/// A program as it is configured.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Its path and its arguments.
    pub(crate) program: Vec<String>,
    /// The variables that it does not inherit.
    pub(crate) withheld: Arc<[OsString]>,
}

/// Starts a program for each message.
#[derive(Debug)]
pub(crate) struct CommandDelivery {
    run: Run,
    timeout: Option<Duration>,
    brake: Brake,
}

impl CommandDelivery {
    /// A handler that starts this program. No shell is involved. The worker stops it after
    /// `timeout`, or when the lease ends. A program that cannot be started pulls the `brake`.
    pub(crate) fn new(run: Run, timeout: Option<Duration>, brake: Brake) -> Self {
        Self { run, timeout, brake }
    }

    /// Resolves a moment before the program is killed: a tenth of its time, at most a second.
    async fn nearly_over(&self, delivery: &Delivery) {
        let own = async {
            match self.timeout {
                Some(timeout) => sleep(timeout - (timeout / 10).min(Duration::from_secs(1))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = delivery.cancelled() => {}
            () = own => {}
        }
    }
}

/// A process of `program` with a pipe to its standard input. What it prints on standard error goes to ours. It ends with
/// the message: dropped, it is killed.
///
/// # Errors
/// When it cannot be started, which is not the message's fault: it is deferred, and nothing is fetched for a while.
pub(super) fn spawn(run: &Run, stdout: Stdio, brake: &Brake) -> Result<Program, HandlerError> {
    let [path, arguments @ ..] = &*run.program else { return Err(HandlerError::retry("no program is configured")) };
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::inherit());
    for name in &*run.withheld {
        command.env_remove(name);
    }
    Program::start(&mut command).map_err(|error| {
        tracing::error!(program = path, %error, pause = ?CANNOT_START, "the program cannot be started: nothing is fetched for a while");
        brake.pause_for(CANNOT_START);
        HandlerError::defer(CANNOT_START)
    })
}

/// A message as a program reads it, which has no longer than `timeout`.
pub(super) fn json(delivery: &Delivery, timeout: Option<Duration>) -> Value {
    let left = delivery.remaining().min(timeout.unwrap_or(Duration::MAX));
    json!({
        "queue": delivery.queue(),
        "group": delivery.group(),
        "body": delivery.body().parse::<Value>().unwrap_or_default(),
        "attributes": delivery.attributes().to_values(),
        "tags": delivery.tags(),
        "attempt": delivery.attempt(),
        "deadline_ms": u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    })
}

#[async_trait]
impl Handler for CommandDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        // Standard output is for data of ours: what the program prints there is dropped.
        let mut program = spawn(&self.run, Stdio::null(), &self.brake)?;
        let (stdin, _) = program.pipes();
        let mut text = json(&delivery, self.timeout).to_string();
        text.push('\n');
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program need not read its input: its exit code counts.
                let _ = stdin.write_all(text.as_bytes()).await;
                let _ = stdin.shutdown().await;
            }
        };
        let nearly_over = self.nearly_over(&delivery);
        tokio::pin!(write, nearly_over);
        let (mut written, mut told) = (false, false);
        loop {
            tokio::select! {
                status = program.ended() => {
                    let lost = |error| HandlerError::retry(format!("the program is lost: {error}"));
                    return verdict(status.map_err(lost)?);
                }
                () = &mut write, if !written => written = true,
                () = &mut nearly_over, if !told => {
                    // Killed a moment later, when this handler is stopped.
                    told = true;
                    program.terminate();
                }
            }
        }
    }
}

fn verdict(status: ExitStatus) -> Result<(), HandlerError> {
    match status.code() {
        Some(0) => Ok(()),
        Some(WRONG) => Err(HandlerError::reject(format!("the program rejected the message (exit code {WRONG})"))),
        Some(AGAIN) => Err(HandlerError::retry(format!("the program wants it again (exit code {AGAIN})"))),
        Some(code) => Err(HandlerError::retry(format!("the program failed (exit code {code})"))),
        None => Err(HandlerError::retry(format!("the program was killed ({status})"))),
    }
}
