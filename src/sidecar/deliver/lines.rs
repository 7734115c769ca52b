//! Delivery to a program that stays: a line of JSON in and a line of JSON out for each message.
//!
//! In: the message with an `id`. Out, in any order: `{"id":1,"outcome":"done"}`, or `retry` or `reject` with an `error`.
//! A program that ends takes the messages that it has not answered with it: they come again, and it is started again. So
//! is one that hangs: a message ran out of time, and nothing was answered since it was asked. At the end its standard
//! input is closed, which is its sign to end too.

use std::{
    collections::HashMap,
    fmt,
    process::Stdio,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    command::{Run, line, spawn},
    outcome::Outcome,
};
use crate::{
    sidecar::{children::Program, throttle::Brake},
    worker::{Delivery, Handler, HandlerError},
};

/// A program that lived shorter than this is started again only after a pause.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);
/// The first pause between two starts, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a program may take to end once its input is closed, and again once it is told to.
const TO_END: Duration = Duration::from_secs(3);
/// The longest line of an answer, in bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// Speaks with one process about all messages.
pub(crate) struct LinesDelivery {
    ids: AtomicU64,
    asks: mpsc::UnboundedSender<Ask>,
    timeout: Option<Duration>,
    _ended: DropGuard,
}

/// What the process's keeper is told.
enum Ask {
    Message {
        id: u64,
        /// The message as a line, which has the id.
        line: String,
        reply: Reply,
    },
    /// The message's time is over: nobody waits for its answer any more.
    GivenUp(u64),
}

type Reply = oneshot::Sender<Result<(), HandlerError>>;

impl LinesDelivery {
    /// A handler that speaks with this program, which is started with the first message, and ended as one of `tasks` when the
    /// handler is dropped. The worker gives a message up after `timeout`, or when the lease ends.
    /// A program that cannot be started pulls the `brake`.
    pub(crate) fn new(run: Run, timeout: Option<Duration>, brake: Brake, tasks: &TaskTracker) -> Self {
        let (asks, waiting) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        tasks.spawn(Keeper { run, brake, waiting, ended: ended.clone() }.run());
        Self { ids: AtomicU64::new(1), asks, timeout, _ended: ended.drop_guard() }
    }
}

#[async_trait]
impl Handler for LinesDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let (reply, answer) = oneshot::channel();
        let ended = || HandlerError::retry("the program ended before it answered");
        let id = self.ids.fetch_add(1, Relaxed);
        // Dropped at its deadline, the message says so; one that is answered is not open by then.
        let _given_up = GivenUp { id, asks: &self.asks };
        let line = line(&delivery, self.timeout, Some(id));
        self.asks.send(Ask::Message { id, line, reply }).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl fmt::Debug for LinesDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinesDelivery")
    }
}

/// Tells that nobody waits for a message any more.
struct GivenUp<'a> {
    id: u64,
    asks: &'a mpsc::UnboundedSender<Ask>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        // Without a keeper there is nobody to tell.
        let _ = self.asks.send(Ask::GivenUp(self.id));
    }
}

/// Keeps a process running while there are messages for it, and the handler lives.
struct Keeper {
    run: Run,
    brake: Brake,
    waiting: mpsc::UnboundedReceiver<Ask>,
    ended: CancellationToken,
}

impl Keeper {
    async fn run(mut self) {
        let mut failures = 0;
        while let Some(first) = self.waiting.recv().await {
            if !first.is_open() {
                continue;
            }
            let started = Instant::now();
            match spawn(&self.run, Stdio::piped(), &self.brake) {
                Ok(program) => self.serve(program, first).await,
                Err(error) => first.refuse(error),
            }
            failures = if started.elapsed() >= HEALTHY_LIFE { 0 } else { failures + 1 };
            let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_PAUSE);
            let _ = self.ended.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Speaks with a process until it ends, hangs, or the handler is gone.
    async fn serve(&mut self, mut program: Program, first: Ask) {
        let (Some(stdin), Some(stdout)) = program.pipes() else { return };
        let session = Session::default();
        let why = session.run(first, &mut self.waiting, stdin, BufReader::new(stdout)).await;
        drop(session);
        match why {
            Over::HandlerGone => end(program).await,
            Over::Closed | Over::Hung => {
                let name = &self.run.program[0];
                tracing::warn!(program = name, reason = %why, "the program is started again with the next message");
            }
        }
    }
}

/// Lets a process end by itself: its input is closed by now. One that does not is told to, and then killed.
async fn end(mut program: Program) {
    if timeout(TO_END, program.ended()).await.is_err() {
        program.terminate();
        // Killed when it is dropped.
        let _ = timeout(TO_END, program.ended()).await;
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// The process has closed its input or its output: it ended, or soon will.
    Closed,
    /// It let a message run out of time and answers no other.
    Hung,
    /// There are no more messages.
    HandlerGone,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "it ended",
            Self::Hung => "it does not answer",
            Self::HandlerGone => "there are no more messages",
        })
    }
}

impl Ask {
    fn is_open(&self) -> bool {
        matches!(self, Self::Message { reply, .. } if !reply.is_closed())
    }

    fn refuse(self, error: HandlerError) {
        if let Self::Message { reply, .. } = self {
            // The message may have been given up meanwhile.
            let _ = reply.send(Err(error));
        }
    }
}

/// The messages that one process has and has not answered. Dropped, they come again.
#[derive(Default)]
struct Session {
    state: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    messages: HashMap<u64, (Instant, Reply)>,
    last_answer: Option<Instant>,
}

impl Session {
    async fn run(
        &self,
        first: Ask,
        waiting: &mut mpsc::UnboundedReceiver<Ask>,
        stdin: ChildStdin,
        stdout: BufReader<ChildStdout>,
    ) -> Over {
        let (lines, to_write) = mpsc::unbounded_channel();
        // Side by side: a process that writes before it reads, or does not read at all, must not hold up the rest.
        tokio::select! {
            over = self.take(first, waiting, lines) => over,
            () = write(stdin, to_write) => Over::Closed,
            () = self.read(stdout) => Over::Closed,
        }
    }

    /// Takes what the handler says.
    async fn take(
        &self,
        first: Ask,
        waiting: &mut mpsc::UnboundedReceiver<Ask>,
        lines: mpsc::UnboundedSender<String>,
    ) -> Over {
        let mut next = Some(first);
        while let Some(ask) = next {
            match ask {
                Ask::Message { id, line, reply } if !reply.is_closed() => {
                    self.open().messages.insert(id, (Instant::now(), reply));
                    // The writer ends with the session only.
                    let _ = lines.send(line);
                }
                Ask::Message { .. } => {}
                Ask::GivenUp(id) if self.hangs(id) => return Over::Hung,
                Ask::GivenUp(_) => {}
            }
            next = waiting.recv().await;
        }
        Over::HandlerGone
    }

    /// Whether a message that was given up had been open, and nothing was answered since it was asked.
    fn hangs(&self, id: u64) -> bool {
        let mut open = self.open();
        let asked = open.messages.remove(&id);
        asked.is_some_and(|(asked, _)| open.last_answer.is_none_or(|answered| answered < asked))
    }

    async fn read(&self, mut stdout: BufReader<ChildStdout>) {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut stdout).take(MAX_LINE).read_until(b'\n', &mut line).await;
            if !read.is_ok_and(|bytes| bytes > 0) || !line.ends_with(b"\n") {
                return;
            }
            self.answer(&line);
        }
    }

    fn answer(&self, line: &[u8]) {
        let answer: Answer = match serde_json::from_slice(line) {
            Ok(answer) => answer,
            Err(error) => return tracing::warn!(%error, "the program wrote a line that is no answer"),
        };
        let mut open = self.open();
        let Some((_, reply)) = open.messages.remove(&answer.id) else {
            return tracing::warn!(id = answer.id, "the program answered a message that is not open");
        };
        open.last_answer = Some(Instant::now());
        drop(open);
        // The message may have been given up meanwhile.
        let _ = reply.send(answer.outcome.verdict(answer.error));
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

#[derive(Deserialize)]
struct Answer {
    id: u64,
    outcome: Outcome,
    #[serde(default)]
    error: Option<String>,
}
