//! One GET, as a health check makes it.

use std::time::Duration;

use http::StatusCode;
use reqwest::redirect::Policy;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The status that `url` answers with.
///
/// # Errors
/// When there is no answer within five seconds.
pub(crate) async fn get(url: &str) -> Result<StatusCode, reqwest::Error> {
    let client = reqwest::Client::builder().http1_only().redirect(Policy::none()).referer(false).timeout(TIMEOUT);
    // The container's own loopback is not behind a proxy.
    Ok(client.no_proxy().build()?.get(url).send().await?.status())
}
