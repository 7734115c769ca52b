//! [`LiveSecrets`]: the secrets that a sidecar uses, replaced while it runs.

use crate::{
    config::{Config, HttpHandler, Secret},
    sidecar::{assemble::connect, deliver::http::credentials::Credentials},
};
use dms_protocol::internal::current::Current;
use dms_server::internal::bearer::{BearerAuth, BearerPair};
use dms_worker::client::{Client, Error};

/// Where the secrets of a sidecar are in use.
#[derive(Clone, Debug)]
pub(crate) struct LiveSecrets {
    pub(crate) client: Client,
    /// What the application of each worker is sent, by the worker's name.
    pub(crate) apps: Vec<(String, Current<Credentials>)>,
    /// In the order of the configuration.
    pub(crate) publishers: Vec<BearerAuth>,
    pub(crate) admin: BearerPair,
}

impl LiveSecrets {
    /// Uses the secrets of `new`, and writes them into `old`. Returns the keys of those that have changed.
    ///
    /// # Errors
    /// When the credentials of the service cannot be used; then nothing changes.
    pub(crate) fn renew(&self, old: &mut Config, new: &Config) -> Result<Vec<String>, Error> {
        let mut changed = Vec::new();
        self.renew_client(old, new, &mut changed)?;
        self.renew_apps(old, new, &mut changed);
        let publishers = self.publishers.iter().zip(old.publishers.iter_mut().zip(&new.publishers));
        for (place, (guard, (old, new))) in publishers.enumerate() {
            if old.listen == new.listen && renew_token(guard, &mut old.token, new.token.as_ref()) {
                changed.push(format!("publishers[{place}].token"));
            }
        }
        if renew_token(&self.admin.token, &mut old.admin.token, new.admin.token.as_ref()) {
            changed.push("admin.token".to_owned());
        }
        if renew_token(&self.admin.read_token, &mut old.admin.read_token, new.admin.read_token.as_ref()) {
            changed.push("admin.read_token".to_owned());
        }
        Ok(changed)
    }

    /// The credentials of the service. Where the configuration has none, they are those of the embedded server or of the environment,
    /// which are looked up again.
    fn renew_client(&self, old: &mut Config, new: &Config, changed: &mut Vec<String>) -> Result<(), Error> {
        if old.dms.auth == new.dms.auth && new.dms.auth.is_some() {
            return Ok(());
        }
        self.client.authorize_as(&connect::to_service(new)?);
        if old.dms.auth != new.dms.auth {
            old.dms.auth.clone_from(&new.dms.auth);
            changed.push("dms.auth".to_owned());
        }
        Ok(())
    }

    fn renew_apps(&self, old: &mut Config, new: &Config, changed: &mut Vec<String>) {
        for (name, credentials) in &self.apps {
            let old = old.workers.iter_mut().find(|worker| worker.label() == *name);
            let new = new.workers.iter().find(|worker| worker.label() == *name);
            let (Some(old), Some(new)) = (old, new) else { continue };
            let (Some(old), Some(new)) = (&mut old.handler.http, &new.handler.http) else { continue };
            let same = old.headers == new.headers && old.signature_key == new.signature_key;
            if !same {
                let settings = HttpHandler {
                    headers: new.headers.clone(),
                    signature_key: new.signature_key.clone(),
                    ..HttpHandler::clone(old)
                };
                credentials.set(Credentials::of(&settings).behind(&credentials.get()));
                *old = settings;
                changed.push(format!("handler.http of {name}"));
            }
        }
    }
}

/// Replaces a token. To set the first token or to remove it needs a restart.
fn renew_token(guard: &BearerAuth, old: &mut Option<Secret>, new: Option<&Secret>) -> bool {
    if old.as_ref() == new || !guard.renew(new.map(Secret::expose)) {
        return false;
    }
    *old = new.cloned();
    true
}
