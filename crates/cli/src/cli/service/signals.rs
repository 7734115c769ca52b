//! SIGTERM and SIGINT: the first one ends a process in order, the second one at once.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::cli::{service::systemd, support::failure::Failure};

/// Runs `work` with a token that the first signal cancels. A second signal gives up waiting for it: exit code 130
/// after SIGINT, 143 after SIGTERM.
///
/// # Errors
/// Those of `work`, or that signals cannot be listened for.
pub(crate) async fn until_signal<F>(work: impl FnOnce(CancellationToken) -> F) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<ExitCode, Failure>>,
{
    let mut signals =
        Signals::listen().map_err(|error| Failure::new(format!("signals cannot be listened for: {error}")))?;
    let stop = CancellationToken::new();
    let work = work(stop.clone());
    let watchdog = systemd::watchdog();
    tokio::pin!(work, watchdog);
    tokio::select! {
        done = &mut work => return done,
        never = &mut watchdog => match never {},
        first = signals.next() => tracing::info!(signal = first.name, "stopping; a second signal stops at once"),
    }
    systemd::stopping();
    stop.cancel();
    tokio::select! {
        done = &mut work => done,
        never = &mut watchdog => match never {},
        second = signals.next() => {
            tracing::warn!(signal = second.name, "stopped at once: messages in flight are redelivered");
            Ok(ExitCode::from(second.exit_code))
        }
    }
}

/// Waits for the first SIGTERM, SIGINT or SIGHUP, after which a command finishes its work in progress; forever if no signal handler can be
/// installed. A second signal ends the process at once: exit code 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.
///
/// Signals count from the call on, and not only from the first poll of the future.
pub(crate) fn first() -> impl Future<Output = ()> {
    let signals = Signals::listen().map(|mut signals| {
        signals.hang_up();
        signals
    });
    async move {
        let Ok(mut signals) = signals else { return std::future::pending().await };
        signals.next().await;
        tokio::spawn(async move {
            let second = signals.next().await;
            tracing::warn!(signal = second.name, "stopped at once: work in progress is not finished");
            #[allow(clippy::exit, reason = "work that hangs cannot be asked to end")]
            std::process::exit(second.exit_code.into());
        });
    }
}

/// SIGHUP: a process that stays reads its configuration again. From its making on, the signal does not end the process.
pub(crate) struct HangUps {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl HangUps {
    pub(crate) fn listen() -> Self {
        Self {
            #[cfg(unix)]
            signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    /// The next one; never where the system has none.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

#[derive(Clone, Copy, Debug)]
struct Received {
    name: &'static str,
    exit_code: u8,
}

const INTERRUPT: Received = Received { name: "SIGINT", exit_code: 130 };

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: HangUps,
}

#[cfg(unix)]
impl Signals {
    /// From here on the default action of both signals is off; as process 1 there is none to begin with.
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = HangUps { signals: None };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hang_up })
    }

    /// Listens for SIGHUP too, unless it is ignored, as under `nohup`.
    fn hang_up(&mut self) {
        if !is_hang_up_ignored() {
            self.hang_up = HangUps::listen();
        }
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => Received { name: "SIGTERM", exit_code: 143 },
            () = self.hang_up.next() => Received { name: "SIGHUP", exit_code: 129 },
        }
    }
}

/// Whether the process that started this one ignores SIGHUP. Only Linux tells without unsafe code.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The signals are bits, SIGHUP is the first.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    fn hang_up(&mut self) {}

    async fn next(&mut self) -> Received {
        // Without a console there is no signal to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        INTERRUPT
    }
}
