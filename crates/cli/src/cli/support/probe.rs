//! One GET, as a health check makes it.

use std::{error::Error as StdError, path::PathBuf, time::Duration};

use http::StatusCode;
use jiff::Timestamp;
use reqwest::redirect::Policy;

use dms_protocol::internal::text::brief;
use dms_worker::internal::{certificate_in_words, certificates};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which certificates a probe accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Any, for whatever name: on the own machine, where the address says who answers, and nothing secret is sent.
    Any,
    /// Those of the authorities that the system trusts.
    System,
    /// Those of the authorities in this PEM file.
    Authorities(PathBuf),
}

/// The status that `url` answers with.
///
/// # Errors
/// When there is no answer within five seconds, or its certificate is not accepted, or the file of authorities cannot be read.
pub(crate) async fn get(url: &str, trust: &Trust) -> Result<StatusCode, String> {
    ask(url, trust).await.map(|answer| answer.status())
}

/// The time on the clock of the server at `url`, if it answers with one.
pub(crate) async fn date(url: &str, trust: &Trust) -> Option<Timestamp> {
    let answer = ask(url, trust).await.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

async fn ask(url: &str, trust: &Trust) -> Result<reqwest::Response, String> {
    let client = reqwest::Client::builder().http1_only().redirect(Policy::none()).referer(false).timeout(TIMEOUT);
    // The container's own loopback is not behind a proxy.
    let client = match trust {
        Trust::Any => client.no_proxy().tls_danger_accept_invalid_certs(true),
        Trust::System => client.no_proxy(),
        Trust::Authorities(file) => {
            client.no_proxy().tls_certs_only(certificates(file).map_err(|error| error.to_string())?)
        }
    };
    let client = client.build().map_err(|error| innermost(&error))?;
    client.get(url).send().await.map_err(|error| innermost(&error))
}

/// The cause in words. The layers above it have the URL, which may hold secrets.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {}", brief(TIMEOUT));
    }
    let mut cause: &dyn StdError = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        // Nothing is below it.
        Some(_) => "the request cannot be made: is it a URL?".to_owned(),
        None => certificate_in_words(&cause.to_string()).into_owned(),
    }
}
