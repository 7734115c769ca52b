//! [`Controls`]: what can be changed of a sidecar that runs.

use super::{
    settings::{max_messages, rate},
    throttle::Throttle,
};
use crate::{
    config,
    server::{Callers, Tls},
    worker::InvalidSettings,
};

/// What can be changed of a sidecar that runs.
#[derive(Clone, Debug)]
pub struct Controls {
    throttles: Vec<(String, Throttle)>,
    certificates: Vec<Tls>,
    callers: Option<Callers>,
}

impl Controls {
    pub(super) fn new(throttles: Vec<(String, Throttle)>, certificates: Vec<Tls>, callers: Option<Callers>) -> Self {
        Self { throttles, certificates, callers }
    }

    /// Sets how many messages a worker may have in flight. False where there is no such worker.
    pub fn set_concurrency(&self, worker: &str, messages: usize) -> bool {
        let found = self.throttles.iter().find(|(name, _)| name == worker);
        found.inspect(|(_, throttle)| throttle.concurrency(messages)).is_some()
    }

    /// Changes what can change of the worker that runs by `old`: `concurrency`, `max_in_flight_bytes`, `max_messages` and
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

    /// The certificates of everything that listens.
    pub fn certificates(&self) -> &[Tls] {
        &self.certificates
    }
}
