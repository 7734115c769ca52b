//! The `server.schedules` section: messages that the server sends at the times of a cron expression.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use dms_server::broker::{self, NewSchedule, ScheduleError, ScheduledMessage};

/// A schedule: the server sends its message to its queue at each time that fits its cron expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "cron", "queue", "message"]))]
pub struct Schedule {
    /// The name, unique in the project: 1-64 of `A-Z a-z 0-9 _ -`; required.
    pub name: String,
    /// When it sends: minute, hour, day of the month, month, day of the week; with the second first, or `@daily`, if wanted. Required.
    pub cron: String,
    /// The name of the queue; required.
    pub queue: String,
    /// The body of the message; or an object with `body`, `attributes` and `tags`. Required.
    pub message: Value,
    /// The time zone of `cron`, such as `Europe/Berlin`; `UTC` by default.
    pub timezone: String,
    /// What ticks send that are more than a minute late: nothing (`skip`), the last of them its message (`once`), or the last 100
    /// theirs (`all`); `once` by default.
    pub missed: MissedTicks,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            name: String::new(),
            cron: String::new(),
            queue: String::new(),
            message: Value::Null,
            timezone: "UTC".to_owned(),
            missed: MissedTicks::default(),
        }
    }
}

impl Schedule {
    /// The schedule as the server takes it.
    ///
    /// # Errors
    /// When it is wrong, with the key that is.
    pub(crate) fn to_new(&self) -> Result<NewSchedule, ScheduleError> {
        let message = ScheduledMessage::parse(&self.message.to_string())?;
        let schedule = NewSchedule::new(self.name.as_str(), self.cron.as_str(), message);
        let schedule = schedule.timezone(self.timezone.as_str()).missed(self.missed.into());
        schedule.check().map(|_| schedule)
    }
}

/// What ticks send that are more than a minute late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissedTicks {
    /// Nothing.
    Skip,
    /// The last of them sends its message. The default.
    #[default]
    Once,
    /// The last 100 of them send their messages.
    All,
}

impl From<MissedTicks> for broker::MissedTicks {
    fn from(missed: MissedTicks) -> Self {
        match missed {
            MissedTicks::Skip => Self::Skip,
            MissedTicks::Once => Self::Once,
            MissedTicks::All => Self::All,
        }
    }
}
