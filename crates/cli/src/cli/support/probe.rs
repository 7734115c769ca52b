//! One GET, as a health check makes it.

use std::time::Duration;

use http::StatusCode;
use reqwest::redirect::Policy;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The status that `url` answers with. A listener of our `own` is asked whoever signed its certificate and for whatever name:
/// nothing secret is said, and the address is known.
///
/// # Errors
/// When there is no answer within five seconds.
pub(crate) async fn get(url: &str, own: bool) -> Result<StatusCode, reqwest::Error> {
    let client = reqwest::Client::builder().http1_only().redirect(Policy::none()).referer(false).timeout(TIMEOUT);
    // The container's own loopback is not behind a proxy.
    let client = client.no_proxy().tls_danger_accept_invalid_certs(own);
    let answer = client.build()?.get(url).send().await;
    // The URL may hold secrets, and the caller knows it.
    answer.map(|answer| answer.status()).map_err(reqwest::Error::without_url)
}
