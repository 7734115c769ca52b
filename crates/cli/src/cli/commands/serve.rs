//! `serve`: the DMS server as a stand-alone process.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    cli::{
        service::{
            file_watch::content,
            reload::{Reloader, ServerAlone},
            signals::{HangUps, until_signal},
            systemd,
        },
        support::{
            context::{Context, remark_on},
            failure::Failure,
            logging, terminal,
        },
    },
    config::{Config, Request, load, server_settings},
    sidecar::ConfigurationState,
};
use dms_server::{Server, faults::FaultPlan, internal::descriptors};

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker serve                          on 127.0.0.1:9400, in memory
  dms-worker serve --data-dir ./dms-data    messages survive the process
  dms-worker serve --listen 127.0.0.1:0     on any free port, which it prints
  dms-worker serve --faults lost@send:0.05  with injected faults
  dms-worker serve -c server.yaml           keys, projects, queues, certificate

The first line on standard error has the address. Unlike other commands, serve does not read ./config.yaml by default, so that a server does not depend on the folder in which it is started.

The first SIGTERM or SIGINT stops it, a second one at once.

The configuration file, the files with secrets and the certificates are watched (reload.watch), and SIGHUP reads them again. Applied at once: log.filter, certificates, keys and users with their rights, server.admin_token, quotas, retention, some limits, and queues and groups that are missing. If anything is wrong, nothing is applied, and the log has every mistake. The log names changed keys that need a restart.")]
pub(crate) struct ServeArgs {
    /// Where the API is served [config: server.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where health and metrics are served; outside of loopback, server.admin_token and server.admin_tls are required [config: server.admin]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Data directory; without it, messages are kept in memory [config: server.data_dir]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Inject faults with probabilities, to test clients, as in seed=7,latency=200ms:0.1,lost@send:0.02; also error, throttle,
    /// reset, duplicate, expired, partial
    #[arg(long, value_name = "PLAN")]
    faults: Option<FaultPlan>,
}

/// Serves until a signal.
pub(crate) async fn run(args: ServeArgs, context: &Context) -> Result<ExitCode, Failure> {
    let request = || request(&args, context);
    let first = request();
    let hash = first.path().and_then(content);
    let loaded = load(&first)?;
    let (filter, traces) = logging::for_service(&context.global, context.colored(), &loaded.config.log)?;
    remark_on(&loaded);
    let config = loaded.config;
    let faults = args.faults.clone().unwrap_or_default();
    if !faults.rules.is_empty() {
        tracing::warn!(seed = faults.seed, rules = faults.rules.len(), "this server fails on purpose");
    }
    descriptors::raise_limit();
    let hang_ups = HangUps::listen();
    let server = Server::bind(server_settings::settings(&config.server).faults(faults)).await?;
    let parts = ServerAlone { server: server.handle(), certificates: server.certificates().cloned().collect() };
    let state = ConfigurationState::default();
    let metrics = state.clone();
    server.add_metrics(move || metrics.metrics());
    let sections = vec!["server", "reload", "log"];
    let reloader = Reloader::new((config.clone(), hash), request, parts, filter, context, sections, state);
    let work = until_signal(async |stop| {
        // Signal handlers are installed by now, because a reader of this line may send a signal at once.
        announce(&server, &config);
        systemd::ready();
        server.run(stop.cancelled_owned()).await?;
        Ok(ExitCode::SUCCESS)
    });
    let ended = tokio::select! {
        ended = work => ended,
        never = reloader.run(hang_ups) => match never {},
    };
    traces.finish().await;
    ended
}

/// The layers of the configuration. SIGHUP reads them again.
fn request(args: &ServeArgs, context: &Context) -> Request {
    let flags = [
        ("--listen", "server.listen", args.listen.map(|address| address.to_string())),
        ("--admin", "server.admin", args.admin.map(|address| address.to_string())),
        ("--data-dir", "server.data_dir", args.data_dir.as_ref().map(|dir| dir.display().to_string())),
    ];
    flags.into_iter().fold(context.request(false), |request, (flag, key, value)| match value {
        Some(value) => request.flag(flag, key, value),
        None => request,
    })
}

/// The one line that says that the server is ready, and where. Whatever starts a server may wait for it.
fn announce(server: &Server, config: &Config) {
    let admin = server.admin_url().map(|url| format!(", admin on {url}"));
    let mqs = server.mqs_url().map(|url| format!(", MQS on {url}"));
    let auth = if server.is_open() { ", open to any local caller" } else { "" };
    terminal::tell(&format!(
        "dms-worker: serving on {} ({}{auth}{}{})",
        server.url().unwrap_or_default(),
        config.server.storage(),
        admin.unwrap_or_default(),
        mqs.unwrap_or_default()
    ));
    #[cfg(feature = "dashboard")]
    if let Some(url) = server.dashboard_url() {
        terminal::tell(&format!("dms-worker: dashboard on {url}"));
        // A terminal is read by the user who started the server; a log file is kept, and read by others.
        if terminal::is_watched()
            && let Some(link) = server.dashboard_login_link()
        {
            terminal::tell(&format!("dms-worker: log in once, within 10 minutes: {link}"));
        }
    }
}
