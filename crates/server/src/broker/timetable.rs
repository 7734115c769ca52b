//! [`Timetable`]: when the ticks of a schedule are, from a cron expression and a time zone. Pure.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, Zoned, tz::TimeZone};

use dms_protocol::internal::suggest::nearest;

/// The fields of an expression with the values that each takes, and the one that is optional first.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, L or 15W"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of the week", "0 to 7 (0 and 7 are Sunday), SUN to SAT, FRI#2 or FRI#L"),
];
/// The maximum length of an expression, and of the name of a time zone, in bytes.
const MAX_TEXT: usize = 200;

/// The planned times of a schedule.
///
/// A cron expression has five fields (minute, hour, day of the month, month, day of the week), or six with the second first, or is one
/// of `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly`. If both days are restricted, either of them is enough, as in
/// cron. Where clocks are put forward, a tick at a fixed time that does not exist that day is at the first moment after the gap,
/// and ticks of an interval in the gap are left out. Where they are put back, a tick at a fixed time is at the first of both moments,
/// and an interval goes on through both hours.
///
/// # Examples
/// ```
/// use dms_server::broker::Timetable;
///
/// let nightly = Timetable::new("0 2 * * *", "Europe/Berlin")?;
/// // 2026-01-01T00:00:00Z, and 02:00 in Berlin an hour later.
/// assert_eq!(nightly.next_after(1_767_225_600_000), Some(1_767_229_200_000));
/// assert!(Timetable::new("0 25 * * *", "UTC").is_err());
/// # Ok::<(), dms_server::broker::ScheduleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

/// Why a schedule cannot be used. The text names the property, its value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{property} {mistake}")]
pub struct ScheduleError {
    property: &'static str,
    mistake: String,
}

impl ScheduleError {
    pub(crate) fn new(property: &'static str, mistake: impl Into<String>) -> Self {
        Self { property, mistake: mistake.into() }
    }

    /// The property that is wrong: `name`, `cron`, `timezone` or `message`.
    pub fn property(&self) -> &'static str {
        self.property
    }

    /// The mistake and the allowed values, without the name of the property.
    pub fn mistake(&self) -> &str {
        &self.mistake
    }
}

impl Timetable {
    /// Reads a cron expression in a time zone of the IANA database.
    ///
    /// # Errors
    /// When the expression is wrong or no time fits it, and when the time zone is unknown.
    pub fn new(cron: &str, timezone: &str) -> Result<Self, ScheduleError> {
        let zone = zone(timezone)?;
        let timetable = Self { cron: parse(cron)?, zone };
        // From the beginning of the year 2024, whatever the time is now: a leap day is in it.
        match timetable.next_after(1_704_067_200_000) {
            Some(_) => Ok(timetable),
            None => Err(ScheduleError::new("cron", format!("is {}: no date fits it", excerpt(cron)))),
        }
    }

    /// The first planned time after `after_ms`, both in milliseconds since the Unix epoch. `None` if there is none before the year
    /// 5000.
    pub fn next_after(&self, after_ms: i64) -> Option<i64> {
        let after = Timestamp::from_second(after_ms.div_euclid(1_000)).ok()?.to_zoned(self.zone.clone());
        let next: Zoned = self.cron.find_next_occurrence(&after, false).ok()?;
        // The same moment again would be an endless loop for callers that go on from it.
        Some(next.timestamp().as_millisecond()).filter(|next| *next > after_ms)
    }

    /// The next planned times after `after_ms`, in milliseconds since the Unix epoch.
    pub fn times_after(&self, after_ms: i64) -> impl Iterator<Item = i64> {
        std::iter::successors(self.next_after(after_ms), |last| self.next_after(*last))
    }
}

fn zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let found = if name.len() <= MAX_TEXT { TimeZone::get(name).ok() } else { None };
    found.ok_or_else(|| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let near = nearest(name, &names.iter().map(String::as_str).collect::<Vec<_>>())
            .map(|near| format!("; did you mean {near}?"));
        let (name, near) = (excerpt(name), near.unwrap_or_default());
        let text = format!("is {name}, which is no time zone: use a name such as UTC or Europe/Berlin{near}");
        ScheduleError::new("timezone", text)
    })
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build()
}

fn parse(cron: &str) -> Result<Cron, ScheduleError> {
    if cron.len() > MAX_TEXT {
        let text = format!("has {} bytes: at most {MAX_TEXT} are allowed", cron.len());
        return Err(ScheduleError::new("cron", text));
    }
    parser().parse(cron).map_err(|_| ScheduleError::new("cron", mistake(cron)))
}

/// The mistake in an expression: its number of fields, or the first wrong field.
fn mistake(cron: &str) -> String {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let (shown, count) = (excerpt(cron), fields.len());
    if let Some(word) = cron.trim().strip_prefix('@') {
        let names = ["hourly", "daily", "weekly", "monthly", "yearly"];
        let near = nearest(word, &names).map(|near| format!("; did you mean @{near}?")).unwrap_or_default();
        return format!("is {shown}: @hourly, @daily, @weekly, @monthly and @yearly are known{near}");
    }
    if !(5..=6).contains(&count) {
        let fields = "minute, hour, day of the month, month, day of the week";
        return format!("is {shown}, which has {count} fields: 5 are needed ({fields}), or 6 with the second first");
    }
    let known = &FIELDS[FIELDS.len() - count..];
    for (place, (field, (name, allowed))) in fields.iter().zip(known).enumerate() {
        let alone: Vec<&str> = (0..count).map(|other| if other == place { *field } else { "*" }).collect();
        if parser().parse(&alone.join(" ")).is_err() {
            let field = excerpt(field);
            return format!("is {shown}: the {name} is {field}; {allowed} are allowed, *, lists, ranges and steps");
        }
    }
    format!("is {shown}, which is no cron expression")
}

/// A text in quotes, shortened.
pub(crate) fn excerpt(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        format!("\"{}…\"", shown.escape_debug())
    } else {
        format!("\"{}\"", shown.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The planned times after a moment, as local times.
    fn times(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let timetable = Timetable::new(cron, zone).unwrap();
        let after = after.parse::<Timestamp>().unwrap().as_millisecond();
        let local = |ms| Timestamp::from_millisecond(ms).unwrap().to_zoned(TimeZone::get(zone).unwrap());
        timetable.times_after(after).take(count).map(|ms| local(ms).strftime("%m-%dT%H:%M:%S%:z").to_string()).collect()
    }

    #[test]
    fn a_fixed_time_in_the_gap_is_at_the_first_moment_after_it() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["03-28T02:30:00+01:00", "03-29T03:00:00+02:00", "03-30T02:30:00+02:00"]
        );
    }

    #[test]
    fn a_fixed_time_that_exists_twice_is_once_at_the_first_of_both_moments() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T10:00:00Z", 2),
            ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]
        );
    }

    #[test]
    fn an_interval_goes_on_through_both_hours_and_leaves_the_gap_out() {
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:20:00Z", 4),
            ["10-25T02:30:00+02:00", "10-25T02:00:00+01:00", "10-25T02:30:00+01:00", "10-25T03:00:00+01:00"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:20:00Z", 3),
            ["03-29T01:30:00+01:00", "03-29T03:00:00+02:00", "03-29T03:30:00+02:00"]
        );
    }

    #[test]
    fn the_next_time_is_after_the_moment_to_the_millisecond() {
        let timetable = Timetable::new("* * * * * *", "UTC").unwrap();
        assert_eq!(timetable.next_after(999), Some(1_000));
        assert_eq!(timetable.next_after(1_000), Some(2_000));
        assert_eq!(timetable.next_after(-1), Some(0));
        assert_eq!(timetable.next_after(i64::MAX), None);
        assert_eq!(timetable.next_after(i64::MIN), None);
    }

    #[test]
    fn a_mistake_is_named_with_what_is_allowed() {
        for (cron, zone, text) in [
            ("", "UTC", "has 0 fields: 5 are needed"),
            ("* * * *", "UTC", "has 4 fields: 5 are needed (minute, hour,"),
            ("* * * * * * *", "UTC", "has 7 fields"),
            ("61 * * * *", "UTC", "the minute is \"61\"; 0 to 59 are allowed"),
            ("0 24 * * *", "UTC", "the hour is \"24\""),
            ("0 0 * * MOX", "UTC", "the day of the week is \"MOX\""),
            ("99 0 0 * * *", "UTC", "the second is \"99\""),
            ("@dayly", "UTC", "did you mean @daily?"),
            ("@reboot", "UTC", "@yearly are known"),
            ("0 0 30 2 *", "UTC", "no date fits it"),
            ("* * * * *", "Europe/Berlim", "did you mean Europe/Berlin?"),
            ("* * * * *", "", "timezone is \"\", which is no time zone"),
        ] {
            let error = Timetable::new(cron, zone).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(error.property() == "timezone", text.contains("zone") || zone == "Europe/Berlim", "{error}");
        }
        let long = Timetable::new(&"1,".repeat(200), "UTC").unwrap_err().to_string();
        assert!(long.contains("at most 200 are allowed"), "{long}");
    }

    #[test]
    fn every_form_that_is_documented_is_read() {
        for cron in
            ["*/5 * * * *", "0 0 L * *", "0 9 * * FRI#2", "0 0 15W * *", "@daily", "30 0 2 * * MON-FRI", "0 0 ? * 7"]
        {
            Timetable::new(cron, "Asia/Shanghai").unwrap();
        }
    }
}
