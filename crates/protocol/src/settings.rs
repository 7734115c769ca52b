//! [`InvalidSettings`]: settings of a worker or a server that cannot work, each with its value and the remedy.

use std::fmt;

/// The settings that cannot work: all of them, in the order in which they are documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSettings(Vec<InvalidSetting>);

/// A setting that cannot work, by itself or together with another one.
///
/// It is shown like this: ack_wait: `10s` is not allowed: whole seconds from 15s to 300s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    setting: String,
    value: Option<String>,
    problem: String,
}

impl InvalidSettings {
    /// The settings that cannot work, at least one.
    pub fn all(&self) -> &[InvalidSetting] {
        &self.0
    }

    /// The error of these settings; at least one is needed.
    pub(crate) fn new(settings: Vec<InvalidSetting>) -> Self {
        Self(settings)
    }
}

impl InvalidSetting {
    pub(crate) fn new(setting: &str, value: Option<String>, problem: String) -> Self {
        Self { setting: setting.to_owned(), value, problem }
    }

    /// The name of the setting, such as `ack_wait`, `republish.max_delay`, `tags[1]` or `projects[0].id`.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// The value, unless the setting is missing or the problem is not about one value.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// The problem, and the remedy. Follows the value in a sentence.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: `{value}` {}", self.setting, self.problem),
            None => write!(f, "{}: {}", self.setting, self.problem),
        }
    }
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, setting) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{setting}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidSettings {}
