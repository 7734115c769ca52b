//! Numbers, rates and ages in few characters, for tables.

use std::time::Duration;

/// A count of at most five characters: exact below 100,000.
pub(crate) fn count(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..1_000_000 => format!("{}k", count / 1_000),
        _ => {
            let units = [(1_000_000_000_000_u64, "T"), (1_000_000_000, "G"), (1_000_000, "M")];
            let (unit, name) = units.into_iter().find(|(unit, _)| count >= *unit).unwrap_or((1_000_000, "M"));
            match (count / unit, count % unit * 10 / unit) {
                (whole @ 0..100, tenths) => format!("{whole}.{tenths}{name}"),
                (whole, _) => format!("{whole}{name}"),
            }
        }
    }
}

/// A rate per second of at most five characters.
pub(crate) fn rate(rate: f64) -> String {
    match rate {
        // Less than one in a hundred seconds would be shown as none at all.
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 0.1 => "<0.1".to_owned(),
        rate if rate < 99.95 => format!("{rate:.1}"),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive, and saturates")]
        rate => count(rate.round() as u64),
    }
}

/// An age or a time of at most six characters, in its two largest units.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A value that the service may not report; `-` if it does not.
pub(crate) fn or_dash<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (number, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_999, "999k"),
            (1_250_000, "1.2M"),
            (123_456_789, "123M"),
            (7_000_000_000, "7.0G"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(count(number), text);
        }
        for (number, text) in
            [(0.0, "0"), (0.05, "<0.1"), (2.0, "2.0"), (99.94, "99.9"), (99.96, "100"), (123_456.0, "123k")]
        {
            assert_eq!(rate(number), text);
        }
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m01s"), (3_599, "59m59s"), (7_260, "2h01m"), (90_000, "1d01h")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
