//! `run`: the workers and publishers of a configuration, until a signal.

use std::process::ExitCode;

use clap::Args;

#[cfg(feature = "dashboard")]
use crate::sidecar::ConfigurationSources;
use crate::{
    cli::{
        service::{
            file_watch::content,
            reload::Reloader,
            signals::{HangUps, until_signal},
            systemd,
        },
        support::{
            context::{Context, remark_on},
            failure::{ExitKind, Failure},
            logging, terminal,
        },
    },
    config::{Config, load},
    sidecar::{Sidecar, SidecarError, SidecarReport, deliver::program::process},
};
use dms_server::internal::descriptors;

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker run                        ./config.yaml
  dms-worker run -c orders.yaml         another one
  DMS_WORKER_WORKERS__0__CONCURRENCY=64 dms-worker run

The first SIGTERM or SIGINT stops it within shutdown.grace, a second one at once.

The configuration file, the files with secrets and the certificates are watched (reload.watch), and SIGHUP reads them again. Workers, \
publishers and outboxes that were added, removed or changed are started and stopped; the others go on. If anything is wrong, nothing is \
applied, and the log has every mistake. The log names changed keys that need a restart.

It waits for a service that cannot be reached, and for a missing queue or group (on_worker_failure). If the service refuses a key \
that has never worked, the process ends with exit code 77.")]
pub(crate) struct RunArgs {}

/// The sections that this command uses, besides `server` with an embedded server.
const SECTIONS: [&str; 10] =
    ["dms", "workers", "on_worker_failure", "limits", "publishers", "outboxes", "admin", "reload", "shutdown", "log"];

/// Runs the sidecar.
pub(crate) async fn run(_: RunArgs, context: &Context) -> Result<ExitCode, Failure> {
    let request = context.request(true);
    let hash = request.path().and_then(content);
    let loaded = load(&request)?;
    let (filter, traces) = logging::for_service(&context.global, context.colored(), &loaded.config.log)?;
    remark_on(&loaded);
    #[cfg(feature = "dashboard")]
    let sources = ConfigurationSources::of(&loaded);
    let config = loaded.config;
    descriptors::raise_limit();
    let hang_ups = HangUps::listen();
    let by_hand = filter.clone();
    let sidecar = Sidecar::start(config.clone()).await?.log_control(move |filter| by_hand.set(filter));
    let controls = sidecar.controls();
    let mut sections = SECTIONS.to_vec();
    sections.extend(config.dms.is_embedded().then_some("server"));
    let state = controls.configuration().clone();
    #[cfg(feature = "dashboard")]
    state.set_sources(sources);
    let loaded = (config.clone(), hash);
    let reloader = Reloader::new(loaded, || context.request(true), controls, filter, context, sections, state);
    let work = until_signal(async |stop| {
        // Signal handlers are installed by now, because a reader of this line may send a signal at once.
        announce(&sidecar, &config);
        systemd::ready();
        let ended = sidecar.run(stop).await?;
        report(&ended, context);
        if ended.drained {
            return Ok(ExitCode::SUCCESS);
        }
        let text = format!("not everything was finished within {}: the rest is redelivered", config.shutdown.grace);
        Err(Failure::of(ExitKind::Drain, text))
    });
    let ended = tokio::select! {
        ended = work => ended,
        never = reloader.run(hang_ups) => match never {},
        never = process::reap_orphans() => match never {},
    };
    traces.finish().await;
    ended
}

fn report(ended: &SidecarReport, context: &Context) {
    for worker in &ended.workers {
        let report = &worker.report;
        context.say(&format!(
            "dms-worker: {} ended: {} done, {} failed, {} acknowledged, {} redelivered",
            worker.name,
            report.done,
            report.failed + report.rejected + report.panicked + report.timed_out + report.interrupted,
            report.acknowledged,
            report.redelivered
        ));
    }
}

/// The line that says what runs, and where.
fn announce(sidecar: &Sidecar, config: &Config) {
    let mut parts = vec![format!("running {}", sidecar.worker_names().join(", "))];
    let storage = config.server.storage();
    parts.extend(sidecar.server_url().map(|url| format!("server on {url} ({storage})")));
    parts.extend(sidecar.publisher_urls().iter().map(|url| format!("publisher on {url}")));
    parts.extend(sidecar.admin_url().map(|url| format!("admin on {url}")));
    terminal::tell(&format!("dms-worker: {}", parts.join("; ")));
    #[cfg(feature = "dashboard")]
    if let Some(url) = sidecar.admin_url().filter(|_| config.admin.dashboard.enabled) {
        let base = config.admin.base_path.as_deref().unwrap_or_default().trim_end_matches('/');
        terminal::tell(&format!("dms-worker: dashboard on {url}{base}/ui/"));
    }
}

impl From<SidecarError> for Failure {
    fn from(error: SidecarError) -> Self {
        match error {
            SidecarError::Nothing => {
                Self::of(ExitKind::Config, format!("{error}; name a configuration with -c, or write a config.yaml"))
            }
            SidecarError::Settings(..)
            | SidecarError::Program(..)
            | SidecarError::Http(..)
            | SidecarError::Client(_)
            | SidecarError::Tls(_) => Self::of(ExitKind::Config, error.to_string()),
            SidecarError::Server(error) => error.into(),
            SidecarError::Worker(name, error) => match error.client_error() {
                Some(refused) => {
                    let failure = Self::from(refused.clone());
                    let text = format!("worker {name}: {failure}");
                    failure.saying(text).because(error)
                }
                None => Self::of(ExitKind::Config, format!("worker {name}: {error}")),
            },
            other => Self::new(other.to_string()),
        }
    }
}
