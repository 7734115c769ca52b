//! [`bar`]: how far long work is, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::support::context::Context;

/// A bar on standard error, drawn by `template`; hidden where no progress is shown. Without a length it is given one later.
pub(crate) fn bar(context: &Context, length: Option<u64>, template: &str) -> ProgressBar {
    if !context.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
