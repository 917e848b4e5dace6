//! Tables for a terminal, aligned by display width.
//!
//! The number of columns that a character takes on a terminal is neither its number of bytes nor 1: an ideograph or an
//! emoji takes two, a combining mark none (Unicode Standard Annex #11, "East Asian Width"). The texts of users have all
//! of them. A text is only cut between what a reader takes for characters (extended grapheme clusters, Annex #29), so
//! neither an accent nor a part of an emoji is lost.

use std::fmt::Write as _;

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::output::{self, OutputError};
use crate::shown::is_misleading;

/// Between two columns.
const SEPARATOR: &str = "  ";

/// Prints rows under headings in aligned columns. Each row has a cell for each heading; cells that are wider than
/// `max_cell_width` terminal columns are cut.
///
/// # Errors
/// If it cannot be written.
pub fn print(
    headings: &[&str],
    rows: &[Vec<String>],
    max_cell_width: usize,
) -> Result<(), OutputError> {
    output::data(&render(headings, rows, max_cell_width))
}

/// The table as text: see [`print`].
pub fn render(headings: &[&str], rows: &[Vec<String>], max_cell_width: usize) -> String {
    let headings: Vec<String> = headings
        .iter()
        .map(|heading| fit(heading, max_cell_width))
        .collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| fit(cell, max_cell_width)).collect())
        .collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .chain([&headings[column]])
                .map(|cell| cell.width())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();

    let mut table = String::new();
    for row in [&headings, &rule].into_iter().chain(&rows) {
        let _ = writeln!(table, "{}", line(row, &widths));
    }
    table
}

fn line(cells: &[String], widths: &[usize]) -> String {
    // Not `{cell:<width$}`, which counts characters.
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width()))))
        .collect();
    padded.join(SEPARATOR).trim_end().to_owned()
}

/// The number of columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text on one line, at most `max_width` terminal columns wide. A text that was cut ends with an ellipsis.
pub fn fit(text: &str, max_width: usize) -> String {
    let text = without_misleading(text, max_width);
    if text.width() <= max_width {
        return text;
    }
    let mut width = 0;
    let kept: String = text
        .graphemes(true)
        .take_while(|grapheme| {
            width += grapheme.width();
            // One column is for the ellipsis.
            width < max_width
        })
        .collect();
    format!("{}…", kept.trim_end())
}

/// As [`fit`], but a text that is too wide is cut at its beginning.
pub fn fit_end(text: &str, max_width: usize) -> String {
    // As much as can be seen of it, from the end.
    let seen = max_width.saturating_add(1).saturating_mul(64);
    let skipped = text.chars().count().saturating_sub(seen);
    let text: String = text.chars().skip(skipped).collect();
    let text = without_misleading(&text, seen);
    if skipped == 0 && text.width() <= max_width {
        return text;
    }
    let mut width = 0;
    let kept = text.graphemes(true).rev().take_while(|grapheme| {
        width += grapheme.width();
        // One column is for the ellipsis.
        width < max_width
    });
    let kept: Vec<&str> = kept.collect();
    let kept: String = kept.into_iter().rev().collect();
    format!("…{}", kept.trim_start())
}

/// The text with a space in the place of each character that acts on a terminal or misleads its reader, as far as it
/// can be seen: a cell may hold a gigabyte.
fn without_misleading(text: &str, max_width: usize) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    // An emoji of several people is the longest that takes two columns.
    while let Some(c) = rest
        .next()
        .filter(|_| plain.len() < max_width.saturating_add(1).saturating_mul(64))
    {
        let is_misleading = is_misleading(c, plain.chars().next_back(), rest.clone().next());
        plain.push(if is_misleading { ' ' } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_are_cut_between_characters() {
        assert_eq!(fit("Übergröße", 5), "Über…");
        assert_eq!(fit("Übergröße", 9), "Übergröße");
        assert_eq!(fit("one two three", 8), "one two…");
    }

    #[test]
    fn a_text_can_be_cut_at_its_beginning() {
        assert_eq!(fit_end("one two three", 8), "…o three");
        assert_eq!(fit_end("one two three", 7), "…three");
        assert_eq!(fit_end("one\ntwo", 7), "one two");
        assert_eq!(fit_end("論理複製", 6), "…複製");
        let long = "a".repeat(10_000) + "end";
        assert_eq!(fit_end(&long, 4), "…end");
    }

    #[test]
    fn cells_are_cut_by_display_width() {
        // Each ideograph takes two columns.
        assert_eq!(fit("論理複製", 8), "論理複製");
        assert_eq!(fit("論理複製", 7), "論理複…");
        assert_eq!(fit("論理複製", 6), "論理…");
        assert_eq!(fit("🦀🦀🦀", 5), "🦀🦀…");
    }

    #[test]
    fn a_cut_splits_neither_an_accent_nor_an_emoji() {
        // "é" as a letter and a combining acute accent, and a scientist of three code points.
        assert_eq!(fit("e\u{301}te\u{301}", 3), "e\u{301}te\u{301}");
        assert_eq!(fit("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        let scientist = "👩\u{200d}🔬";
        assert_eq!(fit(&format!("{scientist}abc"), 4), format!("{scientist}a…"));
        assert_eq!(fit(&format!("ab{scientist}c"), 4), "ab…");
    }

    #[test]
    fn characters_that_a_terminal_acts_on_are_replaced() {
        assert_eq!(fit("a\nb", 5), "a b");
        assert_eq!(fit("a\u{1b}[31mb\t\u{7f}", 20), "a [31mb  ");
        assert_eq!(fit("a\u{202e}b\u{2028}c", 20), "a b c");
        assert_eq!(fit("a\u{200b}b\u{200f}c\u{9b}d", 20), "a b c d");
        let table = render(&["id\u{1b}[2J"], &[vec!["1\n".into()]], 20);
        assert_eq!(table, "id [2J\n------\n1\n");
    }

    #[test]
    fn columns_are_aligned_whatever_their_texts_are() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["論理", "a"]),
            row(["cafe\u{301}", "b"]),
            row(["x", "🦀🦀🦀"]),
        ];
        let table = render(&["text", "n"], &rows, 5);
        let expected = "text  n\n----  -----\n論理  a\ncafe\u{301}  b\nx     🦀🦀…\n";
        assert_eq!(table, expected);
        assert_eq!(render(&["id"], &[], 5), "id\n--\n");
    }

    proptest::proptest! {
        #[test]
        fn a_cell_is_never_wider_than_allowed(
            text in "\\PC{0,40}|[論é🦀\u{301}\u{200d}a]{0,40}",
            max_width in 1usize..20,
        ) {
            proptest::prop_assert!(fit(&text, max_width).width() <= max_width);
        }
    }
}
