//! [`Filter`]: which messages a page shows, or an action is for.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    broker::{PeekState, Peeked, ack_status::EDITED},
    dashboard::form::Form,
};

/// Conditions that a message meets all of. An empty one is met by every message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    /// The state: `available`, `leased` or `delayed`.
    pub(super) state: String,
    /// The reason of a dead letter.
    pub(super) reason: String,
    /// The error text of a dead letter; `-` for none.
    pub(super) error: String,
    /// A label.
    pub(super) label: String,
    /// `name=value` of an attribute.
    pub(super) attribute: String,
    /// `/pointer=value` in the body.
    pub(super) pointer: String,
    /// Text in the body.
    pub(super) text: String,
    /// The earliest time at which it entered, such as `2026-11-29T10:00`, in UTC unless it has an offset.
    pub(super) since: String,
    /// The latest such time.
    pub(super) until: String,
}

/// The times of a filter, in Unix milliseconds. A time that cannot be read admits nothing, because a filter that was meant to be
/// narrow must not act on everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryWindow {
    pub(super) since: i64,
    pub(super) until: i64,
}

impl EntryWindow {
    /// Whether a message that entered at this time can be meant.
    pub(super) fn admits(self, entered_ms: i64) -> bool {
        (self.since..=self.until).contains(&entered_ms)
    }

    pub(super) fn is_empty(self) -> bool {
        self.since > self.until
    }
}

/// The parts of a stored message.
#[derive(Debug, Deserialize)]
pub(super) struct Parts<'a> {
    #[serde(borrow)]
    pub(super) body: &'a RawValue,
    #[serde(borrow, default)]
    pub(super) attributes: BTreeMap<Cow<'a, str>, &'a RawValue>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
}

impl<'a> Parts<'a> {
    /// The parts of a message as it is stored.
    pub(super) fn of(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

impl Filter {
    const NAMES: [&'static str; 9] =
        ["state", "reason", "error", "label", "attribute", "pointer", "text", "since", "until"];

    /// The filter for messages that consumers hold.
    pub(super) fn leased() -> Self {
        Self { state: "leased".to_owned(), ..Self::default() }
    }

    /// The filter in a query string or a form.
    pub(super) fn of(form: &Form) -> Self {
        let field = |name| form.filled(name).unwrap_or_default().to_owned();
        let [state, reason, error, label, attribute, pointer, text, since, until] = Self::NAMES.map(field);
        Self { state, reason, error, label, attribute, pointer, text, since, until }
    }

    /// The conditions with their names.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { state, reason, error, label, attribute, pointer, text, since, until } = self;
        let values = [state, reason, error, label, attribute, pointer, text, since, until];
        Self::NAMES
            .into_iter()
            .zip(values)
            .map(|(name, value)| (name, value.as_str()))
            .filter(|(_, value)| !value.is_empty())
    }

    /// As a query string.
    pub(super) fn query(&self) -> String {
        let pair = |(name, value): (&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        self.fields().map(pair).collect::<Vec<_>>().join("&")
    }

    /// In words, for the log.
    pub(super) fn describe(&self) -> String {
        let words = self.fields().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        if words.is_empty() { "all".to_owned() } else { words.join(" ") }
    }

    /// In words, for a page.
    pub(super) fn shown(&self, all: &str) -> String {
        if self.fields().next().is_none() { all.to_owned() } else { self.describe() }
    }

    /// The times between which a message entered.
    pub(super) fn window(&self) -> EntryWindow {
        if self.bad_time().is_some() {
            return EntryWindow { since: i64::MAX, until: i64::MIN };
        }
        let since = moment(&self.since).map_or(i64::MIN, Timestamp::as_millisecond);
        // Times have seconds at most, and a message of the last second is meant, too.
        let until = moment(&self.until).map_or(i64::MAX, |at| at.as_millisecond().saturating_add(999));
        EntryWindow { since, until }
    }

    /// The first time that cannot be read.
    pub(super) fn bad_time(&self) -> Option<&str> {
        [&self.since, &self.until]
            .into_iter()
            .find(|text| !text.is_empty() && moment(text).is_none())
            .map(String::as_str)
    }

    /// Whether it needs bodies or attributes, which a reader may not see.
    pub(super) fn needs_bodies(&self) -> bool {
        !self.attribute.is_empty() || !self.pointer.is_empty() || !self.text.is_empty()
    }

    /// Whether a redrive leaves this dead letter where it is: the original of an edited copy, unless the filter asks for these.
    pub(super) fn spares(&self, message: &Peeked) -> bool {
        cause(message).0 == EDITED && self.reason != EDITED
    }

    /// Whether a message meets all conditions but those of time, which [`window`](Self::window) has.
    pub(super) fn admits(&self, message: &Peeked) -> bool {
        self.admits_standing(message) && self.admits_content(message)
    }

    fn admits_standing(&self, message: &Peeked) -> bool {
        let (reason, error) = cause(message);
        let is = |condition: &str, value: &str| condition.is_empty() || condition == value;
        is(&self.state, state(message.state)) && is(&self.reason, reason) && is(&self.error, error)
    }

    fn admits_content(&self, message: &Peeked) -> bool {
        if self.label.is_empty() && !self.needs_bodies() {
            return true;
        }
        let Some(parts) = Parts::of(&message.json) else { return false };
        let has_label = self.label.is_empty() || parts.tags.contains(&self.label);
        let has_text = self.text.is_empty() || parts.body.get().contains(&self.text) || {
            let decoded: Option<String> = serde_json::from_str(parts.body.get()).ok();
            decoded.is_some_and(|decoded| decoded.contains(&self.text))
        };
        has_label && has_text && self.admits_attribute(&parts) && self.admits_pointer(&parts)
    }

    fn admits_attribute(&self, parts: &Parts<'_>) -> bool {
        if self.attribute.is_empty() {
            return true;
        }
        let (name, value) = self.attribute.split_once('=').unwrap_or((&self.attribute, ""));
        parts.attributes.get(name.trim()).is_some_and(|found| is_value(found, value.trim()))
    }

    fn admits_pointer(&self, parts: &Parts<'_>) -> bool {
        if self.pointer.is_empty() {
            return true;
        }
        let (path, value) = self.pointer.split_once('=').unwrap_or((&self.pointer, ""));
        let steps = path.trim().split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        let found = steps.into_iter().try_fold(parts.body, |value, step| child(value, &step));
        found.is_some_and(|found| is_value(found, value.trim()))
    }
}

/// A time, in UTC unless it has an offset.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    let civil = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    text.parse::<Timestamp>().ok().or_else(civil)
}

/// The member of this name, or the item at this place.
fn child<'a>(value: &'a RawValue, step: &str) -> Option<&'a RawValue> {
    match value.get().as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(value.get()).ok()?;
            members.get(step).copied()
        }
        Some(b'[') => {
            let items: Vec<&'a RawValue> = serde_json::from_str(value.get()).ok()?;
            items.get(step.parse::<usize>().ok()?).copied()
        }
        _ => None,
    }
}

/// Whether a value is written like this, or is the string of it. Numbers are compared as they are written.
fn is_value(found: &RawValue, wanted: &str) -> bool {
    found.get() == wanted || serde_json::from_str::<String>(found.get()).is_ok_and(|text| text == wanted)
}

/// The reason and the error of a dead letter; `-` for what it does not have.
pub(super) fn cause(message: &Peeked) -> (&str, &str) {
    match &message.dead_letter {
        Some(info) => (&info.reason, info.error.as_deref().unwrap_or("-")),
        None => ("-", "-"),
    }
}

/// The name of a state in filters.
pub(super) fn state(state: PeekState) -> &'static str {
    match state {
        PeekState::Available => "available",
        PeekState::Leased(_) => "leased",
        PeekState::Delayed(_) => "delayed",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dms_protocol::message::DeadLetterInfo;

    use super::*;
    use crate::broker::MessageOrigin;
    use crate::store::FirstPlace;

    fn admits(query: &str) -> bool {
        let mut info = DeadLetterInfo::new("failed");
        info.error = Some("no such account".to_owned());
        let json = r#"{"body":{"a/b":[{"id":12345678901234567890}],"name":"\u4f60好"},"attributes":{"k":"v","n":7},"tags":["t"]}"#;
        let message = Peeked {
            sequence: 1,
            json: json.into(),
            state: PeekState::Available,
            failures: 0,
            entered_ms: 0,
            dead_letter: Some(Arc::new(info)),
            id: MessageOrigin::new("q", FirstPlace::Queue, 1, 0),
        };
        Filter::of(&Form::parse(query.as_bytes())).admits(&message)
    }

    #[test]
    fn every_condition_has_to_be_met() {
        let met = [
            "",
            "state=available",
            "reason=failed&error=no+such+account",
            "label=t",
            "attribute=k%3Dv",
            "attribute=n%3D7",
            "pointer=/a~1b/0/id%3D12345678901234567890",
            "pointer=/name%3D%E4%BD%A0%E5%A5%BD",
            "text=12345678901234567890",
        ];
        for query in met {
            assert!(admits(query), "{query}");
        }
        let unmet = [
            "state=leased",
            "reason=timed_out",
            "error=-",
            "label=T",
            "attribute=k%3Dw",
            "attribute=x%3Dv",
            "text=v%22%7D",
            "pointer=/a~1b/0/id%3D12345678901234567891",
            "pointer=/a~1b/1/id%3D1",
            "pointer=/name/x%3D1",
            "label=t&text=nothing",
        ];
        for query in unmet {
            assert!(!admits(query), "{query}");
        }
    }

    #[test]
    fn times_are_utc_and_unreadable_ones_admit_nothing() {
        let window = |query: &str| Filter::of(&Form::parse(query.as_bytes())).window();
        let at = 1_795_946_400_000;
        for query in ["since=2026-11-29T10:00", "since=2026-11-29+10:00:00", "since=2026-11-29T18:00%2B08:00"] {
            assert_eq!(window(query).since, at, "{query}");
        }
        let second = window("since=2026-11-29T10:00:00&until=2026-11-29T10:00:00.000Z");
        assert!(second.admits(at) && second.admits(at + 999) && !second.admits(at + 1_000) && !second.admits(at - 1));
        assert!(window("").admits(i64::MIN) && window("").admits(i64::MAX));
        for query in [
            "since=yesterday",
            "until=25:00",
            "since=2026-13-01T00:00",
            "since=2026-11-29T11:00&until=2026-11-29T10:00",
        ] {
            assert!(window(query).is_empty(), "{query}");
        }
        assert_eq!(Filter::of(&Form::parse(b"since=2026-11-29T10:00&until=soon")).bad_time(), Some("soon"));
    }

    #[test]
    fn a_filter_survives_the_way_through_a_link() {
        let filter = Filter { text: "a&b=c 你".to_owned(), reason: "failed".to_owned(), ..Filter::default() };
        assert_eq!(Filter::of(&Form::parse(filter.query().as_bytes())), filter);
        assert_eq!(
            (filter.describe(), Filter::default().describe()),
            ("reason=failed text=a&b=c 你".to_owned(), "all".to_owned())
        );
        assert_eq!([filter.shown("全部"), Filter::default().shown("全部")], [filter.describe(), "全部".to_owned()]);
    }
}
