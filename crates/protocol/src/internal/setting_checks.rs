//! [`SettingChecks`]: finds every setting that cannot work, so that all of them are reported together.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    internal::duration,
    limits::LimitError,
    settings::{InvalidSetting, InvalidSettings},
};

/// What is wrong with a required text that is blank.
pub const EMPTY: &str = "is empty";

/// Collects the settings that cannot work.
#[derive(Debug, Default)]
pub struct SettingChecks(Vec<InvalidSetting>);

impl SettingChecks {
    /// The error of a single setting.
    pub fn one(setting: &str, problem: impl Into<String>) -> InvalidSettings {
        InvalidSettings::new(vec![InvalidSetting::new(setting, None, problem.into())])
    }

    /// The result.
    ///
    /// # Errors
    /// All problems, if there are any.
    pub fn finish(self) -> Result<(), InvalidSettings> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidSettings::new(self.0)) }
    }

    /// A problem with a value.
    pub fn value(&mut self, setting: &str, value: impl Into<String>, problem: impl Into<String>) {
        self.0.push(InvalidSetting::new(setting, Some(value.into()), problem.into()));
    }

    /// A problem that is not about one value.
    pub fn rule(&mut self, setting: &str, problem: impl Into<String>) {
        self.0.push(InvalidSetting::new(setting, None, problem.into()));
    }

    /// The result of a check against a limit.
    pub fn limit(&mut self, setting: &str, checked: Result<(), LimitError>) {
        if let Err(LimitError { value, allowed, .. }) = checked {
            self.value(setting, value.trim_matches('"'), format!("is not allowed: {allowed}"));
        }
    }

    /// A count that must not be zero.
    pub fn at_least_one(&mut self, setting: &str, count: impl TryInto<u64>) {
        if count.try_into().is_ok_and(|count| count == 0) {
            self.value(setting, "0", "is not allowed: 1 or more is needed");
        }
    }

    /// A size that must not be below `least`.
    pub fn at_least(&mut self, setting: &str, value: usize, least: usize) {
        if value < least {
            self.value(setting, value.to_string(), format!("is not allowed: {least} or more are needed"));
        }
    }

    /// A text that must not be blank.
    pub fn required(&mut self, setting: &str, text: &str) {
        if text.trim().is_empty() {
            self.rule(setting, EMPTY);
        }
    }

    /// A time that the API has in whole seconds.
    pub fn whole_seconds(&mut self, setting: &str, time: Duration, range: &RangeInclusive<u64>) {
        if time.subsec_nanos() > 0 || !range.contains(&time.as_secs()) {
            let problem = format!("is not allowed: whole seconds from {}s to {}s", range.start(), range.end());
            self.value(setting, duration::text(time), problem);
        }
    }

    /// A time of at most `most`. Returns whether it is.
    pub fn at_most(&mut self, setting: &str, time: Duration, most: Duration) -> bool {
        let fits = time <= most;
        if !fits {
            self.value(setting, duration::text(time), format!("is not allowed: at most {}", duration::text(most)));
        }
        fits
    }
}

/// A value outside its limits.
impl From<LimitError> for InvalidSettings {
    fn from(error: LimitError) -> Self {
        let mut checks = SettingChecks::default();
        checks.limit(error.what, Err(error));
        Self::new(checks.0)
    }
}
