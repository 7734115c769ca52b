#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::config::schema::values::{Auto, InvalidSpan, Rate, Secret, Span};

#[test]
fn a_span_is_read_with_its_units_and_printed_the_same() {
    let cases = [("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("500ms", 500), ("2d", 172_800_000)];
    for (text, millis) in cases {
        let span: Span = text.parse().unwrap();
        assert_eq!(span.get(), Duration::from_millis(millis));
        assert_eq!(span.to_string(), text);
    }
    assert_eq!("90s".parse::<Span>().unwrap().to_string(), "1m30s");
    assert_eq!("0".parse::<Span>().unwrap().to_string(), "0s");
}

#[test]
fn a_span_without_unit_is_refused_with_the_remedy() {
    assert_eq!("30".parse::<Span>(), Err(InvalidSpan::NoUnit(30)));
    assert_eq!(
        "30".parse::<Span>().unwrap_err().to_string(),
        "`30` has no unit: write 30s for seconds or 30ms for milliseconds"
    );
    for bad in ["", "s", "-1s", "1.5h", "3 s", "10x", "99999999999999999999s", "999999999999999999d"] {
        assert!(bad.parse::<Span>().is_err(), "{bad:?} passed");
    }
}

#[test]
fn a_rate_has_a_count_above_zero_and_a_unit() {
    let rate: Rate = "200/s".parse().unwrap();
    assert_eq!((rate.count(), rate.per()), (200, Duration::from_secs(1)));
    assert_eq!("30/m".parse::<Rate>().unwrap().to_string(), "30/m");
    assert!(("120/m".parse::<Rate>().unwrap().per_second() - 2.0).abs() < 1e-9);
    for bad in ["", "200", "0/s", "-1/s", "1/d", "x/s", "1.5/s"] {
        assert!(bad.parse::<Rate>().is_err(), "{bad:?} passed");
    }
}

#[test]
fn auto_reads_a_word_a_number_or_a_number_as_text() {
    let read = |json: &str| serde_json::from_str::<Auto<usize>>(json);
    assert_eq!(read("\"auto\"").unwrap(), Auto::Auto);
    assert_eq!(read("4").unwrap(), Auto::Fixed(4));
    assert_eq!(read("\"4\"").unwrap(), Auto::Fixed(4));
    let error = read("\"many\"").unwrap_err().to_string();
    assert!(error.contains("`many` is not allowed: write `auto` or a whole number"), "{error}");
}

#[test]
fn a_secret_shows_itself_nowhere() {
    let secret = Secret::new("hunter2");
    assert_eq!(format!("{secret:?}"), "***");
    assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    assert_eq!(secret.expose(), "hunter2");
}
