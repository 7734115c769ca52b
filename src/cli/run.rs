//! `run`: the workers and publishers of a configuration, until a signal.

use std::process::ExitCode;

use clap::Args;

use super::{
    context::Context,
    failure::{Failure, Kind},
    logging,
    signals::until_signal,
};
use crate::{
    config::{Config, load},
    sidecar::{Sidecar, SidecarError, embed},
};

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker run                        ./config.yaml
  dms-worker run -c orders.yaml         another one
  DMS_WORKER_WORKERS__0__CONCURRENCY=64 dms-worker run

The first SIGTERM or SIGINT ends it in order within shutdown.grace, a second one at once. A service that is not there is
waited for; one that refuses the key ends the process with exit code 77.")]
pub(crate) struct RunArgs {}

/// Runs the sidecar.
pub(crate) async fn run(_: RunArgs, context: &Context) -> Result<ExitCode, Failure> {
    let config = load(&context.request(true))?.config;
    logging::for_service(&context.global, context.colored(), &config.log)?;
    let sidecar = Sidecar::start(config.clone()).await?;
    announce(&sidecar, &config);
    until_signal(async |stop| {
        let ended = sidecar.run(stop).await?;
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
        if ended.drained {
            return Ok(ExitCode::SUCCESS);
        }
        let text = format!("not everything was finished within {}: it comes again", config.shutdown.grace);
        Err(Failure::of(Kind::Drain, text))
    })
    .await
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
            SidecarError::Settings(..) => Self::of(Kind::Config, error.to_string()),
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
