//! Columns that both people and `awk` can read.
//!
//! A header line, then a line each; columns are padded with blanks and never cut off. No field contains a blank but the last, and an empty one
//! is `-`, so that the n-th word of a line is always the n-th column. Everything passes [`printable`] here once more, as the last place before
//! the terminal.

use super::text::{Paint, printable};
use std::io::{self, Write};

/// Lines of one listing.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<(bool, Vec<String>)>,
}

impl Table {
    /// An empty one.
    pub(super) fn new(header: &[&'static str]) -> Table {
        Table { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a line; `alarm`: it needs attention.
    pub(super) fn row(&mut self, alarm: bool, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len());
        let last = cells.len().saturating_sub(1);
        let cells = cells.iter().enumerate().map(|(i, c)| if i == last { whole(c) } else { word(c) });
        self.rows.push((alarm, cells.collect()));
    }

    /// Writes it.
    ///
    /// # Errors
    /// What `to` gave.
    pub(super) fn write(&self, to: &mut impl Write, paint: Paint) -> io::Result<()> {
        let mut widths: Vec<usize> = self.header.iter().map(|h| h.len()).collect();
        for (_, row) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        writeln!(to, "{}", paint.bold(&line(self.header.iter().copied(), &widths)))?;
        for (alarm, row) in &self.rows {
            let text = line(row.iter().map(String::as_str), &widths);
            writeln!(to, "{}", if *alarm { paint.alarm(&text) } else { text })?;
        }
        Ok(())
    }
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        text.push_str(&format!("{cell:width$}  "));
    }
    text.truncate(text.trim_end().len());
    text
}

/// A field as one word.
pub(super) fn word(text: &str) -> String {
    let one: String = printable(text).chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
    if one.is_empty() { "-".to_owned() } else { one }
}

/// A field that may hold blanks.
pub(super) fn whole(text: &str) -> String {
    let text = printable(text);
    if text.trim().is_empty() { "-".to_owned() } else { text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evctl::text::Color;

    #[test]
    fn the_nth_word_is_the_nth_column() {
        let mut table = Table::new(&["A", "LONG", "REST"]);
        table.row(false, vec!["a b".into(), String::new(), "x y ".into()]);
        table.row(true, vec!["\x1b[2J".into(), "\u{3000}\u{9b}".into(), "\n".into()]);
        let mut out = Vec::new();
        table.write(&mut out, Color::Never.paint()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "A     LONG  REST\na_b   -     x y\n?[2J  _?    ?\n");
    }

    #[test]
    fn only_whole_lines_are_coloured() {
        let mut table = Table::new(&["A", "B"]);
        table.row(true, vec!["1".into(), "2".into()]);
        let mut out = Vec::new();
        table.write(&mut out, Color::Always.paint()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[1mA  B\x1b[0m\n\x1b[31m1  2\x1b[0m\n");
    }
}
