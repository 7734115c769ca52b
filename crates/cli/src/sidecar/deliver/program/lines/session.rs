//! A session with one process: messages in, answers out, until one of both is over.

use std::fmt;

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
};

use crate::sidecar::deliver::{
    program::lines::{open_messages::OpenMessages, request::ProgramRequest},
    verdict::AppVerdict,
};

/// The longest line of an answer, in bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// The process has closed its input or its output: it ended, or soon will.
    Closed,
    /// It let a message run out of time and answers no other.
    Hung,
    /// There are no more messages.
    HandlerGone,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "it ended",
            Self::Hung => "it does not answer",
            Self::HandlerGone => "there are no more messages",
        })
    }
}

/// Speaks with a process until it ends or hangs, or there are no more messages.
pub(super) async fn run(
    table: &OpenMessages,
    first: ProgramRequest,
    waiting: &mut mpsc::UnboundedReceiver<ProgramRequest>,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
) -> SessionEnd {
    let (lines, to_write) = mpsc::unbounded_channel();
    // Side by side: a process that writes before it reads, or does not read at all, must not hold up the rest.
    tokio::select! {
        over = take(table, first, waiting, lines) => over,
        () = write(stdin, to_write) => SessionEnd::Closed,
        () = read(table, stdout) => SessionEnd::Closed,
    }
}

/// Takes what the handler says.
async fn take(
    table: &OpenMessages,
    first: ProgramRequest,
    waiting: &mut mpsc::UnboundedReceiver<ProgramRequest>,
    lines: mpsc::UnboundedSender<String>,
) -> SessionEnd {
    let mut next = Some(first);
    while let Some(ask) = next {
        match ask {
            ProgramRequest::Message { id, line, given, reply } if !reply.is_closed() => {
                table.give(id, reply);
                // The handler may be gone in this moment.
                let _ = given.send(());
                // The writer ends with the session only.
                let _ = lines.send(line);
            }
            ProgramRequest::Message { .. } => {}
            ProgramRequest::Hangs(id) if table.give_up(id) => return SessionEnd::Hung,
            // Of a process that is gone.
            ProgramRequest::Hangs(_) => {}
        }
        next = waiting.recv().await;
    }
    SessionEnd::HandlerGone
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(line.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    // The sender lives as long as the session.
    std::future::pending().await
}

async fn read(table: &OpenMessages, mut stdout: BufReader<ChildStdout>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stdout).take(MAX_LINE).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|bytes| bytes > 0) || !line.ends_with(b"\n") {
            return;
        }
        answer(table, &line);
    }
}

fn answer(table: &OpenMessages, line: &[u8]) {
    let answer: ProgramAnswer = match serde_json::from_slice(line) {
        Ok(answer) => answer,
        Err(error) => return tracing::warn!(%error, "the program wrote a line that is no answer"),
    };
    let Some(reply) = table.answered(answer.id) else {
        return tracing::warn!(id = answer.id, "the program answered a message that is not open");
    };
    // The message may have been given up meanwhile.
    let _ = reply.send(Ok(answer.outcome.verdict(answer.error)));
}

#[derive(Deserialize)]
struct ProgramAnswer {
    id: u64,
    outcome: AppVerdict,
    #[serde(default)]
    error: Option<String>,
}
