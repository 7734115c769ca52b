//! `run`: the workers and publishers of a configuration, until a signal.

use std::process::ExitCode;

use clap::Args;

use super::{
    context::Context,
    failure::{Failure, Kind},
    logging::{self, LogFilter},
    notify,
    signals::{HangUps, until_signal},
};
use crate::{
    config::{Config, load},
    sidecar::{Controls, Ended, Sidecar, SidecarError, children, embed},
};

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker run                        ./config.yaml
  dms-worker run -c orders.yaml         another one
  DMS_WORKER_WORKERS__0__CONCURRENCY=64 dms-worker run

The first SIGTERM or SIGINT ends it in order within shutdown.grace, a second one at once. SIGHUP reads the configuration
again: log.filter and the concurrency of workers change at once, the log says what needs a restart. A service that is not there is
waited for; one that refuses the key ends the process with exit code 77.")]
pub(crate) struct RunArgs {}

/// Runs the sidecar.
pub(crate) async fn run(_: RunArgs, context: &Context) -> Result<ExitCode, Failure> {
    let config = load(&context.request(true))?.config;
    let filter = logging::for_service(&context.global, context.colored(), &config.log)?;
    let mut hang_ups = HangUps::listen();
    let by_hand = filter.clone();
    let sidecar = Sidecar::start(config.clone()).await?.log_control(move |filter| by_hand.set(filter));
    let mut live = Live { config: config.clone(), controls: sidecar.controls(), filter };
    let reload = async {
        loop {
            hang_ups.next().await;
            live.reload(context);
        }
    };
    let work = until_signal(async |stop| {
        // Signals are listened for by now: whoever reads this may send one at once.
        announce(&sidecar, &config);
        notify::ready();
        let ended = sidecar.run(stop).await?;
        report(&ended, context);
        if ended.drained {
            return Ok(ExitCode::SUCCESS);
        }
        let text = format!("not everything was finished within {}: it comes again", config.shutdown.grace);
        Err(Failure::of(Kind::Drain, text))
    });
    tokio::select! {
        ended = work => ended,
        never = reload => never,
        never = children::reap_orphans() => match never {},
    }
}

fn report(ended: &Ended, context: &Context) {
    for worker in &ended.workers {
        let report = &worker.report;
        context.say(&format!(
            "dms-worker: {} ended: {} done, {} failed, {} acknowledged, {} come again",
            worker.name,
            report.done,
            report.failed + report.rejected + report.panicked + report.timed_out + report.interrupted,
            report.acknowledged,
            report.redelivered
        ));
    }
}

/// What is in force, and the means to change it.
struct Live {
    config: Config,
    controls: Controls,
    filter: LogFilter,
}

impl Live {
    /// Reads the configuration again and applies what can change: the log filter, and how many messages each worker may
    /// have in flight. A wrong one changes nothing.
    fn reload(&mut self, context: &Context) {
        let new = match load(&context.request(true)) {
            Ok(loaded) => loaded.config,
            Err(error) => return tracing::error!(%error, "the configuration was read again and not taken"),
        };
        if let Err(error) = self.filter.change(&context.global, &new.log) {
            return tracing::error!(%error, "the configuration was read again and not taken");
        }
        self.config.log.filter.clone_from(&new.log.filter);
        for worker in &new.workers {
            let old = self.config.workers.iter_mut().find(|old| old.label() == worker.label());
            if let Some(old) = old.filter(|old| old.concurrency != worker.concurrency) {
                old.concurrency = worker.concurrency;
                self.controls.set_concurrency(&worker.label(), worker.concurrency);
                tracing::info!(worker = worker.label(), concurrency = worker.concurrency, "changed");
            }
        }
        match restart_needed(&self.config, &new).as_slice() {
            [] => tracing::info!("the configuration was read again"),
            sections => tracing::warn!(
                sections = sections.join(", "),
                "the configuration was read again; these changes need a restart"
            ),
        }
    }
}

/// The sections in which two configurations differ.
fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let sections = [
        ("dms", old.dms == new.dms),
        ("server", old.server == new.server),
        ("workers", old.workers == new.workers),
        ("publishers", old.publishers == new.publishers),
        ("admin", old.admin == new.admin),
        ("shutdown", old.shutdown == new.shutdown),
        ("log", old.log == new.log),
    ];
    sections.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// The line that says what runs, and where.
fn announce(sidecar: &Sidecar, config: &Config) {
    let mut parts = vec![format!("running {}", sidecar.worker_names().join(", "))];
    if let Some(address) = sidecar.server_addr() {
        parts.push(format!("server on http://{address} ({})", embed::storage(&config.server)));
    }
    parts.extend(sidecar.publisher_addrs().iter().map(|address| format!("publisher on http://{address}")));
    parts.extend(sidecar.admin_addr().map(|address| format!("admin on http://{address}")));
    eprintln!("dms-worker: {}", parts.join("; "));
}

impl From<SidecarError> for Failure {
    fn from(error: SidecarError) -> Self {
        match error {
            SidecarError::Nothing => {
                Self::of(Kind::Config, format!("{error}; name a configuration with -c, or write a config.yaml"))
            }
            SidecarError::Settings(..) | SidecarError::Program(..) => Self::of(Kind::Config, error.to_string()),
            SidecarError::Server(error) => error.into(),
            SidecarError::Client(error) => error.into(),
            SidecarError::Worker(name, error) => match error.client_error() {
                Some(refused) => {
                    let failure = Self::from(refused.clone());
                    Self::of(failure.kind(), format!("worker {name}: {failure}")).because(error)
                }
                None => Self::of(Kind::Config, format!("worker {name}: {error}")),
            },
            other => Self::new(other.to_string()),
        }
    }
}
