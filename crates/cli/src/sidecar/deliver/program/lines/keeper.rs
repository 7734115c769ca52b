//! [`Keeper`]: keeps a process running while there are messages for it, and the handler lives.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{
    io::BufReader,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::sidecar::{
    backpressure::throttle::Backpressure,
    deliver::program::{
        command::{ProgramCommand, spawn},
        lines::{
            open_messages::{Lost, OpenMessages},
            request::ProgramRequest,
            session::{self, SessionEnd},
        },
        process::Program,
    },
};

/// A program that lived shorter than this and answered nothing is started again only after a growing pause.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);
/// The first pause between two starts, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between two starts.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long a program may take to end after its input is closed, and again after SIGTERM.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Keeps a process running while there are messages for it, and the handler lives.
pub(super) struct Keeper {
    pub(super) run: ProgramCommand,
    pub(super) backpressure: Backpressure,
    pub(super) waiting: mpsc::UnboundedReceiver<ProgramRequest>,
    pub(super) table: Arc<OpenMessages>,
    pub(super) ended: CancellationToken,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        while let Some(first) = self.waiting.recv().await {
            if !first.is_open() {
                continue;
            }
            let (started, answers) = (Instant::now(), self.table.answers());
            match spawn(&self.run, Stdio::piped(), &self.backpressure) {
                Ok(program) => self.serve(program, first).await,
                // It has said so, and fetching is paused.
                Err(_) => first.refuse(),
            }
            let was_well = started.elapsed() >= HEALTHY_LIFE || self.table.answers() > answers;
            failures = if was_well { 0 } else { failures + 1 };
            let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures)).min(MAX_PAUSE);
            let _ = self.ended.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Speaks with a process until it ends, hangs, or the handler is gone.
    async fn serve(&mut self, mut program: Program, first: ProgramRequest) {
        let (Some(stdin), Some(stdout)) = program.pipes() else { return };
        let why = session::run(&self.table, first, &mut self.waiting, stdin, BufReader::new(stdout)).await;
        match why {
            SessionEnd::HandlerGone => end(program).await,
            SessionEnd::Closed | SessionEnd::Hung => {
                let name = &self.run.program[0];
                let open =
                    self.table.lose(|open| if why == SessionEnd::Hung { Lost::Behind } else { Lost::ended(open) });
                tracing::warn!(program = name, reason = %why, open, "the program is started again with the next message");
            }
        }
    }
}

/// Waits for a process to end after its input was closed; then sends SIGTERM, and then kills it.
async fn end(mut program: Program) {
    if timeout(EXIT_TIMEOUT, program.ended()).await.is_err() {
        program.terminate();
        // Killed when it is dropped.
        let _ = timeout(EXIT_TIMEOUT, program.ended()).await;
    }
}
