//! [`Redaction`]: removes our secrets from an application's answer, which may repeat the request, before errors and dead letters
//! show it.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::config::HttpHandler;
use dms_protocol::internal::secret_url::{MASK, SecretUrl, credentials};
use dms_protocol::internal::text::lossy;

/// The shortest secret that is looked for: a shorter one is part of too many other words.
const MIN_SECRET_CHARS: usize = 6;

/// The secrets that an application is sent.
#[derive(Clone, Default)]
pub(super) struct Redaction(Vec<String>);

impl Redaction {
    /// The secrets in the settings of a handler.
    pub(super) fn of(settings: &HttpHandler) -> Self {
        let headers = settings.headers.values().flat_map(|value| {
            // `Bearer TOKEN`: the token may be repeated without its scheme.
            let value = value.expose();
            [Some(value), value.split_once(' ').map(|(_, credentials)| credentials)].into_iter().flatten()
        });
        let urls = std::iter::once(&settings.url).chain(&settings.health_url).flat_map(parts);
        let key = settings.signature_key.iter().map(crate::config::Secret::expose);
        let mut secrets: Vec<String> = headers.chain(key).map(str::to_owned).chain(urls).collect();
        secrets.retain(|secret| secret.len() >= MIN_SECRET_CHARS);
        Self(secrets).sorted()
    }

    /// These secrets and others.
    pub(super) fn and(mut self, others: &Self) -> Self {
        self.0.extend_from_slice(&others.0);
        self.sorted()
    }

    fn sorted(mut self) -> Self {
        // The longest first: one may be part of another.
        self.0.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.0.dedup();
        self
    }

    /// A text without the secrets.
    pub(super) fn apply(&self, text: Vec<u8>) -> Vec<u8> {
        if self.0.is_empty() || text.is_empty() {
            return text;
        }
        // Nearly always none of them is there.
        let mask = |text: String, secret: &String| match text.contains(secret) {
            true => text.replace(secret, MASK),
            false => text,
        };
        self.0.iter().fold(lossy(text), mask).into_bytes()
    }
}

/// The parts of a URL that may be secret: `user:password` and the query, as a whole and in parts, and the credentials as in
/// `Authorization: Basic`.
fn parts(url: &SecretUrl) -> impl Iterator<Item = String> {
    let of = |part: &str| {
        let pieces = part.split(['&', ':', '=']).map(str::to_owned);
        [part.to_owned(), STANDARD.encode(part)].into_iter().chain(pieces).collect::<Vec<_>>()
    };
    credentials(url.expose()).into_iter().flat_map(of)
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redaction({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Secret;

    #[test]
    fn what_an_application_was_sent_is_not_repeated() {
        let settings = HttpHandler {
            url: "http://user:password@app/x?key=querysecret&n=1".into(),
            headers: BTreeMap::from([("Authorization".to_owned(), Secret::new("Bearer t0k3n-long"))]),
            signature_key: Some(Secret::new("signing-key")),
            ..HttpHandler::default()
        };
        let redaction = Redaction::of(&settings);
        let text = b"no: Basic dXNlcjpwYXNzd29yZA==, Bearer t0k3n-long, t0k3n-long; password; querysecret n=1 signing-key \xff".to_vec();
        let shown = String::from_utf8_lossy(&redaction.apply(text)).into_owned();
        assert_eq!(shown, "no: Basic ***, ***, ***; ***; *** n=1 *** \u{fffd}");
        assert_eq!(Redaction::default().apply(b"as it is \xff".to_vec()), b"as it is \xff");
    }
}
