//! [`bar`]: how far long work is, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::support::{context::Context, drawing};

/// The width of a bar in templates.
const BAR: usize = 40;
/// The columns that the figures beside a bar take.
const FIGURES: usize = 45;

/// A bar on standard error, drawn by `template`; hidden where no progress is shown. Without a length it is given one later.
pub(crate) fn bar(context: &Context, length: Option<u64>, template: &str) -> ProgressBar {
    if !context.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let columns = usize::from(console::Term::stderr().size().1);
    let style = ProgressStyle::with_template(&fitting(template, columns));
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    drawing::begin(&bar);
    bar
}

/// The template with a shorter bar on a narrow terminal: a line that is wrapped cannot be erased.
fn fitting(template: &str, columns: usize) -> String {
    let width = columns.saturating_sub(FIGURES).clamp(5, BAR);
    template.replacen(&format!("{{bar:{BAR}"), &format!("{{bar:{width}"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_leaves_room_for_its_figures() {
        let template = "{bar:40.green} {pos}/{len}";
        assert_eq!(fitting(template, 100), template);
        assert_eq!(fitting(template, 60), "{bar:15.green} {pos}/{len}");
        assert_eq!(fitting(template, 20), "{bar:5.green} {pos}/{len}");
    }
}
