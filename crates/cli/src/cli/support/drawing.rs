//! [`undisturbed`]: text beside a progress bar.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

/// The bar that is drawn; a command has one at a time.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Takes note of a bar that is drawn from now on.
pub(crate) fn begin(bar: &ProgressBar) {
    *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// Writes to the terminal while no bar is there: it is erased before and drawn again after. Otherwise the text would stand behind the bar
/// or be overwritten by it, and a part of the bar would be left.
pub(crate) fn undisturbed<T>(write: impl FnOnce() -> T) -> T {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match drawn.filter(|bar| !bar.is_finished()) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike};

    use super::*;

    #[test]
    fn a_text_stands_above_the_bar_and_nothing_of_the_bar_is_left() {
        let term = InMemoryTerm::new(10, 60);
        let bar = ProgressBar::with_draw_target(Some(10), ProgressDrawTarget::term_like(Box::new(term.clone())));
        begin(&bar);
        bar.set_position(3);
        assert!(term.contents().contains("3/10"), "{}", term.contents());
        undisturbed(|| term.write_line("one")).unwrap_or_default();
        let shown = term.contents();
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines.len() == 2 && lines[0] == "one" && lines[1].contains("3/10"), "{shown}");
        bar.finish_and_clear();
        undisturbed(|| term.write_line("two")).unwrap_or_default();
        assert_eq!(term.contents(), "one\ntwo");
    }
}
