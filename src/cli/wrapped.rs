//! Texts for a terminal, broken into lines between words.

use crate::shown::shown;

/// The indentation of all lines but the first.
const INDENT: &str = "  ";

/// The text as lines of at most `width` columns, as far as its words are shorter. Each line ends with a newline.
pub fn paragraph(text: &str, width: usize) -> String {
    let text = shown(text);
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let needed = super::table::width(&line) + 1 + super::table::width(word);
        if !line.trim().is_empty() && needed > width {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = INDENT.to_owned() + word;
        } else if line.is_empty() {
            word.clone_into(&mut line);
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(paragraph("one two three", 8), "one two\n  three\n");
        assert_eq!(paragraph("one two three", usize::MAX), "one two three\n");
        assert_eq!(
            paragraph("incomprehensibilities", 5),
            "incomprehensibilities\n"
        );
        assert_eq!(paragraph("", 5), "\n");
    }
}
