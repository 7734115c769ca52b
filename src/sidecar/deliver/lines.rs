//! Delivery to a program that stays: a line of JSON in and a line of JSON out for each message.
//!
//! In: the message with an `id`. Out, in any order: `{"id":1,"outcome":"done"}`, or `retry` or `reject` with an `error`.
//! A program that ends takes the messages that it has not answered with it: they come again, and it is started again.

use std::{
    collections::HashMap,
    fmt,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use super::command::{json, spawn};
use crate::worker::{Delivery, Handler, HandlerError};

/// A program that lived shorter than this is started again only after a pause.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);
/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Speaks with one process about all messages.
pub(crate) struct LinesDelivery {
    requests: mpsc::UnboundedSender<Request>,
}

struct Request {
    message: serde_json::Value,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<(), HandlerError>>;

impl LinesDelivery {
    /// A handler that speaks with `program`, which is started with the first message.
    pub(crate) fn new(program: Vec<String>) -> Self {
        let (requests, waiting) = mpsc::unbounded_channel();
        tokio::spawn(keep(program, waiting));
        Self { requests }
    }
}

#[async_trait]
impl Handler for LinesDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let (reply, answer) = oneshot::channel();
        let ended = || HandlerError::retry("the program ended before it answered");
        self.requests.send(Request { message: json(&delivery), reply }).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl fmt::Debug for LinesDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinesDelivery")
    }
}

/// Keeps a process running while there are messages for it, and the handler lives.
async fn keep(program: Vec<String>, mut waiting: mpsc::UnboundedReceiver<Request>) {
    let mut pause = Duration::from_millis(250);
    while let Some(first) = waiting.recv().await {
        if first.reply.is_closed() {
            continue;
        }
        let started = Instant::now();
        match spawn(&program, Stdio::piped()) {
            Ok(mut child) => {
                if let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) {
                    Session::default().run(first, &mut waiting, stdin, BufReader::new(stdout).lines()).await;
                }
                tracing::warn!(program = program[0], "the program ended; it is started again with the next message");
            }
            Err(error) => drop(first.reply.send(Err(error))),
        }
        pause =
            if started.elapsed() >= HEALTHY_LIFE { Duration::from_millis(250) } else { (pause * 2).min(LONGEST_PAUSE) };
        sleep(pause).await;
    }
}

/// The messages that one process has and has not answered.
#[derive(Default)]
struct Session {
    open: Mutex<HashMap<u64, Reply>>,
}

impl Session {
    /// Speaks until the process closes either end. Open replies are dropped with the session: their messages come again.
    async fn run(
        &self,
        first: Request,
        waiting: &mut mpsc::UnboundedReceiver<Request>,
        mut stdin: ChildStdin,
        mut stdout: Lines<BufReader<ChildStdout>>,
    ) {
        let write = async {
            let (mut id, mut next) = (0, Some(first));
            while let Some(request) = next {
                id += 1;
                if self.ask(id, request, &mut stdin).await.is_err() {
                    return;
                }
                next = waiting.recv().await;
            }
        };
        let read = async {
            while let Ok(Some(line)) = stdout.next_line().await {
                self.answer(&line);
            }
        };
        // Side by side: a process that writes before it reads must not wait for us.
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    }

    async fn ask(&self, id: u64, request: Request, stdin: &mut ChildStdin) -> std::io::Result<()> {
        let mut message = request.message;
        message["id"] = id.into();
        self.open().insert(id, request.reply);
        let mut line = message.to_string();
        line.push('\n');
        stdin.write_all(line.as_bytes()).await?;
        stdin.flush().await
    }

    fn answer(&self, line: &str) {
        let answer: Answer = match serde_json::from_str(line) {
            Ok(answer) => answer,
            Err(error) => return tracing::warn!(%error, "the program wrote a line that is no answer"),
        };
        let Some(reply) = self.open().remove(&answer.id) else {
            return tracing::warn!(id = answer.id, "the program answered a message that is not open");
        };
        let reason = answer.error.unwrap_or_else(|| "the program gave no reason".to_owned());
        // The message may have been given up meanwhile.
        let _ = reply.send(match answer.outcome {
            Said::Done => Ok(()),
            Said::Retry => Err(HandlerError::retry(reason)),
            Said::Reject => Err(HandlerError::reject(reason)),
        });
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Reply>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    outcome: Said,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Done,
    Retry,
    Reject,
}
