//! Schedules as a store keeps them: what is sent when, and which ticks are done.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::store::origin::MessageOrigin;

/// The policy for missed ticks. A tick is missed if it is more than a minute late, for example because no server ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedTicks {
    /// They send nothing.
    Skip,
    /// The last of them sends its message. The default.
    #[default]
    Once,
    /// The last hundred of them send their messages.
    All,
}

impl MissedTicks {
    /// The name, as it is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

/// Where a schedule comes from, and where it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleSource {
    /// `server.schedules` of the configuration.
    Configuration,
    /// The admin address.
    Command,
}

impl ScheduleSource {
    /// The name, as it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Command => "command",
        }
    }
}

/// What a schedule sends, and when. Its queue is stored beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScheduleRow {
    /// Unique in the project.
    pub(crate) name: String,
    pub(crate) cron: String,
    /// The name of the time zone in which `cron` is read.
    pub(crate) timezone: String,
    pub(crate) missed: MissedTicks,
    pub(crate) source: ScheduleSource,
    /// Whether ticks send nothing for now.
    pub(crate) paused: bool,
    /// The body of the message, as JSON text.
    pub(crate) body: Arc<str>,
    /// The attributes of the message, as the text of a JSON object.
    pub(crate) attributes: Arc<str>,
    /// The labels of the message.
    pub(crate) tags: Arc<[String]>,
    /// In Unix milliseconds.
    pub(crate) created_ms: i64,
}

/// How far a schedule has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScheduleProgress {
    /// No tick that was planned at or before this time sends a message any more, in Unix milliseconds. It never decreases, so that
    /// a clock that is set back repeats no tick.
    pub(crate) done_ms: i64,
    /// The last tick that sent its message.
    pub(crate) last: Option<LastTick>,
    /// The number of ticks that sent their message.
    pub(crate) sent: u64,
    /// The number of missed ticks that sent nothing.
    pub(crate) missed: u64,
}

/// A tick that sent its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTick {
    /// The time for which it was planned, in milliseconds since the Unix epoch.
    pub planned_ms: i64,
    /// The time at which its message was stored, in milliseconds since the Unix epoch.
    pub sent_ms: i64,
    /// The id of its message.
    pub id: MessageOrigin,
}

/// A schedule of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScheduleSnapshot {
    pub(crate) row: ScheduleRow,
    pub(crate) progress: ScheduleProgress,
}
