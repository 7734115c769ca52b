//! Charts with the choice of their range. The script draws them.

use maud::{Markup, html};

use crate::dashboard::{
    form::Form,
    html::{format::time, frame::Ui},
    series::Range,
};

/// A chart: its title, and its lines by key and name.
pub type Chart<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// Charts of the numbers at the URL path `data`, which takes `range` as a parameter, as `query`, the query string of the page, does.
/// `began_ms` says since when there are numbers.
pub fn charts(ui: &Ui<'_>, data: &str, query: &Form, began_ms: Option<i64>, charts: &[Chart<'_>]) -> Markup {
    let range = query.first("range").and_then(Range::parse).unwrap_or_default();
    let (t, src) = (ui.t, ui.url(&format!("{data}?range={}", range.as_str())));
    let lines =
        |lines: &[(&str, &str)]| lines.iter().map(|(key, name)| format!("{key}:{name}")).collect::<Vec<_>>().join("|");
    html! {
        div.chart-head {
            nav.ranges aria-label=(t.range) {
                @for (other, name) in Range::ALL.into_iter().zip([t.ten_minutes, t.three_hours, t.one_day]) {
                    a href=(query.with("range", other.as_str())) aria-current=[(other == range).then_some("true")] { (name) }
                }
            }
            span.muted { @if let Some(began) = began_ms { (t.history_since) " " (time(began)) } }
        }
        @for (title, columns) in charts {
            figure.chart data-chart=(lines(columns)) data-src=(src) data-step=(range.step()) data-time=(t.when) {
                figcaption { (title) }
                noscript { p.muted { (t.charts_need_script) } }
            }
        }
    }
}
