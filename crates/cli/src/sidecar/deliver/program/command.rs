//! Delivery to a program, one process per message: JSON on its standard input, the answer is its exit code.

use std::{
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{io::AsyncWriteExt, process::Command, time::sleep};

use crate::{
    message_json::object::Object,
    sidecar::{backpressure::throttle::Backpressure, deliver::program::process::Program},
};
use dms_protocol::{
    internal::{json::one_line, text::brief},
    message::MessageId,
};
use dms_worker::worker::{Delivery, Handler, HandlerError};

/// The exit code for "try again later", as in sysexits.h.
const EX_TEMPFAIL: i32 = 75;
/// The exit code for "this message is invalid", as in sysexits.h.
const EX_DATAERR: i32 = 65;
/// For how long nothing is fetched for a program that cannot be started.
const START_FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// A program as it is configured.
#[derive(Clone, Debug)]
pub(crate) struct ProgramCommand {
    /// Its path and its arguments.
    pub(crate) program: Vec<String>,
    /// The variables that it does not inherit.
    pub(crate) withheld: Arc<[OsString]>,
}

/// Starts a program for each message.
#[derive(Debug)]
pub(crate) struct CommandDelivery {
    run: ProgramCommand,
    timeout: Option<Duration>,
    backpressure: Backpressure,
}

impl CommandDelivery {
    /// A handler that starts this program. No shell is involved. The worker stops it after
    /// `timeout`, or when the lease ends. A program that cannot be started asks for a pause through `backpressure`.
    pub(crate) fn new(run: ProgramCommand, timeout: Option<Duration>, backpressure: Backpressure) -> Self {
        Self { run, timeout, backpressure }
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

/// A process of `program` with a pipe to its standard input. Its standard error is ours. It does not outlive
/// the message, because dropping it kills it.
///
/// # Errors
/// When it cannot be started, which is not the message's fault: it is handed back, and nothing is fetched for a while.
pub(super) fn spawn(run: &ProgramCommand, stdout: Stdio, backpressure: &Backpressure) -> Result<Program, HandlerError> {
    let [path, arguments @ ..] = &*run.program else { return Err(HandlerError::retry("no program is configured")) };
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::inherit());
    for name in &*run.withheld {
        command.env_remove(name);
    }
    Program::start(&mut command).map_err(|error| {
        tracing::error!(program = path, %error, pause = %brief(START_FAILURE_PAUSE), "the program cannot be started: nothing is fetched for a while");
        backpressure.pause_for(START_FAILURE_PAUSE);
        HandlerError::release(format!("the program cannot be started: {error}"))
    })
}

/// A message as a program reads it: one line, with the `id` that its answer names. The program has no longer than `timeout`.
pub(super) fn line(delivery: &Delivery, timeout: Option<Duration>, id: Option<u64>) -> String {
    let left = delivery.remaining().min(timeout.unwrap_or(Duration::MAX));
    let deadline = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let object = match id {
        Some(id) => Object::new().raw("id", &id.to_string()),
        None => Object::new(),
    };
    let object = object
        .text("queue", delivery.queue())
        .text("group", delivery.group())
        .raw("body", &one_line(delivery.body().as_str()))
        .raw("attributes", &one_line(&delivery.attributes().to_json()))
        .texts("tags", delivery.tags())
        .raw("attempt", &delivery.attempt().to_string())
        .raw("deadline_ms", &deadline.to_string())
        .some_text("message_id", delivery.id().as_ref().map(MessageId::as_str));
    object.finish() + "\n"
}

#[async_trait]
impl Handler for CommandDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        // Standard output is for data of ours: what the program prints there is dropped.
        let mut program = spawn(&self.run, Stdio::null(), &self.backpressure)?;
        let (stdin, _) = program.pipes();
        let text = line(&delivery, self.timeout, None);
        let write = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            stdin.write_all(text.as_bytes()).await?;
            stdin.shutdown().await
        };
        let nearly_over = self.nearly_over(&delivery);
        tokio::pin!(write, nearly_over);
        let (mut written, mut told) = (None, false);
        loop {
            tokio::select! {
                status = program.ended() => {
                    let lost = |error| HandlerError::retry(format!("the program is lost: {error}"));
                    let verdict = verdict(status.map_err(lost)?);
                    return match written {
                        _ if told && verdict.is_err() => {
                            Err(HandlerError::timed_out("the program did not end in time and was stopped"))
                        }
                        Some(Err(error)) if is_cut_short(&error) => Err(HandlerError::retry(format!("the program did not get the whole message: {error}"))),
                        _ => verdict,
                    };
                }
                result = &mut write, if written.is_none() => written = Some(result),
                () = &mut nearly_over, if !told => {
                    // Killed a moment later, when this handler is stopped.
                    told = true;
                    program.terminate();
                }
            }
        }
    }
}

/// Whether a message did not arrive. A program need not read its input: when it closes it, its exit code counts.
fn is_cut_short(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::BrokenPipe
}

fn verdict(status: ExitStatus) -> Result<(), HandlerError> {
    match status.code() {
        Some(0) => Ok(()),
        Some(EX_DATAERR) => {
            Err(HandlerError::reject(format!("the program rejected the message (exit code {EX_DATAERR})")))
        }
        Some(EX_TEMPFAIL) => Err(HandlerError::retry(format!("the program wants it again (exit code {EX_TEMPFAIL})"))),
        Some(code) => Err(HandlerError::retry(format!("the program failed (exit code {code})"))),
        None => Err(HandlerError::retry(format!("the program was killed ({status})"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use dms_protocol::message::{Attributes, Body};
    use dms_worker::worker::DeliveryBuilder;

    #[test]
    fn a_message_is_one_line_with_its_own_tokens() {
        let line = |body: &'static str| {
            let attributes = Attributes::raw(r#"{"n":1e3,"o":{"a":1,"a":2}}"#).unwrap();
            let delivery = DeliveryBuilder::new(Body::raw(body).unwrap()).attributes(attributes).tag("t").build();
            super::line(&delivery, Some(Duration::ZERO), Some(7))
        };
        let head = r#"{"id":7,"queue":"queue","group":"group","body":"#;
        let tail = r#","attributes":{"n":1e3,"o":{"a":1,"a":2}},"tags":["t"],"attempt":1,"deadline_ms":0}"#;
        for (body, written) in [
            (r#"{"price":1e400, "n":12345678901234567890123}"#, r#"{"price":1e400, "n":12345678901234567890123}"#),
            ("{\n  \"a b\\\"\" : [1,\r\n\t-0]\n}", r#"{"a b\"":[1,-0]}"#),
            ("null", "null"),
        ] {
            assert_eq!(line(body), format!("{head}{written}{tail}\n"));
        }
    }
}
