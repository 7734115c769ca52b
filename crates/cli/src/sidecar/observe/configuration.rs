//! [`ConfigurationState`]: which configuration is in force, for `/status` and `/metrics`.

#[cfg(feature = "dashboard")]
use std::collections::BTreeMap;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::{Value, json};

#[cfg(feature = "dashboard")]
use crate::config::{Config, Loaded};
use dms_protocol::internal::clock;

/// Which configuration is in force, and how the last reload ended. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationState(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<InForce>,
    metrics: Metrics,
}

/// The facts about the configuration in force.
#[derive(Debug, Default)]
struct InForce {
    file: Option<PathBuf>,
    /// Whether changes of the file are noticed.
    watched: bool,
    /// The SHA-256 of the file as it was when it was applied, in hexadecimal digits.
    hash: Option<String>,
    loaded_at: Option<Timestamp>,
    last_error: Option<(Timestamp, String)>,
    /// The keys whose changes take a restart of the process.
    pending_restart: Vec<String>,
    /// The settings, for the dashboard.
    #[cfg(feature = "dashboard")]
    config: Option<Arc<Config>>,
    /// The origins of its values, and its warnings.
    #[cfg(feature = "dashboard")]
    sources: Arc<ConfigurationSources>,
}

/// Where the values of a configuration were set, and remarks about it.
#[cfg(feature = "dashboard")]
#[derive(Debug, Default)]
pub(crate) struct ConfigurationSources {
    /// The origin of each value by its key: a place in a file, a variable, a flag, or `default`.
    origins: BTreeMap<String, String>,
    /// Settings that are probably not meant, each with the remedy.
    pub(crate) warnings: Vec<String>,
}

#[cfg(feature = "dashboard")]
impl ConfigurationSources {
    /// The sources of a configuration that was loaded.
    pub(crate) fn of(loaded: &Loaded) -> Self {
        let origins = loaded.settings().into_iter().map(|setting| (setting.key, setting.origin.to_string()));
        let readable = loaded.exposed_secrets().iter().map(|file| {
            format!(
                "{}: any user of this machine may read this secret: take the right away with chmod o-rwx",
                file.display()
            )
        });
        let kept = loaded.kept_secrets().iter().cloned();
        Self { origins: origins.collect(), warnings: readable.chain(kept).collect() }
    }

    /// Where a value was set; for a list, where its first item was.
    pub(crate) fn origin(&self, key: &str) -> &str {
        let first = || self.origins.get(&format!("{key}[0]"));
        self.origins.get(key).or_else(first).map_or("–", String::as_str)
    }
}

/// The configuration in force, as the dashboard shows it.
#[cfg(feature = "dashboard")]
#[derive(Clone, Debug)]
pub(crate) struct ConfigurationView {
    /// The settings.
    pub(crate) config: Arc<Config>,
    /// Where they were set.
    pub(crate) sources: Arc<ConfigurationSources>,
    /// Since when they are in force.
    pub(crate) since: Timestamp,
    /// The file from which they were read.
    pub(crate) file: Option<PathBuf>,
    /// When and why the last reload was refused, if it was.
    pub(crate) last_error: Option<(Timestamp, String)>,
    /// The keys of the file that are not in force before a restart.
    pub(crate) pending_restart: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Default)]
struct Metrics {
    attempts: Family<ResultLabels, Counter>,
    last_successful: Gauge,
    last_success: Gauge,
    pending_restart: Gauge,
}

impl ConfigurationState {
    /// The configuration of this file was loaded at the start.
    pub(crate) fn started(&self, file: Option<PathBuf>, hash: Option<String>) {
        self.lock().file = file;
        // From the start on, so that a rate has something to begin with.
        for result in ["success", "failure"] {
            drop(self.0.metrics.attempts.get_or_create(&ResultLabels { result }));
        }
        self.applied(hash, Vec::new());
    }

    /// Notes the settings that are in force from now on.
    #[cfg(feature = "dashboard")]
    pub(crate) fn set_config(&self, config: &Config) {
        self.lock().config = Some(Arc::new(config.clone()));
    }

    /// Notes where the settings were set.
    #[cfg(feature = "dashboard")]
    pub(crate) fn set_sources(&self, sources: ConfigurationSources) {
        self.lock().sources = Arc::new(sources);
    }

    /// The configuration in force. `None` where nothing reloads it.
    #[cfg(feature = "dashboard")]
    pub(crate) fn view(&self) -> Option<ConfigurationView> {
        let state = self.lock();
        Some(ConfigurationView {
            config: state.config.clone()?,
            sources: Arc::clone(&state.sources),
            since: state.loaded_at?,
            file: state.file.clone(),
            last_error: state.last_error.clone(),
            pending_restart: state.pending_restart.clone(),
        })
    }

    /// Notes whether changes of the file are noticed.
    pub(crate) fn set_watched(&self, watched: bool) {
        let mut state = self.lock();
        state.watched = watched && state.file.is_some();
    }

    /// A reload was applied, but for these keys, which take a restart.
    pub(crate) fn reloaded(&self, hash: Option<String>, pending_restart: Vec<String>) {
        self.0.metrics.attempts.get_or_create(&ResultLabels { result: "success" }).inc();
        self.applied(hash, pending_restart);
    }

    /// A reload was refused, and the configuration stays as it was.
    pub(crate) fn failed(&self, error: &str) {
        self.0.metrics.attempts.get_or_create(&ResultLabels { result: "failure" }).inc();
        self.0.metrics.last_successful.set(0);
        self.lock().last_error = Some((clock::now(), error.to_owned()));
    }

    fn applied(&self, hash: Option<String>, pending_restart: Vec<String>) {
        let (now, metrics) = (clock::now(), &self.0.metrics);
        metrics.last_successful.set(1);
        metrics.last_success.set(now.as_second());
        metrics.pending_restart.set(i64::try_from(pending_restart.len()).unwrap_or(i64::MAX));
        let mut state = self.lock();
        (state.hash, state.pending_restart) = (hash, pending_restart);
        (state.loaded_at, state.last_error) = (Some(now), None);
    }

    /// The part of `/status`.
    pub(crate) fn status(&self) -> Value {
        let state = self.lock();
        json!({
            "file": state.file.as_ref().map(|file| file.display().to_string()),
            "watched": state.watched,
            "hash": state.hash,
            "loaded_at": state.loaded_at.map(|at| at.to_string()),
            "last_error": state.last_error.as_ref().map(|(at, error)| json!({ "at": at.to_string(), "error": error })),
            "pending_restart": state.pending_restart,
        })
    }

    /// The metrics as OpenMetrics text.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("dms_worker");
        let metrics = &self.0.metrics;
        registry.register("config_reload_attempts", "Reloads of the configuration by result", metrics.attempts.clone());
        registry.register(
            "config_reload_last_successful",
            "1 if the last reload was applied, 0 if it was refused",
            metrics.last_successful.clone(),
        );
        registry.register(
            "config_reload_last_success_timestamp_seconds",
            "When the configuration in force was applied",
            metrics.last_success.clone(),
        );
        registry.register(
            "config_reload_pending_restart",
            "Changed keys that need a restart",
            metrics.pending_restart.clone(),
        );
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_metrics_tell_success_failure_and_pending_restarts() {
        let configuration = ConfigurationState::default();
        configuration.started(Some("config.yaml".into()), Some("aa".to_owned()));
        configuration.set_watched(true);
        configuration.reloaded(Some("bb".to_owned()), vec!["server.listen".to_owned()]);
        let status = configuration.status();
        assert_eq!((&status["hash"], &status["file"]), (&json!("bb"), &json!("config.yaml")));
        assert_eq!((&status["pending_restart"], &status["watched"]), (&json!(["server.listen"]), &json!(true)));
        configuration.failed("workers[0].queue: is missing");
        let (status, text) = (configuration.status(), configuration.metrics());
        assert_eq!(
            (&status["hash"], &status["last_error"]["error"]),
            (&json!("bb"), &json!("workers[0].queue: is missing"))
        );
        for line in [
            "dms_worker_config_reload_attempts_total{result=\"success\"} 1\n",
            "dms_worker_config_reload_attempts_total{result=\"failure\"} 1\n",
            "dms_worker_config_reload_last_successful 0\n",
            "dms_worker_config_reload_pending_restart 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        configuration.reloaded(Some("cc".to_owned()), Vec::new());
        assert_eq!(
            (&configuration.status()["last_error"], &configuration.status()["pending_restart"]),
            (&Value::Null, &json!([]))
        );
    }
}
