//! [`undisturbed`]: writes text while a progress bar is drawn.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

/// The progress bar that is drawn. A command has one at a time.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Registers a progress bar that is now drawn.
pub(crate) fn begin(bar: &ProgressBar) {
    *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// Erases the progress bar, calls `write`, and draws the bar again. Otherwise the text and the bar would overwrite each other, and a
/// part of the bar would stay on the screen.
pub(crate) fn undisturbed<T>(write: impl FnOnce() -> T) -> T {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match drawn.filter(|bar| !bar.is_finished()) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{io, sync::Arc};

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal that records how its line changes.
    #[derive(Clone, Debug, Default)]
    struct Line(Arc<Mutex<Vec<String>>>);

    impl Line {
        fn note(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push(text.to_owned());
            Ok(())
        }
    }

    impl TermLike for Line {
        fn width(&self) -> u16 {
            60
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.note(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.note(text)
        }
        fn clear_line(&self) -> io::Result<()> {
            self.note("CLEARED")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_text_stands_above_the_bar_and_nothing_of_the_bar_is_left() {
        let line = Line::default();
        let bar = ProgressBar::with_draw_target(Some(10), ProgressDrawTarget::term_like(Box::new(line.clone())));
        begin(&bar);
        bar.set_position(3);
        bar.tick();
        let noted = |text: &str| line.0.lock().unwrap().iter().any(|noted| noted.contains(text));
        assert!(noted("3/10"), "{line:?}");
        line.0.lock().unwrap().clear();
        undisturbed(|| line.note("one")).unwrap();
        let all = line.0.lock().unwrap().clone();
        let place = all.iter().position(|noted| noted == "one").unwrap();
        assert!(all[..place].iter().any(|noted| noted == "CLEARED"), "{all:?}");
        assert!(all[place..].iter().any(|noted| noted.contains("3/10")), "{all:?}");
        bar.finish_and_clear();
        line.0.lock().unwrap().clear();
        undisturbed(|| line.note("two")).unwrap();
        assert_eq!(*line.0.lock().unwrap(), ["two"]);
    }
}
