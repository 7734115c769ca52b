//! What is the user's stays with the user: running, writing out and dropping values of theirs may panic, and takes nothing of ours down.

use std::{
    any::Any,
    fmt::{self, Write},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::text::cut;

/// The longest text that is taken of a value, in bytes.
const MAX_TEXT: usize = 4_096;
/// Stands for what a text has beyond that.
const CUT: &str = "…";

/// Runs code of the user's; where it panics, gives the panic's text.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(panic_text)
}

/// The text of a panic, whose payload is dropped.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text_of(text),
        (None, Some(text)) => text_of(text),
        (None, None) => "a panic without a message".to_owned(),
    };
    discard(panic);
    text
}

/// Drops a value of the user's.
pub(crate) fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Its payload may do the same: it is left where it is.
        mem::forget(panic);
    }
}

/// The text of a value of the user's, as long as is reasonable; where writing it panics, a text that says so.
pub(crate) fn text_of(value: &(impl fmt::Display + ?Sized)) -> String {
    written(format_args!("{value}"))
}

/// The same for its debug text.
pub(crate) fn debug_text_of(value: &(impl fmt::Debug + ?Sized)) -> String {
    written(format_args!("{value:?}"))
}

fn written(text: fmt::Arguments<'_>) -> String {
    let mut begun = Bounded(String::new());
    match contained(|| begun.write_fmt(text)) {
        // An error is the end of what was wanted, or the value's own: what was written stands.
        Ok(_) => begun.0,
        Err(panic) => format!("(no text: writing it panicked: {panic})"),
    }
}

/// Takes a text up to its limit.
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
