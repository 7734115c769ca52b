//! [`Reloader`]: reads the configuration again on SIGHUP and when its files change, and applies it.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
};

#[cfg(feature = "dashboard")]
use crate::sidecar::ConfigurationSources;
use crate::{
    cli::{
        service::{
            file_watch::{Content, FileWatch, content, hexadecimal},
            signals::HangUps,
        },
        support::{
            context::Context,
            logging::{self, LogFilter},
        },
    },
    config::{Config, Loaded, Request, load},
    sidecar::{ConfigurationState, Controls, reload::server},
};
use dms_server::{ServerHandle, Tls};

/// The running parts that a configuration is applied to.
pub(crate) trait Reloadable {
    /// Applies a configuration, and writes the applied settings into the one in force.
    ///
    /// # Errors
    /// Returns all mistakes. Nothing has changed then.
    async fn apply(&self, in_force: &mut Config, new: &Config) -> Result<(), Vec<String>>;

    /// The certificates that are in use.
    fn certificates(&self) -> Vec<Tls>;

    /// The files of a configuration whose secrets are in use.
    fn secret_files(&self, config: &Config) -> Vec<PathBuf>;
}

impl Reloadable for Controls {
    async fn apply(&self, in_force: &mut Config, new: &Config) -> Result<(), Vec<String>> {
        Self::apply(self, in_force, new).await
    }

    fn certificates(&self) -> Vec<Tls> {
        Self::certificates(self)
    }

    fn secret_files(&self, config: &Config) -> Vec<PathBuf> {
        config.secret_files()
    }
}

/// A server alone, with its keys, users and certificates.
pub(crate) struct ServerAlone {
    pub(crate) server: ServerHandle,
    pub(crate) certificates: Vec<Tls>,
}

impl Reloadable for ServerAlone {
    async fn apply(&self, in_force: &mut Config, new: &Config) -> Result<(), Vec<String>> {
        server::take_callers(&self.server, &mut in_force.server, &new.server);
        server::take_settings(&self.server, &mut in_force.server, &new.server);
        server::create_queues(&self.server, &mut in_force.server, &new.server).await;
        server::set_schedules(&self.server, &mut in_force.server, &new.server).await;
        Ok(())
    }

    fn certificates(&self) -> Vec<Tls> {
        self.certificates.clone()
    }

    fn secret_files(&self, config: &Config) -> Vec<PathBuf> {
        config.server.secret_files()
    }
}

/// The configuration in force, and the means to change it.
pub(crate) struct Reloader<'a, R, F> {
    in_force: Config,
    request: F,
    file: Option<PathBuf>,
    parts: R,
    filter: LogFilter,
    context: &'a Context,
    /// The sections that this process uses.
    sections: Vec<&'static str>,
    state: ConfigurationState,
    config_watch: FileWatch,
    certificate_watch: FileWatch,
}

impl<'a, R: Reloadable, F: Fn() -> Request> Reloader<'a, R, F> {
    /// A process that runs with the configuration that `request` loaded. `hash` is the hash of its file when it was loaded.
    pub(crate) fn new(
        (config, hash): (Config, Content),
        request: F,
        parts: R,
        filter: LogFilter,
        context: &'a Context,
        sections: Vec<&'static str>,
        state: ConfigurationState,
    ) -> Self {
        let file = request().path().map(ToOwned::to_owned);
        state.started(file.clone(), hexadecimal(hash));
        #[cfg(feature = "dashboard")]
        state.set_config(&config);
        // The watch starts before the process is announced as ready, so that it notices every later change.
        let certificates = certificate_files(&parts).iter().map(|file| content(file)).collect();
        let (config_watch, certificate_watch) = (FileWatch::knowing(vec![hash]), FileWatch::knowing(certificates));
        Self {
            in_force: config,
            request,
            file,
            parts,
            filter,
            context,
            sections,
            state,
            config_watch,
            certificate_watch,
        }
    }

    /// Applies changes until the process ends.
    pub(crate) async fn run(mut self, mut hang_ups: HangUps) -> Infallible {
        // The first check counts as a change, because a secret may have changed since it was read.
        let mut secret_watch = FileWatch::default();
        loop {
            let watch = self.in_force.reload.watch;
            self.state.set_watched(watch);
            let watched = |files: Vec<PathBuf>| if watch { files } else { Vec::new() };
            let secrets = self.secret_files();
            let certificates = watched(certificate_files(&self.parts));
            let config = watched(self.file.iter().cloned().collect());
            tokio::select! {
                () = hang_ups.next() => {
                    let read = self.reload(true).await;
                    self.config_watch.know(vec![read]);
                }
                () = self.config_watch.changed(config) => drop(self.reload(false).await),
                () = secret_watch.changed(secrets) => self.read_secrets().await,
                () = self.certificate_watch.changed(certificates) => self.read_certificates(),
            }
        }
    }

    /// Reloads the configuration and applies it; on a signal, the certificates too. Returns the content that was read.
    async fn reload(&mut self, certificates: bool) -> Content {
        // Read before the file is loaded, so that the watch notices a change in between as different content.
        let hash = self.file.as_deref().and_then(content);
        match self.read_and_apply().await {
            Ok(new) => {
                if certificates {
                    self.read_certificates();
                }
                self.applied(hash, &new);
            }
            Err(error) => {
                self.state.failed(&error);
                tracing::error!(error, "the new configuration was rejected; the current one stays in use");
            }
        }
        hash
    }

    /// Loads the configuration and applies it. Returns it; keys that need a restart still differ from the one in force.
    async fn read_and_apply(&mut self) -> Result<Config, String> {
        let loaded = self.load()?;
        warn_of_kept(loaded.kept_secrets());
        #[cfg(feature = "dashboard")]
        let sources = ConfigurationSources::of(&loaded);
        let new = loaded.config;
        self.parts.apply(&mut self.in_force, &new).await.map_err(|mistakes| listed(&mistakes))?;
        self.filter.change(&self.context.global, &new.log).map_err(|error| error.to_string())?;
        self.in_force.log.filter.clone_from(&new.log.filter);
        self.in_force.reload = new.reload;
        #[cfg(feature = "dashboard")]
        self.state.set_sources(sources);
        Ok(new)
    }

    /// Records and logs an applied configuration, and the keys that need a restart.
    fn applied(&self, hash: Content, new: &Config) {
        let pending = self.restart_needed(new);
        self.state.reloaded(hexadecimal(hash), pending.clone());
        #[cfg(feature = "dashboard")]
        self.state.set_config(&self.in_force);
        match pending.as_slice() {
            [] => tracing::info!("the configuration was read again"),
            keys => {
                tracing::warn!(keys = keys.join(", "), "the configuration was read again; these changes need a restart")
            }
        }
    }

    /// Loads the configuration. An empty file is refused, because an editor may just be writing it.
    fn load(&self) -> Result<Loaded, String> {
        if let Some(file) = &self.file
            && std::fs::read(file).is_ok_and(|text| text.trim_ascii().is_empty())
        {
            return Err(format!("`{}` is empty", file.display()));
        }
        let request = (self.request)().in_force(&self.in_force);
        // The same file as before. When it was deleted, the default places must not be searched for another one.
        let request = match &self.file {
            Some(file) => request.file(file.clone()),
            None => request,
        };
        let loaded = load(&request).map_err(|error| error.to_string())?;
        logging::check(&loaded.config.log).map_err(|error| error.to_string())?;
        Ok(loaded)
    }

    /// Reloads the files with secrets. If a file cannot be used, its current secret stays in use, and the others change.
    async fn read_secrets(&mut self) {
        let (new, unusable) = self.in_force.with_files_read_again();
        warn_of_kept(&unusable);
        if let Err(mistakes) = self.parts.apply(&mut self.in_force, &new).await {
            let error = listed(&mistakes);
            return tracing::error!(error, "the new secrets were rejected; the current ones stay in use");
        }
        let pending = self.restart_needed(&new);
        if !pending.is_empty() {
            tracing::warn!(keys = pending.join(", "), "secrets have changed; these changes need a restart");
        }
    }

    fn read_certificates(&self) {
        for certificate in self.parts.certificates() {
            let file = certificate.files().certificate.display();
            match certificate.reload() {
                Ok(()) => tracing::info!(certificate = %file, "the certificate was read again"),
                Err(error) => tracing::error!(%error, "the new certificate was rejected; the current one stays in use"),
            }
        }
    }

    /// The files with secrets that are watched.
    fn secret_files(&self) -> Vec<PathBuf> {
        match self.in_force.reload.watch {
            true => self.parts.secret_files(&self.in_force),
            // These files are watched even without `reload.watch`, so that keys and users can be rotated by changing a file.
            false if self.sections.contains(&"server") => self.in_force.server.secret_files(),
            false => Vec::new(),
        }
    }

    /// The keys in which another configuration differs from the one in force, in the sections that this process uses.
    fn restart_needed(&self, new: &Config) -> Vec<String> {
        let mut keys = self.in_force.changed_keys(new);
        keys.retain(|key| self.sections.iter().any(|section| key.split(['.', '[']).next() == Some(section)));
        keys
    }
}

/// The files of the certificates that are in use.
fn certificate_files(parts: &impl Reloadable) -> Vec<PathBuf> {
    let certificates = parts.certificates();
    let files = |tls: &Tls| {
        let own = [tls.files().certificate.clone(), tls.files().key.clone()];
        own.into_iter().chain(tls.ca_file().map(Path::to_owned)).collect::<Vec<_>>()
    };
    certificates.iter().flat_map(files).collect()
}

/// Mistakes as one text, one per line if there are several.
fn listed(mistakes: &[String]) -> String {
    match mistakes {
        [only] => only.clone(),
        several => format!("the configuration has {} mistakes:\n  {}", several.len(), several.join("\n  ")),
    }
}

/// Logs which files with secrets cannot be used.
fn warn_of_kept(unusable: &[String]) {
    for error in unusable {
        tracing::warn!(error, "a secret file cannot be used; its current secret stays in use");
    }
}
