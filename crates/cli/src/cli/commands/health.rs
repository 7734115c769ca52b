//! `health`: is a process ready? For container health checks in images without curl.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::support::{
        admin_client::is_local,
        context::Context,
        failure::{ExitKind, Failure},
        probe::{self, Trust},
    },
    config::Config,
};
use dms_protocol::internal::secret_url::without_secrets;

/// Options of `health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker health                     the admin address of the configuration
  dms-worker health http://127.0.0.1:9402/readyz
  dms-worker health https://dms.example.com:9401 --ca-file ca.pem
  HEALTHCHECK CMD [\"dms-worker\", \"health\"]")]
pub(crate) struct HealthArgs {
    /// The address to ask; /readyz of admin.listen, or else of server.admin, by default
    url: Option<String>,
    /// PEM file of the authorities to trust; by default the system's, and any certificate of this machine
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Exit 0 when the answer is a success, 1 when it is another, 69 when there is none.
pub(crate) async fn run(args: HealthArgs, context: &Context) -> Result<(), Failure> {
    let (url, own) = match args.url {
        Some(url) => (with_path(&url), false),
        None => (usual(&context.load()?.config)?, true),
    };
    let trust = match args.ca_file {
        Some(file) => Trust::Authorities(file),
        None if own || is_local(&url) => Trust::Any,
        None => Trust::System,
    };
    let answer = probe::get(&url, &trust).await;
    let url = without_secrets(&url);
    let answer =
        answer.map_err(|error| Failure::of(ExitKind::Unavailable, format!("{url} cannot be reached: {error}")))?;
    if answer.is_success() {
        return Ok(context.printer().print("ready", &serde_json::json!({ "ready": true }))?);
    }
    Err(Failure::new(format!("{url} is not ready: it answered {answer}")))
}

/// The admin address of a configuration.
fn usual(config: &Config) -> Result<String, Failure> {
    let sidecars = config.admin.listen.map(|address| (address, config.admin.tls.is_some()));
    let servers = config.server.admin_listen().map(|address| (address, config.server.admin_tls().is_some()));
    let (address, encrypted) = sidecars.or(servers).ok_or_else(|| {
        Failure::of(ExitKind::Usage, "no admin address is configured: name a URL, or set admin.listen")
    })?;
    let scheme = if encrypted { "https" } else { "http" };
    Ok(format!("{scheme}://{address}/readyz"))
}

/// Adds `/readyz` to an address without a path, and `http://` to one without a scheme.
fn with_path(url: &str) -> String {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let bare = url.split_once("://").is_some_and(|(_, rest)| !rest.trim_end_matches('/').contains('/'));
    if bare { format!("{}/readyz", url.trim_end_matches('/')) } else { url }
}

#[cfg(test)]
mod tests {
    use super::with_path;

    #[test]
    fn an_address_alone_is_asked_for_readiness() {
        assert_eq!(with_path("127.0.0.1:9402"), "http://127.0.0.1:9402/readyz");
        assert_eq!(with_path("http://127.0.0.1:9402/"), "http://127.0.0.1:9402/readyz");
        assert_eq!(with_path("http://127.0.0.1:9402/livez"), "http://127.0.0.1:9402/livez");
    }
}
