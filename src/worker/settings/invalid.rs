//! [`InvalidSettings`]: settings that cannot work, each with its value and the remedy.

use std::{fmt, ops::RangeInclusive, time::Duration};

use dms_protocol::internal::duration;

use crate::limits::LimitError;

/// The settings of a worker that cannot work: all of them, in the order of the builder's documentation.
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

    /// The error of a single setting.
    pub(crate) fn one(setting: &str, problem: impl Into<String>) -> Self {
        Self(vec![InvalidSetting { setting: setting.to_owned(), value: None, problem: problem.into() }])
    }
}

impl InvalidSetting {
    /// The name of the setting, such as `ack_wait`, `collect.linger`, `republish.max_delay` or `tags[1]`.
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

/// A value outside its limits.
impl From<LimitError> for InvalidSettings {
    fn from(error: LimitError) -> Self {
        let mut checks = SettingChecks::default();
        checks.limit(error.what, Err(error.clone()));
        Self(checks.0)
    }
}

/// Collects the settings that cannot work.
#[derive(Debug, Default)]
pub(crate) struct SettingChecks(Vec<InvalidSetting>);

impl SettingChecks {
    pub(crate) fn finish(self) -> Result<(), InvalidSettings> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidSettings(self.0)) }
    }

    /// A problem with a value.
    pub(crate) fn value(&mut self, setting: &str, value: impl Into<String>, problem: impl Into<String>) {
        let value = Some(value.into());
        self.0.push(InvalidSetting { setting: setting.to_owned(), value, problem: problem.into() });
    }

    /// A problem that is not about one value.
    pub(crate) fn rule(&mut self, setting: &str, problem: impl Into<String>) {
        self.0.extend(InvalidSettings::one(setting, problem).0);
    }

    /// The result of a check against a limit.
    pub(crate) fn limit(&mut self, setting: &str, checked: Result<(), LimitError>) {
        if let Err(LimitError { value, allowed, .. }) = checked {
            self.value(setting, value.trim_matches('"'), format!("is not allowed: {allowed}"));
        }
    }

    /// A count that must not be zero.
    pub(crate) fn at_least_one(&mut self, setting: &str, count: u32) {
        if count == 0 {
            self.value(setting, count.to_string(), "is not allowed: 1 or more is needed");
        }
    }

    /// A time that the API has in whole seconds.
    pub(crate) fn whole_seconds(&mut self, setting: &str, time: Duration, range: &RangeInclusive<u64>) {
        if time.subsec_nanos() > 0 || !range.contains(&time.as_secs()) {
            let problem = format!("is not allowed: whole seconds from {}s to {}s", range.start(), range.end());
            self.value(setting, duration::text(time), problem);
        }
    }

    /// A time of at most `most`. Returns whether it is.
    pub(crate) fn at_most(&mut self, setting: &str, time: Duration, most: Duration) -> bool {
        let fits = time <= most;
        if !fits {
            self.value(setting, duration::text(time), format!("is not allowed: at most {}", duration::text(most)));
        }
        fits
    }
}
