//! [`Credentials`]: what an application is sent besides messages, and may be secret.

use http::HeaderMap;

use crate::{
    config::{HttpHandler, Secret},
    sidecar::deliver::http::{redaction::Redaction, request},
};

/// The headers and the signing key of a handler.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// The headers of all requests.
    pub(super) headers: HeaderMap,
    pub(super) signature_key: Option<Secret>,
    /// Keeps them out of what the application answers.
    pub(super) redaction: Redaction,
}

impl Credentials {
    /// Those in the settings of a handler.
    pub(crate) fn of(settings: &HttpHandler) -> Self {
        let mut headers = HeaderMap::new();
        settings.headers.iter().for_each(|(name, value)| request::put_secret(&mut headers, name, value.expose()));
        Self { headers, signature_key: settings.signature_key.clone(), redaction: Redaction::of(settings) }
    }

    /// The same where others were in force before: requests with those may be on their way.
    pub(crate) fn behind(mut self, before: &Self) -> Self {
        self.redaction = self.redaction.and(&before.redaction);
        self
    }
}
