//! The table of all groups: one line each, at most 80 columns wide.

use console::{Alignment, measure_text_width, pad_str};

use crate::cli::commands::overview::{
    Row,
    figures::{age, count, or_dash, rate},
};
use dms_protocol::internal::visible::visible;

/// The heads of the columns behind the name.
const HEAD: [&str; 8] = ["BACKLOG", "FLIGHT", DELAYED, "DEAD", "OLDEST", "POLLS", "IN/S", "OUT/S"];
/// A terminal that is narrower than this has no room for the column [`DELAYED`].
const NARROW: usize = 72;
const DELAYED: &str = "DELAYED";
const NAME: &str = "QUEUE/GROUP";

/// The width of the terminal of standard output, at most 80 columns; 80 where there is no terminal.
pub(crate) fn width() -> usize {
    let terminal = console::Term::stdout();
    if terminal.is_term() { usize::from(terminal.size().1).clamp(20, 80) } else { 80 }
}

/// The lines of the table. A name that leaves no room for the figures gets a separate line, so that nothing is cut off.
pub(crate) fn lines(rows: &[Row], width: usize) -> Vec<String> {
    let gap = if width < NARROW { 1 } else { 2 };
    let shown = |cells: [String; 8]| -> Vec<String> {
        let shown = HEAD.iter().map(|head| width >= NARROW || *head != DELAYED);
        cells.into_iter().zip(shown).filter(|(_, shown)| *shown).map(|(cell, _)| cell).collect()
    };
    let head = shown(HEAD.map(str::to_owned));
    let cells: Vec<Vec<String>> = rows.iter().map(|row| shown(cells(row))).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|at| cells.iter().chain([&head]).filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0))
        .collect();
    let figures: usize = widths.iter().map(|width| width + gap).sum();
    let names: Vec<String> = rows.iter().map(|row| visible(&row.name()).into_owned()).collect();
    let longest = names.iter().map(|name| measure_text_width(name)).max().unwrap_or(0).max(NAME.len());
    let room = longest.min(width.saturating_sub(figures)).max(2);
    let figures = |cells: &[String]| -> String {
        let cells = cells.iter().zip(&widths);
        cells.map(|(cell, width)| format!("{:gap$}{cell:>width$}", "")).collect()
    };
    let mut lines = Vec::new();
    for (name, cells) in std::iter::once((NAME, &head)).chain(names.iter().map(String::as_str).zip(&cells)) {
        if measure_text_width(name) <= room {
            lines.push(format!("{}{}", pad_str(name, room, Alignment::Left, None), figures(cells)));
            continue;
        }
        // A queue and a group that are too wide together are broken between them.
        match name.split_once('/').filter(|_| measure_text_width(name) > width) {
            Some((queue, group)) => lines.extend([format!("{queue}/"), format!("  {group}")]),
            None => lines.push(name.to_owned()),
        }
        lines.push(format!("{:room$}{}", "", figures(cells)));
    }
    lines
}

fn cells(row: &Row) -> [String; 8] {
    [
        count(row.backlog),
        or_dash(row.in_flight, count),
        or_dash(row.delayed, count),
        or_dash(row.dead, count),
        or_dash(row.oldest, age),
        or_dash(row.waiting, count),
        or_dash(row.in_per_second, rate),
        or_dash(row.out_per_second, rate),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(queue: &str, group: &str, backlog: u64) -> Row {
        Row {
            queue: queue.to_owned(),
            group: Some(group.to_owned()),
            backlog,
            in_flight: Some(10),
            delayed: Some(0),
            dead: None,
            oldest: Some(Duration::from_secs(3_700)),
            waiting: Some(2),
            in_per_second: Some(12.44),
            out_per_second: Some(0.0),
        }
    }

    #[test]
    fn a_line_shows_a_group() {
        let lines = lines(&[row("orders", "billing", 97), row("orders", "x", 1_234_567)], 80);
        let wanted = [
            "QUEUE/GROUP     BACKLOG  FLIGHT  DELAYED  DEAD  OLDEST  POLLS  IN/S  OUT/S",
            "orders/billing       97      10        0     -   1h01m      2  12.4      0",
            "orders/x           1.2M      10        0     -   1h01m      2  12.4      0",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_name_is_cut() {
        let (queue, group) = ("q".repeat(59), "g".repeat(32));
        let rows = [row(&queue, &group, 99_999), row("a", "b", 1), row("队列", "组", 5)];
        for width in [60, 80] {
            let lines = lines(&rows, width);
            assert!(lines[1..3] == [format!("{queue}/"), format!("  {group}")], "{lines:#?}");
            assert!(lines.iter().all(|line| measure_text_width(line) <= width), "{lines:#?}");
        }
    }
}
