//! `run`: the workers and publishers of a configuration, until a signal.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{
        service::{
            reload::LiveConfig,
            server_keys::{FileWatch, take, warn_of_kept},
            signals::{HangUps, until_signal},
            systemd,
        },
        support::{
            context::{Context, remark_on},
            failure::{Failure, Kind},
            logging, terminal,
        },
    },
    config::{Config, load},
    sidecar::{Controls, Sidecar, SidecarError, SidecarReport, assemble::server_config, deliver::program::process},
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

SIGHUP reloads the configuration. Applied at once: log.filter, certificates, secrets and their files, keys and users of an embedded \
server with their rights, and concurrency, max_in_flight_bytes, max_messages and rate_limit of workers. The log names changes that \
need a restart.

It waits for a service that cannot be reached, and for a missing queue or group (on_worker_failure). If the service refuses a key \
that has never worked, the process ends with exit code 77.")]
pub(crate) struct RunArgs {}

/// The sections that this command uses.
const SECTIONS: &[&str] =
    &["dms", "server", "workers", "on_worker_failure", "limits", "publishers", "outboxes", "admin", "shutdown", "log"];

/// Runs the sidecar.
pub(crate) async fn run(_: RunArgs, context: &Context) -> Result<ExitCode, Failure> {
    let loaded = load(&context.request(true))?;
    let (filter, traces) = logging::for_service(&context.global, context.colored(), &loaded.config.log)?;
    remark_on(&loaded);
    let config = loaded.config;
    descriptors::raise_limit();
    let mut hang_ups = HangUps::listen();
    let by_hand = filter.clone();
    let sidecar = Sidecar::start(config.clone()).await?.log_control(move |filter| by_hand.set(filter));
    let controls = sidecar.controls();
    let mut live = LiveConfig::new(config.clone(), filter, controls.certificates(), SECTIONS);
    let reload = async {
        let mut watch = FileWatch::default();
        loop {
            let files = controls.callers().map(|_| live.secret_files()).unwrap_or_default();
            tokio::select! {
                () = hang_ups.next() => {
                    live.reload(&context.request(true), context, |config, new| apply(&controls, config, new));
                }
                () = watch.changed(files) => {
                    if live.read_secrets_again(controls.callers()) {
                        live.change(|config| follow_server(&controls, config));
                    }
                }
            }
        }
    };
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
        Err(Failure::of(Kind::Drain, text))
    });
    let ended = tokio::select! {
        ended = work => ended,
        never = reload => never,
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

/// Changes the keys and users of the server in this process, the secrets, and the reloadable settings of each worker.
fn apply(controls: &Controls, config: &mut Config, new: &Config) {
    let taken = controls.callers().is_none_or(|callers| take(callers, &mut config.server, &new.server));
    if taken {
        renew(controls, config, new);
    } else {
        // The client goes on as the server in this process does.
        let mut new = new.clone();
        new.dms.auth.clone_from(&config.dms.auth);
        new.server.clone_from(&config.server);
        renew(controls, config, &new);
    }
    for worker in &new.workers {
        let old = config.workers.iter_mut().find(|old| old.label() == worker.label());
        match old.map(|old| controls.apply(old, worker)) {
            Some(Ok(true)) => tracing::info!(worker = worker.label(), "its limits are changed"),
            Some(Err(error)) => tracing::error!(worker = worker.label(), %error, "its limits are not changed"),
            Some(Ok(false)) | None => {}
        }
    }
}

/// Uses the secrets of another configuration.
fn renew(controls: &Controls, config: &mut Config, new: &Config) {
    match controls.renew_secrets(config, new) {
        Ok(changed) if changed.is_empty() => {}
        Ok(changed) => tracing::info!(keys = changed.join(", "), "other secrets are in use from now on"),
        Err(error) => tracing::warn!(%error, "the secrets were read again and not taken: those in force stay"),
    }
}

/// The client of the server in this process follows the keys of that.
fn follow_server(controls: &Controls, config: &mut Config) {
    let mut new = config.clone();
    if let Some(auth) = &config.dms.auth {
        let (auth, unusable) = auth.with_files_read_again();
        warn_of_kept(&unusable);
        new.dms.auth = Some(auth);
    }
    renew(controls, config, &new);
}

/// The line that says what runs, and where.
fn announce(sidecar: &Sidecar, config: &Config) {
    let mut parts = vec![format!("running {}", sidecar.worker_names().join(", "))];
    let storage = server_config::storage(&config.server);
    parts.extend(sidecar.server_url().map(|url| format!("server on {url} ({storage})")));
    parts.extend(sidecar.publisher_urls().iter().map(|url| format!("publisher on {url}")));
    parts.extend(sidecar.admin_url().map(|url| format!("admin on {url}")));
    terminal::tell(&format!("dms-worker: {}", parts.join("; ")));
}

impl From<SidecarError> for Failure {
    fn from(error: SidecarError) -> Self {
        match error {
            SidecarError::Nothing => {
                Self::of(Kind::Config, format!("{error}; name a configuration with -c, or write a config.yaml"))
            }
            SidecarError::Settings(..)
            | SidecarError::Program(..)
            | SidecarError::Http(..)
            | SidecarError::Client(_)
            | SidecarError::Tls(_) => Self::of(Kind::Config, error.to_string()),
            SidecarError::Server(error) => error.into(),
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
