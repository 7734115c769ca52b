//! Numbers, durations, times and foreign text, as pages show them. Numbers are exact: none passes through a float.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use crate::dashboard::text::{Texts, fill};
use dms_protocol::internal::visible::is_obeyed;

/// A count with commas, such as `1,204,331`.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: one decimal below 10, otherwise a whole number.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 0.05 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => number(whole(rate)),
    }
}

/// A float as a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A duration with one unit, such as `41 min`.
pub fn span(duration: Duration, t: &Texts) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0 if !duration.is_zero() => return fill(t.milliseconds, &[&duration.as_millis().max(1).to_string()]),
        0..=119 => (seconds, t.seconds),
        120..=7_199 => (seconds / 60, t.minutes),
        7_200..=172_799 => (seconds / 3_600, t.hours),
        _ => (seconds / 86_400, t.days),
    };
    fill(unit, &[&number(count)])
}

/// A size, such as `2.1 GB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut scaled, mut unit) = (size, 0);
    let mut rest = 0;
    while scaled >= 1_000 && unit + 1 < UNITS.len() {
        (rest, scaled, unit) = (scaled % 1_000 / 100, scaled / 1_000, unit + 1);
    }
    let unit = UNITS[unit];
    if scaled < 10 && unit != "B" { format!("{scaled}.{rest} {unit}") } else { format!("{scaled} {unit}") }
}

/// A time. The script of the page shows it in the time zone of the visitor.
pub fn time(unix_ms: i64) -> Markup {
    let Ok(at) = Timestamp::from_millisecond(unix_ms) else { return html! { "–" } };
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S")) " UTC" } }
}

/// Foreign text. Characters that change how the text around them is shown are named instead.
pub fn foreign(text: &str) -> Markup {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((at, hidden)) = rest.char_indices().find(|(_, letter)| is_hidden(*letter)) {
        parts.push((&rest[..at], Some(hidden)));
        rest = &rest[at + hidden.len_utf8()..];
    }
    parts.push((rest, None));
    html! {
        @for (text, hidden) in parts {
            (text)
            @if let Some(hidden) = hidden { span.hidden-char { (format!("U+{:04X}", u32::from(hidden))) } }
        }
    }
}

/// Whether a character is invisible or moves the text around it: controls, marks of direction, and separators.
fn is_hidden(letter: char) -> bool {
    !matches!(letter, '\t' | '\n') && is_obeyed(letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::text::Language;

    #[test]
    fn numbers_are_exact_and_have_commas() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_204, "12,204")] {
            assert_eq!(number(count), text);
        }
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn rates_sizes_and_spans_are_short() {
        let rates = [0.0, 0.04, 0.25, 9.94, 9.95, 812.4, 12_345.6].map(rate);
        assert_eq!(rates, ["0", "0", "0.2", "9.9", "10", "812", "12,346"]);
        let sizes = [0, 999, 1_000, 2_149_999, 12_345_678, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "2.1 MB", "12 MB", "18446744 TB"]);
        let spans =
            [0, 1, 119, 120, 7_200, 200_000].map(|secs| span(Duration::from_secs(secs), Language::English.texts()));
        assert_eq!(spans, ["0 s", "1 s", "119 s", "2 min", "2 h", "2 d"]);
    }

    #[test]
    fn foreign_text_moves_nothing_around_it() {
        let shown = foreign("a\u{202e}b</script><b onclick=\"x\">\u{1b}[31m").into_string();
        assert!(shown.contains("U+202E") && shown.contains("U+001B"), "{shown}");
        assert!(!shown.contains("</script>") && !shown.contains("<b ") && !shown.contains('\u{202e}'), "{shown}");
        assert_eq!(foreign("你好 😀\n").into_string(), "你好 😀\n");
    }
}
