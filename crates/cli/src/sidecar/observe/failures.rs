//! [`Failures`]: the failures of a worker, grouped by their error without its numbers.

use std::cmp::Reverse;

use jiff::Timestamp;

use crate::sidecar::observe::{minutes::Minutes, redeliveries::SeenMessage};
use dms_protocol::internal::clock;

/// The maximum number of groups. Beyond it, the group that was seen last the longest ago is forgotten.
const MAX_GROUPS: usize = 50;
/// The maximum length of an error, in characters.
const MAX_CHARS: usize = 300;

/// The failures of a worker.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<FailureGroup>);

#[derive(Debug)]
struct FailureGroup {
    what: &'static str,
    error: String,
    example: String,
    count: u64,
    minutes: Minutes<10>,
    first: Timestamp,
    last: Timestamp,
    message: Option<SeenMessage>,
}

/// Failures with the same error, as they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailureRow {
    /// The step that failed, in one word.
    pub(crate) what: &'static str,
    /// The error; `#` stands for numbers and ids.
    pub(crate) error: String,
    /// The last one as it was.
    pub(crate) example: String,
    /// The number since the start.
    pub(crate) count: u64,
    /// The number in the last ten minutes.
    pub(crate) recent: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    /// The last message that failed like this.
    pub(crate) message: Option<SeenMessage>,
}

impl Failures {
    /// Counts a failure.
    pub(crate) fn count(&mut self, what: &'static str, error: &str, message: Option<SeenMessage>) {
        let example: String = error.chars().take(MAX_CHARS).collect();
        let (error, now) = (normalised(&example), clock::now());
        let known = self.0.iter().position(|group| group.what == what && group.error == error);
        let at = known.unwrap_or_else(|| {
            if self.0.len() >= MAX_GROUPS
                && let Some(oldest) = (0..self.0.len()).min_by_key(|place| self.0[*place].last)
            {
                self.0.swap_remove(oldest);
            }
            let (count, minutes) = (0, Minutes::default());
            let example = String::new();
            self.0.push(FailureGroup { what, error, example, count, minutes, first: now, last: now, message: None });
            self.0.len() - 1
        });
        let group = &mut self.0[at];
        group.count += 1;
        group.minutes.count();
        (group.last, group.example) = (now, example);
        group.message = message.or(group.message.take());
    }

    /// The groups, the most frequent of the last ten minutes first.
    pub(crate) fn rows(&self) -> Vec<FailureRow> {
        let row = |group: &FailureGroup| FailureRow {
            what: group.what,
            error: group.error.clone(),
            example: group.example.clone(),
            count: group.count,
            recent: group.minutes.sum(10),
            first: group.first,
            last: group.last,
            message: group.message.clone(),
        };
        let mut rows: Vec<_> = self.0.iter().map(row).collect();
        rows.sort_by_key(|row| Reverse((row.recent, row.count, row.last)));
        rows
    }
}

/// An error without what differs from message to message: numbers, and ids in hexadecimal digits, become `#`.
fn normalised(error: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let (mut text, mut rest) = (String::new(), error);
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|letter| is_part(letter) != is_part(first)).unwrap_or(rest.len());
        let (word, further) = rest.split_at(end);
        rest = further;
        let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
        let is_id = word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        match has_digit {
            false => text.push_str(word),
            true if is_id => text.push('#'),
            true => without_digits(word, &mut text),
        }
    }
    text
}

/// Adds a word with one `#` for each run of digits.
fn without_digits(word: &str, text: &mut String) {
    let mut in_digits = false;
    for letter in word.chars() {
        let is_digit = letter.is_ascii_digit();
        match (is_digit, in_digits) {
            (true, false) => text.push('#'),
            (true, true) => {}
            (false, _) => text.push(letter),
        }
        in_digits = is_digit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_in_numbers_and_ids_are_one() {
        let cases = [
            ("no such account 4711", "no such account #"),
            ("order-12 took 29.5 s", "order-# took #.# s"),
            (
                "tcp connect error: Connection refused (os error 111)",
                "tcp connect error: Connection refused (os error #)",
            ),
            ("user 550e8400-e29b-41d4-a716-446655440000 is unknown", "user # is unknown"),
            ("commit deadbeef1 failed at 2026-11-29T10:00:00Z", "commit # failed at #-#-#T#:#:#Z"),
            ("defaced facade", "defaced facade"),
            ("\u{8bf7}\u{6c42} 7 \u{5931}\u{8d25}", "\u{8bf7}\u{6c42} # \u{5931}\u{8d25}"),
            ("", ""),
        ];
        for (error, expected) in cases {
            assert_eq!(normalised(error), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn groups_are_counted_and_bounded() {
        let mut failures = Failures::default();
        (0..5).for_each(|number| failures.count("handler", &format!("no such account {number}"), None));
        failures.count("poll", "no such account 1", None);
        let rows = failures.rows();
        assert_eq!((rows.len(), rows[0].count, rows[0].recent, rows[0].what), (2, 5, 5, "handler"));
        assert_eq!((rows[0].error.as_str(), rows[0].example.as_str()), ("no such account #", "no such account 4"));
        let letter = |number: u32| char::from_u32(0x4e00 + number).unwrap_or_default();
        (0..500).for_each(|number| failures.count("handler", &letter(number).to_string(), None));
        assert_eq!(failures.rows().len(), MAX_GROUPS);
    }
}
