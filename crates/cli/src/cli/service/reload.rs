//! Reloading the configuration on SIGHUP.

use std::path::PathBuf;

use crate::{
    cli::{
        service::server_keys,
        support::{context::Context, logging::LogFilter},
    },
    config::{Config, Request, load},
};
use dms_server::{Callers, Tls};

/// The configuration in force, and the means to change it.
pub(crate) struct LiveConfig {
    config: Config,
    filter: LogFilter,
    certificates: Vec<Tls>,
    /// The sections that this process uses.
    sections: &'static [&'static str],
}

impl LiveConfig {
    /// A process that runs by this configuration.
    pub(crate) fn new(
        config: Config,
        filter: LogFilter,
        certificates: &[Tls],
        sections: &'static [&'static str],
    ) -> Self {
        Self { config, filter, certificates: certificates.to_vec(), sections }
    }

    /// The files with the secrets of the server's keys and users.
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        self.config.server.secret_files()
    }

    /// Reads these files again and applies their secrets. Returns whether the server accepted them.
    pub(crate) fn read_secrets_again(&mut self, callers: Option<&Callers>) -> bool {
        callers.is_some_and(|callers| server_keys::read_again(callers, &mut self.config.server))
    }

    /// Changes the configuration in force.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Reads the configuration again and applies what can change: the log filter, certificates, and what `apply` copies
    /// from the new configuration into the one in force. What is left needs a restart, and is named. A wrong
    /// configuration changes nothing.
    pub(crate) fn reload(&mut self, request: &Request, context: &Context, apply: impl FnOnce(&mut Config, &Config)) {
        let new = match load(&request.clone().in_force(&self.config)) {
            Ok(loaded) => {
                server_keys::warn_of_kept(loaded.kept_secrets());
                loaded.config
            }
            Err(error) => return tracing::error!(%error, "the configuration was read again and not taken"),
        };
        if let Err(error) = self.filter.change(&context.global, &new.log) {
            return tracing::error!(%error, "the configuration was read again and not taken");
        }
        self.config.log.filter.clone_from(&new.log.filter);
        for certificate in &self.certificates {
            match certificate.reload() {
                Ok(()) => {
                    tracing::info!(certificate = %certificate.files().certificate.display(), "the certificate was read again")
                }
                Err(error) => tracing::error!(%error, "the certificate was read again and not taken"),
            }
        }
        apply(&mut self.config, &new);
        match self.restart_needed(&new).as_slice() {
            [] => tracing::info!("the configuration was read again"),
            sections => tracing::warn!(
                sections = sections.join(", "),
                "the configuration was read again; these changes need a restart"
            ),
        }
    }

    /// The sections in which another configuration differs from the one in force.
    fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let old = &self.config;
        let sections = [
            ("dms", old.dms == new.dms),
            ("server", old.server == new.server),
            ("workers", old.workers == new.workers),
            ("on_worker_failure", old.on_worker_failure == new.on_worker_failure),
            ("limits", old.limits == new.limits),
            ("publishers", old.publishers == new.publishers),
            ("outboxes", old.outboxes == new.outboxes),
            ("admin", old.admin == new.admin),
            ("shutdown", old.shutdown == new.shutdown),
            ("log", old.log == new.log),
        ];
        let changed = sections.into_iter().filter(|(_, same)| !same).map(|(name, _)| name);
        changed.filter(|name| self.sections.contains(name)).collect()
    }
}
