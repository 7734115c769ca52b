#![allow(clippy::unwrap_used)]

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::{
    client::{
        code::{ErrorCode, classify},
        error::{ErrorKind, Refusal},
    },
    transport::TransportError,
};

fn answered(status: u16, code: &str, retry_after: Option<u64>) -> Error {
    let (status, code) = (StatusCode::from_u16(status).unwrap(), ErrorCode::parse(code));
    let refusal = Refusal {
        status,
        code,
        foreign_code: None,
        class: classify(status, code),
        message: String::new(),
        request_id: None,
        retry_after: retry_after.map(Duration::from_secs),
    };
    Error::new("test", ErrorKind::Service(refusal))
}

fn refused() -> Error {
    Error::new("test", ErrorKind::Transport("http://h".to_owned(), TransportError::not_sent("refused")))
}

fn lost() -> Error {
    Error::new("test", ErrorKind::Transport("http://h".to_owned(), TransportError::unsure("eof")))
}

/// Whether a first failure of this kind is followed by another try.
fn repeats(repeat: Repeat, error: Error) -> bool {
    let now = Instant::now();
    Tries::new(repeat, &RetryPolicy::default(), None, now).failed(error, now, None).is_ok()
}

const ALL: [Repeat; 4] = [Repeat::Harmless, Repeat::Allowed, Repeat::Leases, Repeat::Doubles];

#[test]
fn what_surely_did_not_happen_is_always_repeated() {
    for repeat in ALL {
        assert!(repeats(repeat, refused()), "{repeat:?}");
        assert!(repeats(repeat, answered(404, "DMS.10240407", None)), "{repeat:?}");
        assert!(repeats(repeat, answered(400, "DMS.10240032", None)), "{repeat:?}");
        assert!(repeats(repeat, answered(503, "", Some(1))), "{repeat:?}");
    }
}

#[test]
fn what_may_have_happened_is_repeated_only_where_that_is_safe() {
    assert_eq!(ALL.map(|repeat| repeats(repeat, lost())), [true, true, false, false]);
    assert_eq!(ALL.map(|repeat| repeats(repeat, answered(500, "DMS.10250002", None))), [true, true, true, false]);
    // A gateway that got no answer does not know either, and neither does one that says when to ask again.
    for (status, retry_after) in [(502, None), (504, None), (504, Some(1))] {
        let error = || answered(status, "", retry_after);
        assert_eq!(ALL.map(|repeat| repeats(repeat, error())), [true, true, false, false], "{status} {retry_after:?}");
    }
    assert_eq!(ALL.map(|repeat| repeats(repeat, answered(500, "", Some(1)))), [true, true, true, false]);
}

#[test]
fn a_mistake_of_the_caller_is_never_repeated() {
    for repeat in ALL {
        for error in [answered(400, "DMS.10240014", None), answered(500, "DMS.10550035", None), answered(404, "", None)]
        {
            assert!(!repeats(repeat, error), "{repeat:?}");
        }
    }
}

#[test]
fn an_error_after_an_unsure_try_is_unsure() {
    let now = Instant::now();
    let mut tries = Tries::new(Repeat::Allowed, &RetryPolicy::default(), None, now);
    tries.failed(lost(), now, None).unwrap();
    let error = tries.failed(answered(400, "DMS.10542209", None), now, None).unwrap_err();
    assert!(error.is_unsure() && !error.is_lost_lease());

    let mut tries = Tries::new(Repeat::Allowed, &RetryPolicy::default(), None, now);
    tries.failed(refused(), now, None).unwrap();
    let error = tries.failed(answered(400, "DMS.10542209", None), now, None).unwrap_err();
    assert!(!error.is_unsure() && error.is_lost_lease());

    let mut tries = Tries::new(Repeat::Doubles, &RetryPolicy::default(), None, now);
    assert!(tries.failed(lost(), now, None).unwrap_err().is_unsure());
}

#[test]
fn a_wait_that_the_service_asks_for_is_kept_unless_it_is_too_long() {
    let now = Instant::now();
    let mut tries = Tries::new(Repeat::Harmless, &RetryPolicy::default(), None, now);
    assert_eq!(tries.failed(answered(429, "", Some(7)), now, None).unwrap(), Duration::from_secs(7));
    assert!(tries.failed(answered(429, "", None), now, None).unwrap() >= THROTTLE_PAUSE);
    assert!(tries.failed(answered(429, "", Some(11)), now, None).is_err());
}

#[test]
fn a_deadline_bounds_the_tries_instead_of_their_number() {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(60);
    let mut tries = Tries::new(Repeat::Allowed, &RetryPolicy::default(), Some(deadline), now);
    let (mut time, mut count) = (now, 0);
    while let Ok(pause) = tries.failed(lost(), time, None) {
        time += pause;
        count += 1;
        assert!(time < deadline);
    }
    assert!(count > 4, "{count} tries");
}

#[test]
fn what_is_being_created_gets_ten_seconds() {
    let now = Instant::now();
    let mut tries = Tries::new(Repeat::Doubles, &RetryPolicy::never(), None, now);
    let creating = || answered(400, "DMS.10240032", None);
    let missing = || answered(404, "DMS.10240401", None);
    let late = now + CREATION_TIMEOUT;
    assert_eq!(tries.failed(creating(), now, None).unwrap(), CREATION_RETRY_DELAY);
    assert!(tries.failed(creating(), late, None).is_err());
    assert_eq!(tries.failed(missing(), now, Some(now)).unwrap(), CREATION_RETRY_DELAY);
    assert!(tries.failed(missing(), late, Some(now)).is_err());
    assert!(tries.failed(missing(), now, None).is_err());
}

proptest! {
    #[test]
    fn a_send_is_never_repeated_after_it_may_have_been_stored(kinds in prop::collection::vec(0..4usize, 1..8)) {
        let now = Instant::now();
        let mut tries = Tries::new(Repeat::Doubles, &RetryPolicy::default().max_attempts(None), None, now);
        for kind in kinds {
            let error = match kind {
                0 => refused(),
                1 => answered(404, "DMS.10240407", None),
                2 => lost(),
                _ => answered(500, "", None),
            };
            prop_assert_eq!(tries.failed(error, now, None).is_ok(), kind < 2);
            if kind >= 2 {
                break;
            }
        }
    }
}
