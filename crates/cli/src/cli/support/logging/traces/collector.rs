//! A collector whose address has a user in it: the exporter's own client would log that address as it is.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Url;

use dms_protocol::auth::canonical::decode;

/// An address without its user, and the header that says who the user is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    pub(crate) headers: HashMap<String, String>,
}

impl Collector {
    /// The collector that the environment names with a user; `None` where it names none, and the exporter reads the address itself.
    pub(crate) fn with_user(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut url: Url = match set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            Some(whole) => whole.parse().ok()?,
            None => format!("{}/v1/traces", set("OTEL_EXPORTER_OTLP_ENDPOINT")?.trim_end_matches('/')).parse().ok()?,
        };
        if url.username().is_empty() && url.password().is_none() {
            return None;
        }
        let user = [decode(url.username()), decode(url.password().unwrap_or_default())].join(&b':');
        url.set_username("").and_then(|()| url.set_password(None)).ok()?;
        let headers = HashMap::from([("authorization".to_owned(), format!("Basic {}", STANDARD.encode(user)))]);
        Some(Self { endpoint: url.into(), headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_becomes_a_header() {
        let found = |name: &'static str, value: &'static str| {
            Collector::with_user(|asked| (asked == name).then(|| value.to_owned()))
                .map(|found| (found.endpoint, found.headers["authorization"].clone()))
        };
        let expected = |endpoint: &str, user: &str| Some((endpoint.to_owned(), format!("Basic {user}")));
        let (all, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        // printf 'u:p+&=@w' | base64
        assert_eq!(found(all, "http://u:p+&=%40w@h:4318/"), expected("http://h:4318/v1/traces", "dTpwKyY9QHc="));
        assert_eq!(found(traces, "https://u@h/x"), expected("https://h/x", "dTo="));
        assert_eq!(found(all, "http://h:4318"), None);
        assert_eq!(found(all, ""), None);
    }
}
