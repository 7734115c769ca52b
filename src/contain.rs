//! Contains panics of users' code: when it runs, when its values are formatted, and when they are dropped.

use std::{
    any::Any,
    fmt::{self, Write},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::text::cut;
pub(crate) use dms_protocol::internal::panics::until_panic;

/// The longest text of a value, in bytes.
const MAX_TEXT: usize = 4_096;
/// Marks a text that was cut.
const CUT: &str = "…";

/// Runs a user's code. Returns the text of a panic as the error.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(panic_text)
}

/// The text of a panic. Drops the payload.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text_of(text),
        (None, Some(text)) => text_of(text),
        (None, None) => "a panic without a message".to_owned(),
    };
    discard(panic);
    text
}

/// Drops a user's value and contains a panic of its destructor.
pub(crate) fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping the payload could panic again, so it is leaked.
        mem::forget(panic);
    }
}

/// The text of a user's value, cut at [`MAX_TEXT`]. If formatting panics, the text says so.
pub(crate) fn text_of(value: &(impl fmt::Display + ?Sized)) -> String {
    written(format_args!("{value}"))
}

/// As [`text_of`], with `Debug`.
pub(crate) fn debug_text_of(value: &(impl fmt::Debug + ?Sized)) -> String {
    written(format_args!("{value:?}"))
}

fn written(text: fmt::Arguments<'_>) -> String {
    let mut begun = Bounded(String::new());
    match contained(|| begun.write_fmt(text)) {
        // An error means that the limit was reached or that the value failed. The text so far is kept in both cases.
        Ok(_) => begun.0,
        Err(panic) => format!("(no text: writing it panicked: {panic})"),
    }
}

/// A writer that stops at [`MAX_TEXT`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = MAX_TEXT.saturating_sub(self.0.len());
        if more.len() <= room {
            self.0.push_str(more);
            return Ok(());
        }
        self.0.push_str(cut(more, room));
        self.0.push_str(CUT);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("planted");
        }
    }

    impl fmt::Display for Bomb {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }

    #[test]
    fn what_panics_when_it_is_dropped_is_without_effect() {
        discard(Bomb);
        assert_eq!(contained(|| std::panic::panic_any(Bomb)), Err::<(), _>("a panic without a message".to_owned()));
    }

    #[test]
    fn texts_are_cut_between_characters_and_their_errors_are_no_panics() {
        let long = "é".repeat(MAX_TEXT);
        let text = text_of(&long);
        assert!(text.len() <= MAX_TEXT + CUT.len() && text.ends_with("é…"), "{} bytes", text.len());
        assert_eq!(text_of("short"), "short");
        let bomb = mem::ManuallyDrop::new(Bomb);
        assert_eq!(text_of(&*bomb), "");
    }
}
