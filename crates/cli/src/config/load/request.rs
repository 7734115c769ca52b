//! [`Request`]: which layers a configuration is read from.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::config::source::{environment::FILE_VARIABLE, layer::Override, path::KeyPath, problem::Origin};
use crate::config::{load::FileSecrets, schema::config::Config};

/// What a configuration is read from. Later layers win: defaults, file, variables, flags.
#[derive(Clone, Default)]
pub struct Request {
    pub(super) file: Option<PathBuf>,
    pub(super) variables: Vec<(String, String)>,
    pub(super) flags: Vec<Override>,
    /// The settings of the context that is in use.
    pub(super) context: Vec<Override>,
    /// The secrets of files that are in force.
    pub(super) in_force: FileSecrets,
}

impl fmt::Debug for Request {
    /// Without the variables' values: some of them are secrets, and not only ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("file", &self.file)
            .field("variables", &variables)
            .field("flags", &self.flags)
            .finish()
    }
}

impl Request {
    /// No file, no variables, no flags: the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file; none by default.
    pub fn file(mut self, path: impl Into<Option<PathBuf>>) -> Self {
        self.file = path.into();
        self
    }

    /// Takes settings and `${...}` references from these variables; none by default.
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables = variables.into_iter().collect();
        self
    }

    /// Takes the process's environment.
    pub fn environment(self) -> Self {
        // Variables that are not UTF-8 cannot be ours.
        let readable =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        self.variables(readable)
    }

    /// Leaves out the variables whose names begin so.
    pub fn without_variables(mut self, prefix: &str) -> Self {
        self.variables.retain(|(name, _)| !name.starts_with(prefix));
        self
    }

    /// Sets `key`, as in `server.listen`, by the flag of this name, as in `--listen`.
    pub fn flag(mut self, name: &str, key: &str, value: impl Into<String>) -> Self {
        self.flags.push(Override {
            path: KeyPath::dotted(key),
            origin: Origin::Flag(name.to_owned()),
            value: value.into(),
        });
        self
    }

    /// Sets `key` by the context of this name, over the file and under the variables. For a context that is current, or that a variable names.
    pub fn context(mut self, name: &str, key: &str, value: impl Into<String>) -> Self {
        self.context.push(Override {
            path: KeyPath::dotted(key),
            origin: Origin::Flag(format!("context {name}")),
            value: value.into(),
        });
        self
    }

    /// Keeps the secrets of a configuration that is in force where their files cannot be used any more; none by default.
    pub fn in_force(mut self, config: &Config) -> Self {
        self.in_force = config.file_secrets();
        self
    }

    /// The file that is read, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The value of a variable.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// The file that is read when none is named: the one in `$DMS_WORKER_CONFIG`, else the first that exists of
/// `./config.yaml` (unless `here` is false), `${XDG_CONFIG_HOME:-~/.config}/dms-worker/config.yaml` and
/// `/etc/dms-worker/config.yaml`.
pub fn search(here: bool) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = variable(FILE_VARIABLE) {
        // Not looked for: a file that is named and missing is a mistake.
        return Some(named);
    }
    let home = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let candidates = [
        here.then(|| PathBuf::from("config.yaml")),
        home.map(|home| home.join("dms-worker/config.yaml")),
        Some(Path::new("/etc/dms-worker/config.yaml").to_owned()),
    ];
    candidates.into_iter().flatten().find(|file| file.is_file())
}
