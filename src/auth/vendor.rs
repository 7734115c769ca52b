//! [`VendorCredentials`]: credentials from the environment or `~/.huaweicloud/credentials`, as the vendor's SDKs find
//! them.

use std::{fmt, path::PathBuf};

use crate::secret::Secret;

use super::AccessKey;
use crate::text;

/// Credentials from the environment or the credentials file of the vendor's SDKs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VendorCredentials {
    /// The key.
    pub key: AccessKey,
    /// The project's id, if given.
    pub project_id: Option<String>,
    /// IAM's address, if given.
    pub iam_endpoint: Option<String>,
}

/// No credentials were found. The text names the places.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VendorCredentialsError(String);

/// The name of each value in the environment and in the file.
const NAMES: [(&str, &str); 5] = [
    ("HUAWEICLOUD_SDK_AK", "ak"),
    ("HUAWEICLOUD_SDK_SK", "sk"),
    ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "security_token"),
    ("HUAWEICLOUD_SDK_PROJECT_ID", "project_id"),
    ("HUAWEICLOUD_SDK_IAM_ENDPOINT", "iam_endpoint"),
];

impl VendorCredentials {
    /// Reads `HUAWEICLOUD_SDK_AK` and related variables from the environment, or else the section `[basic]` of the file
    /// `HUAWEICLOUD_SDK_CREDENTIALS_FILE`, by default `~/.huaweicloud/credentials`.
    ///
    /// # Errors
    /// When neither place has both the access key and the secret key.
    pub fn find() -> Result<Self, VendorCredentialsError> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::find_in(variable, |path| text::read(path))
    }

    fn find_in(
        variable: impl Fn(&str) -> Option<String>,
        read: impl Fn(&PathBuf) -> std::io::Result<String>,
    ) -> Result<Self, VendorCredentialsError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(found) = Self::assemble(NAMES.map(|(name, _)| variable(name))) {
            return Ok(found);
        }
        let path = variable("HUAWEICLOUD_SDK_CREDENTIALS_FILE")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".huaweicloud").join("credentials")));
        let Some(path) = path else {
            return Err(missing(&"there is no home directory to look for a credentials file in"));
        };
        let file = path.display();
        let text = read(&path).map_err(|error| missing(&format_args!("{file}: {error}")))?;
        let section = section(&text, "basic");
        let value = |name: &str| section.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Self::assemble(NAMES.map(|(_, name)| value(name).filter(|value| !value.is_empty())))
            .ok_or_else(|| missing(&format_args!("{file} has no `ak` and `sk` in its section [basic]")))
    }

    fn assemble([access_key, secret_key, token, project_id, iam_endpoint]: [Option<String>; 5]) -> Option<Self> {
        let key = AccessKey {
            access_key: access_key?,
            secret_key: Secret::from(secret_key?),
            security_token: token.map(Secret::from),
        };
        Some(Self { key, project_id, iam_endpoint })
    }
}

fn missing(file: &dyn fmt::Display) -> VendorCredentialsError {
    VendorCredentialsError(format!("HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK are not both set, and {file}"))
}

/// The pairs of one section of an INI file: `name = value` or `name: value`, with names in any case. `#` and `;` start
/// comments.
fn section(text: &str, wanted: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut pairs = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name == wanted;
        } else if inside
            && !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once(['=', ':'])
        {
            pairs.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn find(environment: &[(&str, &str)], file: Option<&str>) -> Result<VendorCredentials, VendorCredentialsError> {
        let variable =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        VendorCredentials::find_in(variable, |path| {
            assert_eq!(path, &PathBuf::from("/home/u/.huaweicloud/credentials"));
            file.map(str::to_owned).ok_or_else(|| std::io::ErrorKind::NotFound.into())
        })
    }

    #[test]
    fn the_environment_comes_first() {
        let environment = [
            ("HUAWEICLOUD_SDK_AK", "ak"),
            ("HUAWEICLOUD_SDK_SK", "sk"),
            ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "st"),
            ("HUAWEICLOUD_SDK_PROJECT_ID", "p"),
        ];
        let found = find(&environment, None).unwrap();
        assert_eq!((found.key.access_key.as_str(), found.key.secret_key.expose()), ("ak", "sk"));
        assert_eq!(found.key.security_token.unwrap().expose(), "st");
        assert_eq!(found.project_id.as_deref(), Some("p"));
    }

    #[test]
    fn the_file_is_read_as_the_vendors_sdks_read_it() {
        let file =
            "[global]\nak = no\n\n[basic]\n# keys\nAK = one\nsk: t=wo\nproject_id =\niam_endpoint = https://iam\n";
        let found = find(&[("HOME", "/home/u"), ("HUAWEICLOUD_SDK_AK", "alone")], Some(file)).unwrap();
        assert_eq!((found.key.access_key.as_str(), found.key.secret_key.expose()), ("one", "t=wo"));
        assert_eq!((found.project_id, found.iam_endpoint.as_deref()), (None, Some("https://iam")));
        assert!(!format!("{:?}", found.key).contains("t=wo"));
    }

    #[test]
    fn an_error_says_where_was_looked() {
        let error = find(&[("HOME", "/home/u")], Some("[basic]\nak = x\n")).unwrap_err();
        assert!(error.to_string().contains("/home/u/.huaweicloud/credentials has no `ak` and `sk`"), "{error}");
        assert!(find(&[], None).is_err());
    }
}
