//! [`KeysFile`]: a file of access keys, which `dms-worker key` changes while the server runs.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::config::{
    load::FileSecrets,
    schema::{
        rights::Rights,
        server::{AccessKey, ServerAuth},
        values::Secret,
    },
};
use dms_protocol::internal::text;

/// The content of the file that `access_keys_file` names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysFile {
    /// The keys, the oldest first.
    pub(crate) access_keys: Vec<StoredKey>,
}

/// A key with its secret, as it is written.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKey {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    /// The rights; `None` means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rights: Option<Rights>,
    /// When it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) added: Option<String>,
}

impl fmt::Debug for StoredKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey")
            .field("access_key", &self.access_key)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

impl KeysFile {
    /// Reads a file. A missing file has no keys.
    ///
    /// # Errors
    /// When it cannot be read, or is not a keys file. The text names the line, and never shows its content, which may be a secret.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        match text::read(path) {
            Ok(text) => Self::parse(&text).map_err(|place| {
                format!("`{}` is not a keys file{place}: change it only with `dms-worker key`", path.display())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("`{}` cannot be read: {error}", path.display())),
        }
    }

    /// Parses the content. The error is the place of the mistake.
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let place =
            |error: yaml_serde::Error| error.location().map_or(String::new(), |at| format!(" (line {})", at.line()));
        yaml_serde::from_str(text).map_err(place)
    }

    /// The text of a file with these keys.
    ///
    /// # Errors
    /// When they cannot be written as YAML.
    pub(crate) fn to_text(&self) -> Result<String, String> {
        let keys = yaml_serde::to_string(self).map_err(|error| error.to_string())?;
        Ok(format!("# Access keys of a server; change them with `dms-worker key`.\n{keys}"))
    }
}

/// Fills in the keys of the file that a section names, if it names one. If the file cannot be used and its earlier keys are in use, these
/// stay, and the reason is returned.
///
/// # Errors
/// When the file cannot be used, and it has no earlier keys in use.
pub(crate) fn take(auth: &mut ServerAuth, in_force: &FileSecrets) -> Result<Option<String>, String> {
    let Some(file) = auth.access_keys_file.clone() else { return Ok(None) };
    let known = in_force.get(&file).and_then(|text| KeysFile::parse(text.expose()).ok());
    let (keys, kept) = match (KeysFile::read(&file), known) {
        // A server without any key would admit everybody.
        (Ok(keys), Some(known)) if keys.access_keys.is_empty() => (known, Some(without_keys(&file))),
        (Ok(keys), _) => (keys, None),
        (Err(error), Some(known)) => (known, Some(error)),
        (Err(error), None) => return Err(error),
    };
    auth.keys_of_file = keys.access_keys.into_iter().map(AccessKey::from).collect();
    Ok(kept)
}

/// Reads the keys of the file again.
///
/// # Errors
/// When it cannot be used. The keys stay as they were.
pub(crate) fn take_again(auth: &mut ServerAuth) -> Result<(), String> {
    let in_force = in_force(auth).into_iter().collect();
    take(auth, &in_force)?.map_or(Ok(()), Err)
}

/// The current keys of a section's file, as the text of a file.
pub(crate) fn in_force(auth: &ServerAuth) -> Option<(PathBuf, Secret)> {
    let file = auth.access_keys_file.clone().filter(|_| !auth.keys_of_file.is_empty())?;
    let stored = |key: &AccessKey| StoredKey {
        access_key: key.access_key.clone(),
        secret_key: key.secret_key.as_ref().map(|secret| secret.expose().to_owned()).unwrap_or_default(),
        rights: key.rights.clone(),
        added: None,
    };
    let keys = KeysFile { access_keys: auth.keys_of_file.iter().map(stored).collect() };
    Some((file, Secret::new(keys.to_text().ok()?)))
}

fn without_keys(file: &Path) -> String {
    format!("`{}` is missing or has no keys", file.display())
}

impl From<StoredKey> for AccessKey {
    fn from(key: StoredKey) -> Self {
        Self {
            access_key: key.access_key,
            secret_key: Some(Secret::new(key.secret_key)),
            rights: key.rights,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn keys_are_written_and_read_and_no_error_shows_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.yaml");
        assert_eq!(KeysFile::read(&path).unwrap(), KeysFile::default());
        let rights = Rights { send: vec!["orders-*".to_owned()], ..Rights::default() };
        let key = StoredKey {
            access_key: "SHOP".to_owned(),
            secret_key: "planted".to_owned(),
            rights: Some(rights),
            added: None,
        };
        let keys = KeysFile { access_keys: vec![key] };
        std::fs::write(&path, keys.to_text().unwrap()).unwrap();
        assert_eq!(KeysFile::read(&path).unwrap(), keys);
        assert!(!format!("{keys:?}").contains("planted"));
        for broken in ["planted", "access_keys: planted", "access_keys: [{access_key: A, secret: planted}]"] {
            std::fs::write(&path, broken).unwrap();
            let error = KeysFile::read(&path).unwrap_err();
            assert!(error.contains("keys.yaml") && !error.contains("planted"), "{error}");
        }
    }
}
