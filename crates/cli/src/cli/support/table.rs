//! Plain tables that fit the terminal.

use std::{fmt, iter::once, ops::Range};

use console::{Alignment, measure_text_width, pad_str, truncate_str};

use dms_protocol::internal::visible::visible;

/// The gap between columns, and the indent of lines that continue a row.
const GAP: &str = "  ";

/// Rows under a head, columns aligned, numbers to the right. Columns that the terminal has no room for continue their row on
/// the next line, and a cell that is wider than a line is broken: nothing is cut off, so that identifiers can be copied.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    width: usize,
}

impl Table {
    /// A table with these column heads, for the terminal of standard output, or as wide as it needs to be where there is
    /// none.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        let terminal = console::Term::stdout();
        let width = if terminal.is_term() { usize::from(terminal.size().1) } else { usize::MAX };
        Self { head: head.to_vec(), rows: Vec::new(), width }
    }

    /// Adds a row, one cell per column, each in one line.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell).into_owned()).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|head| measure_text_width(head)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(measure_text_width(cell));
            }
        }
        widths
    }

    /// The columns of each line of a row: as many as fit, at least one.
    fn lines(&self, widths: &[usize]) -> Vec<Range<usize>> {
        let mut lines = Vec::new();
        let (mut first, mut used) = (0, 0);
        for (column, width) in widths.iter().enumerate() {
            if column > first && used + width > self.width {
                lines.push(first..column);
                (first, used) = (column, GAP.len());
            }
            used += width + GAP.len();
        }
        lines.push(first..widths.len());
        lines
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let lines = self.lines(&widths);
        let head: Vec<String> = self.head.iter().map(|head| (*head).to_owned()).collect();
        for row in once(&head).chain(&self.rows) {
            for columns in &lines {
                let indent = if columns.start == 0 { "" } else { GAP };
                let line = aligned(&row[columns.clone()], &widths[columns.clone()]);
                for piece in pieces(&line, self.width.saturating_sub(indent.len())) {
                    writeln!(f, "{indent}{piece}")?;
                }
            }
        }
        Ok(())
    }
}

/// Cells beside each other, each as wide as its column.
fn aligned(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let number = !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
        let side = if number { Alignment::Right } else { Alignment::Left };
        line.push_str(&pad_str(cell, *width, side, None));
        line.push_str(GAP);
    }
    line.truncate(line.trim_end().len());
    line
}

/// The text in pieces of at most this width.
fn pieces(text: &str, width: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while measure_text_width(rest) > width {
        let fitting = truncate_str(rest, width, "").len();
        // Not even one character fits.
        if fitting == 0 {
            break;
        }
        pieces.push(&rest[..fitting]);
        rest = &rest[fitting..];
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: usize) -> Table {
        let mut table = Table { head: vec!["NAME", "COUNT", "ID"], rows: Vec::new(), width };
        table.row(["a".to_owned(), "7".to_owned(), "0123456789".to_owned()]);
        table.row(["队列".to_owned(), "1234567".to_owned(), "x".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let wide = "NAME  COUNT    ID\na           7  0123456789\n队列  1234567  x\n";
        assert_eq!(table(usize::MAX).to_string(), wide);
        assert_eq!(table(25).to_string(), wide, "it fits exactly");
    }

    #[test]
    fn foreign_text_stays_in_its_cell() {
        let mut table = Table { head: vec!["NAME", "ID"], rows: Vec::new(), width: usize::MAX };
        table.row(["a\r\n\u{1b}[2J\u{9b}\u{202e}".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string().lines().nth(1), Some(r"a\r\n\u{1b}[2J\u{9b}\u{202e}  x"));
    }

    #[test]
    fn what_does_not_fit_continues_below() {
        let folded = "NAME  COUNT\n  ID\na           7\n  0123456789\n队列  1234567\n  x\n";
        assert_eq!(table(24).to_string(), folded);
    }

    #[test]
    fn a_cell_wider_than_a_line_is_broken_and_nothing_is_lost() {
        let narrow = table(7).to_string();
        assert!(narrow.lines().all(|line| measure_text_width(line) <= 7), "{narrow}");
        assert!(narrow.contains("  01234\n  56789\n"), "{narrow}");
        assert!(table(1).to_string().contains('队'), "no width is too small");
    }
}
