//! A session with one process: messages in, answers out, until one of both is over.

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
};

use crate::sidecar::deliver::{
    program::lines::{Ask, keeper::Over, table::Table},
    verdict::Outcome,
};

/// The longest line of an answer, in bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// Speaks with a process until it ends or hangs, or there are no more messages.
pub(super) async fn run(
    table: &Table,
    first: Ask,
    waiting: &mut mpsc::UnboundedReceiver<Ask>,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
) -> Over {
    let (lines, to_write) = mpsc::unbounded_channel();
    // Side by side: a process that writes before it reads, or does not read at all, must not hold up the rest.
    tokio::select! {
        over = take(table, first, waiting, lines) => over,
        () = write(stdin, to_write) => Over::Closed,
        () = read(table, stdout) => Over::Closed,
    }
}

/// Takes what the handler says.
async fn take(
    table: &Table,
    first: Ask,
    waiting: &mut mpsc::UnboundedReceiver<Ask>,
    lines: mpsc::UnboundedSender<String>,
) -> Over {
    let mut next = Some(first);
    while let Some(ask) = next {
        match ask {
            Ask::Message { id, line, given, reply } if !reply.is_closed() => {
                table.give(id, reply);
                // The handler may be gone in this moment.
                let _ = given.send(());
                // The writer ends with the session only.
                let _ = lines.send(line);
            }
            Ask::Message { .. } => {}
            Ask::Hangs(id) if table.give_up(id) => return Over::Hung,
            // Of a process that is gone.
            Ask::Hangs(_) => {}
        }
        next = waiting.recv().await;
    }
    Over::HandlerGone
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

async fn read(table: &Table, mut stdout: BufReader<ChildStdout>) {
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

fn answer(table: &Table, line: &[u8]) {
    let answer: Answer = match serde_json::from_slice(line) {
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
struct Answer {
    id: u64,
    outcome: Outcome,
    #[serde(default)]
    error: Option<String>,
}
