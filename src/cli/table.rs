//! Plain tables that fit the terminal.

use std::fmt;

/// Rows under a head, columns aligned, numbers to the right.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    width: usize,
}

impl Table {
    /// A table with these column heads, as wide as the terminal of standard output, or as it needs to be where there is
    /// none.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        let terminal = console::Term::stdout();
        let width = if terminal.is_term() { usize::from(terminal.size().1) } else { usize::MAX };
        Self { head: head.to_vec(), rows: Vec::new(), width }
    }

    /// Adds a row, one cell per column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|head| console::measure_text_width(head)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(console::measure_text_width(cell));
            }
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let head: Vec<String> = self.head.iter().map(|head| (*head).to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let number = !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
                let side = if number { console::Alignment::Right } else { console::Alignment::Left };
                line.push_str(&console::pad_str(cell, *width, side, None));
                line.push_str("  ");
            }
            writeln!(f, "{}", console::truncate_str(line.trim_end(), self.width, "…"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_fit() {
        let mut table = Table { head: vec!["NAME", "COUNT", "ID"], rows: Vec::new(), width: 20 };
        table.row(["a".to_owned(), "7".to_owned(), "0123456789".to_owned()]);
        table.row(["队列".to_owned(), "1234567".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string(), "NAME  COUNT    ID\na           7  0123…\n队列  1234567  x\n");
    }
}
