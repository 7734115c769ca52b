//! `check`: is a configuration right, and with `--online`, are the things it names there?

mod mqs;
mod online;

#[cfg(feature = "postgres")]
use std::path::Path;

use clap::Args;
#[cfg(feature = "postgres")]
use dms_protocol::internal::postgres_tls::Tls as Authorities;
use serde_json::json;

use crate::{
    cli::support::{
        confirm::counted,
        context::{Context, adopt_project},
        failure::{ExitKind, Failure},
        logging,
    },
    config::{Config, Dialect, Publisher, Worker, server_settings, worker_settings::idle_worker},
    sidecar::{self, assemble::connect},
};
use dms_server::Tls;
use dms_worker::client::Client;

/// Options of `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker check                          the configuration that `run` would use
  dms-worker check -c config.yaml --online  also credentials, queues and groups")]
pub(crate) struct CheckArgs {
    /// Also ask the service: credentials, rights, queues, groups, parking queues, dead letters, clock
    #[arg(long)]
    online: bool,
}

/// Checks the configuration.
pub(crate) async fn run(args: CheckArgs, context: &Context) -> Result<(), Failure> {
    let mut loaded = context.load()?;
    if args.online {
        adopt_project(&mut loaded);
    }
    let config = loaded.config;
    certificates(&config)?;
    logging::check(&config.log)?;
    if args.online {
        // Asking says the same warnings, beside the worker that they are about.
        quietly(|| sidecar::check(&config))?;
    }
    let is_asked = args.online && online(&config, context).await?;
    if !is_asked {
        sidecar::check(&config)?;
    }
    // Over the other API, which lists nothing, a topic can only be found missing.
    let lists = config.dms.dialect == Dialect::Dms;
    let text = format!(
        "ok: {}, {}, endpoint {}{}",
        counted(config.workers.len(), "worker"),
        counted(config.publishers.len(), "publisher"),
        if is_asked { connect::endpoint(&config) } else { config.dms.endpoint.to_string() },
        if is_asked && lists { ", all there" } else { "" }
    );
    let json = json!({
        "ok": true,
        "workers": config.workers.len(),
        "publishers": config.publishers.len(),
        "endpoint": config.dms.endpoint.to_string(),
        "online": args.online,
    });
    Ok(context.printer().print(&text, &json)?)
}

/// Opens every certificate that a listener would show, and those of the authorities of PostgreSQL.
fn certificates(config: &Config) -> Result<(), Failure> {
    let mqs = config.server.mqs.as_ref().and_then(|mqs| mqs.tls.clone());
    let own = [
        ("server.tls".to_owned(), &config.server.tls),
        ("server.mqs.tls".to_owned(), &mqs),
        ("server.admin_tls".to_owned(), &config.server.admin_tls),
        ("server.admin.tls".to_owned(), &config.server.admin.0.tls),
        ("admin.tls".to_owned(), &config.admin.tls),
    ];
    let publishers = config.publishers.iter().enumerate();
    let publishers = publishers.map(|(place, publisher)| (format!("publishers[{place}].tls"), &publisher.tls));
    for (key, tls) in own.into_iter().chain(publishers) {
        let Some(tls) = tls else { continue };
        Tls::load(server_settings::tls(tls))
            .map_err(|error| Failure::of(ExitKind::Config, format!("{key}: TLS: {error}")))?;
    }
    #[cfg(feature = "postgres")]
    if let Some(postgres) = server_settings::postgres(&config.server) {
        Authorities::load(postgres.ca_file.as_deref()).map_err(|reason| {
            let file = postgres.ca_file.as_deref().unwrap_or(Path::new("")).display();
            Failure::of(ExitKind::Config, format!("server.postgres.ca_file: {file} cannot be used: {reason}"))
        })?;
        // Also whether the other servers will accept it, because they are the only ones that see it.
        postgres
            .check_certificate()
            .map_err(|error| Failure::of(ExitKind::Config, format!("server.cluster.tls: TLS: {error}")))?;
    }
    Ok(())
}

/// Finds every queue and group that is named. A configuration with its own server is compared with the one that runs. Returns
/// whether a service was asked: the configuration's own server may not run yet.
async fn online(config: &Config, context: &Context) -> Result<bool, Failure> {
    // By a client of its own, because one whose key was refused asks nothing more for a while.
    if config.dms.is_embedded() && connect::to_service(config)?.quotas().await.is_err_and(|error| error.is_connect()) {
        let endpoint = connect::endpoint(config);
        context.say(&format!(
            "nothing was asked: the configuration has a server of its own, and none runs at {endpoint} (`serve` and `run` start it; --endpoint names another service)"
        ));
        return Ok(false);
    }
    // Before anything else, because a clock that is far off gets every signed request refused.
    online::skew(config).await.iter().for_each(|skew| context.say(skew));
    if config.dms.dialect == Dialect::Mqs {
        return mqs::online(config, context).await.map(|()| true);
    }
    let client = connect::to_service(config)?;
    let mut missing = Vec::new();
    for worker in &config.workers {
        missing.extend(find(&client, worker, config, context).await?);
    }
    for queue in config.publishers.iter().flat_map(Publisher::queues) {
        missing.extend(absent(client.find_queue(queue).await.map(drop), "publisher", queue)?);
    }
    for schedule in &config.server.schedules {
        let is_made = config.server.queues.iter().any(|queue| queue.name == schedule.queue);
        if !is_made
            && let Some(error) = absent(client.find_queue(&schedule.queue).await.map(drop), "schedule", &schedule.name)?
        {
            missing.push(format!(
                "{error}: create the queue, or list it in server.queues; the schedule starts by itself then"
            ));
        }
    }
    if !config.has_work() {
        client.queues().await?;
    }
    let found = online::findings(&client, config).await?;
    found.remarks.iter().for_each(|remark| context.say(remark));
    missing.extend(found.mistakes);
    if missing.is_empty() { Ok(true) } else { Err(Failure::new(missing.join("\n  "))) }
}

/// Finds what a worker needs, and says what will happen with it that is likely not meant.
async fn find(client: &Client, worker: &Worker, config: &Config, context: &Context) -> Result<Option<String>, Failure> {
    let label = worker.label();
    let unsuitable = |error: &dyn std::fmt::Display| Failure::of(ExitKind::Config, format!("worker {label}: {error}"));
    let idle = quietly(|| idle_worker(client, worker, config)).map_err(|error| unsuitable(&error))?;
    match idle.check().await {
        Ok(()) => {
            idle.warnings().iter().for_each(|warning| context.say(&format!("worker {label}: {warning}")));
            Ok(None)
        }
        Err(error) => match error.client_error().cloned() {
            Some(error) => absent(Err(error), "worker", &label),
            None => Err(unsuitable(&error)),
        },
    }
}

/// Does something without logs.
fn quietly<T>(check: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), check)
}

/// Collects missing queues and groups; any other error ends the check.
fn absent(found: Result<(), dms_worker::client::Error>, kind: &str, name: &str) -> Result<Option<String>, Failure> {
    match found {
        Ok(()) => Ok(None),
        Err(error) if error.is_not_found() => Ok(Some(format!("{kind} {name}: {error}"))),
        Err(error) => Err(error.into()),
    }
}
