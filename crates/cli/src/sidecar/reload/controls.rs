//! [`Controls`]: changes to a running sidecar.

use crate::{
    config::{
        self, Config,
        worker_settings::{max_messages, rate},
    },
    sidecar::{backpressure::throttle::Throttle, reload::secrets::LiveSecrets},
};
use dms_server::{Callers, Tls};
use dms_worker::{client, worker::InvalidSettings};

/// Changes to a running sidecar.
#[derive(Clone, Debug)]
pub struct Controls {
    throttles: Vec<(String, Throttle)>,
    certificates: Vec<Tls>,
    callers: Option<Callers>,
    secrets: LiveSecrets,
}

impl Controls {
    pub(crate) fn new(
        throttles: Vec<(String, Throttle)>,
        certificates: Vec<Tls>,
        callers: Option<Callers>,
        secrets: LiveSecrets,
    ) -> Self {
        Self { throttles, certificates, callers, secrets }
    }

    /// Sets how many messages a worker may have in flight. False where there is no such worker.
    pub fn set_concurrency(&self, worker: &str, messages: usize) -> bool {
        let found = self.throttles.iter().find(|(name, _)| name == worker);
        found.inspect(|(_, throttle)| throttle.concurrency(messages)).is_some()
    }

    /// Applies the reloadable settings of a worker that runs with the settings `old`: `concurrency`, `max_in_flight_bytes`, `max_messages` and
    /// `rate_limit`, and writes it into `old`. False where nothing of it has changed, or there is no such worker.
    ///
    /// # Errors
    /// When a setting is not allowed, which a checked configuration has none of.
    pub fn apply(&self, old: &mut config::Worker, new: &config::Worker) -> Result<bool, InvalidSettings> {
        let changed = config::Worker {
            concurrency: new.concurrency,
            max_in_flight_bytes: new.max_in_flight_bytes,
            max_messages: new.max_messages,
            rate_limit: new.rate_limit,
            ..old.clone()
        };
        let found = self.throttles.iter().find(|(name, _)| *name == old.label());
        let Some((_, throttle)) = found.filter(|_| changed != *old) else { return Ok(false) };
        let worker = throttle.worker();
        if changed.rate_limit != old.rate_limit {
            worker.set_rate_limit(rate(&changed)?);
        }
        worker.set_max_messages(max_messages(&changed))?;
        worker.set_max_in_flight_bytes(changed.max_in_flight_bytes);
        throttle.concurrency(changed.concurrency);
        *old = changed;
        Ok(true)
    }

    /// The keys and users of the server in this process, if there is one.
    pub fn callers(&self) -> Option<&Callers> {
        self.callers.as_ref()
    }

    /// Uses the secrets of another configuration from now on: the credentials of the service, headers and signing keys of applications,
    /// tokens of publishers and the admin endpoint; and writes them into `old`. Says which have changed, by their keys.
    ///
    /// # Errors
    /// When the credentials cannot be used: then all that is in force stays.
    pub fn renew_secrets(&self, old: &mut Config, new: &Config) -> Result<Vec<String>, client::Error> {
        self.secrets.renew(old, new)
    }

    /// The certificates of everything that listens.
    pub fn certificates(&self) -> &[Tls] {
        &self.certificates
    }
}
