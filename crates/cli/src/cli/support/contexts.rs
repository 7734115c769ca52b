//! [`Contexts`]: the services that a user works with, saved by name in `~/.config/dms-worker/contexts.yaml`.

use std::{collections::BTreeMap, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::support::{
    failure::{ExitKind, Failure},
    private_file,
};
use dms_protocol::internal::text;

/// The saved contexts, and which of them is current.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The name of the context that commands use by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// The contexts by their names.
    pub(crate) contexts: BTreeMap<String, SavedContext>,
}

/// A service, a project, and where the credentials are. Secrets themselves are not saved, only their files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SavedContext {
    /// A configuration file whose settings come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<PathBuf>,
    /// The address of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project_id: Option<String>,
    /// The version of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_version: Option<String>,
    /// The API of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dialect: Option<String>,
    /// The file of authorities for the service's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The identifier of an access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_key: Option<String>,
    /// The file that holds its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_key_file: Option<PathBuf>,
    /// A file that holds a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

impl SavedContext {
    /// The context as settings of the configuration.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let file = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        let settings = [
            ("dms.endpoint", self.endpoint.clone()),
            ("dms.project_id", self.project_id.clone()),
            ("dms.api_version", self.api_version.clone()),
            ("dms.dialect", self.dialect.clone()),
            ("dms.ca_file", file(&self.ca_file)),
            ("dms.auth.access_key", self.access_key.clone()),
            ("dms.auth.secret_key_file", file(&self.secret_key_file)),
            ("dms.auth.token_file", file(&self.token_file)),
        ];
        settings.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl SavedContext {
    /// Whether it names credentials.
    pub(crate) fn has_credentials(&self) -> bool {
        self.access_key.is_some() || self.secret_key_file.is_some() || self.token_file.is_some()
    }
}

impl Contexts {
    /// Reads the saved contexts; none if there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or does not contain contexts.
    pub(crate) fn read() -> Result<Self, Failure> {
        let Some(path) = file() else { return Ok(Self::default()) };
        let text = match text::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Failure::of(ExitKind::Config, format!("{} cannot be read: {error}", path.display())));
            }
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let malformed = |error| Failure::of(ExitKind::Config, format!("{} has no contexts: {error}", path.display()));
        yaml_serde::from_str(&text).map_err(malformed)
    }

    /// Saves the contexts.
    ///
    /// # Errors
    /// When the file cannot be written. The old content stays then.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let Some(path) = file() else {
            return Err(Failure::new("there is no home directory to save contexts in: set HOME or XDG_CONFIG_HOME"));
        };
        let text = yaml_serde::to_string(self).map_err(|error| Failure::new(error.to_string()))?;
        private_file::replace(&path, &text).map_err(|error| Failure::unwritable(&path, &error))
    }

    /// The context of this name.
    ///
    /// # Errors
    /// When there is none; the others are named.
    pub(crate) fn get(&self, name: &str) -> Result<&SavedContext, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<_> = self.contexts.keys().map(String::as_str).collect();
            let hint = match known.as_slice() {
                [] => "there are none; add one with `dms-worker context add`".to_owned(),
                known => format!("there are {}", known.join(", ")),
            };
            Failure::of(ExitKind::Config, format!("there is no context `{name}`: {hint}"))
        })
    }
}

/// Where contexts are saved.
fn file() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    folder.map(|folder| folder.join("dms-worker").join("contexts.yaml"))
}
