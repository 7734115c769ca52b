//! Times that run down while a page is open.

use std::time::Duration;

use maud::{Markup, html};

use crate::dashboard::{html::format::span, text::Texts};

/// The time that is left. In a [`ticking`] table the script counts it down.
pub fn countdown(left: Duration, t: &Texts) -> Markup {
    html! { span data-left=(left.as_millis()) { (span(left, t)) } }
}

/// A table with times that are counted down. Its texts are in the language of the visitor.
pub fn ticking(t: &Texts, rows: &Markup) -> Markup {
    html! { table.wide data-seconds=(t.seconds) data-minutes=(t.minutes) data-over=(t.lease_over) { (rows) } }
}
