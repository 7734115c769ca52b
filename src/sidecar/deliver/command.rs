//! Delivery to a program, one process per message: JSON on its standard input, the answer is its exit code.

use std::process::{ExitStatus, Stdio};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

use crate::worker::{Delivery, Handler, HandlerError};

/// The exit code for "again, later" (`EX_TEMPFAIL`).
const AGAIN: i32 = 75;
/// The exit code for "this message is wrong" (`EX_DATAERR`).
const WRONG: i32 = 65;

/// Starts a program for each message.
#[derive(Debug)]
pub(crate) struct CommandDelivery {
    program: Vec<String>,
}

impl CommandDelivery {
    /// A handler that starts `program`: its path and its arguments. No shell is involved.
    pub(crate) fn new(program: Vec<String>) -> Self {
        Self { program }
    }
}

/// A process of `program` with pipes to speak through. What it prints on standard error goes to ours. It ends with
/// the message: dropped, it is killed.
pub(super) fn spawn(program: &[String], stdout: Stdio) -> Result<Child, HandlerError> {
    let [path, arguments @ ..] = program else { return Err(HandlerError::retry("no program is configured")) };
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::inherit()).kill_on_drop(true);
    command.spawn().map_err(|error| HandlerError::retry(format!("{path} cannot be started: {error}")))
}

/// A message as a program reads it.
pub(super) fn json(delivery: &Delivery) -> Value {
    json!({
        "queue": delivery.queue(),
        "group": delivery.group(),
        "body": delivery.body().parse::<Value>().unwrap_or_default(),
        "attributes": delivery.attributes(),
        "tags": delivery.tags(),
        "attempt": delivery.attempt(),
        "deadline_ms": u64::try_from(delivery.remaining().as_millis()).unwrap_or(u64::MAX),
    })
}

#[async_trait]
impl Handler for CommandDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        // Standard output is for data of ours: what the program prints there is dropped.
        let mut child = spawn(&self.program, Stdio::null())?;
        if let Some(mut stdin) = child.stdin.take() {
            let mut text = json(&delivery).to_string();
            text.push('\n');
            // A program need not read its input: its exit code counts.
            let _ = stdin.write_all(text.as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        let status =
            child.wait().await.map_err(|error| HandlerError::retry(format!("the program is lost: {error}")))?;
        verdict(status)
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
