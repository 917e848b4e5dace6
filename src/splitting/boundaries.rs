//! The places where a passage may begin, and how good each is: before every word, by what is around it.

use super::code;
use super::level::{Level, Mark};
use super::markdown;
use super::mode::Mode;

/// A place before a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boundary {
    pub at: usize,
    pub level: Level,
}

/// All places of a document, in order, found one after the other.
pub(super) struct Boundaries<'a> {
    text: &'a str,
    at: usize,
    marks: std::iter::Peekable<std::vec::IntoIter<Mark>>,
    /// Lines are statements rather than pieces of a paragraph.
    is_code: bool,
}

impl<'a> Boundaries<'a> {
    pub(super) fn new(text: &'a str, mode: Mode) -> Self {
        let marks = match mode {
            Mode::Text => Vec::new(),
            Mode::Markdown => markdown::marks(text),
            Mode::Code(language) => code::marks(text, language),
        };
        Self {
            text,
            at: 0,
            marks: marks.into_iter().peekable(),
            is_code: matches!(mode, Mode::Code(_)),
        }
    }

    /// The level that the syntax gives to a place.
    fn marked(&mut self, at: usize) -> Option<Level> {
        while self.marks.next_if(|mark| (mark.at as usize) < at).is_some() {}
        let mark = self.marks.next_if(|mark| mark.at as usize == at)?;
        Some(mark.level)
    }

    /// The level of a place between two words, by the characters around it.
    fn level(&self, before: &str, gap: &str, after: &str) -> Level {
        match line_breaks(gap) {
            0 if begins_sentence(before, after) => Level::Sentence,
            0 => Level::Word,
            1 if self.is_code || begins_line(before, after) => Level::Line,
            1 => Level::Wrap,
            _ => Level::Paragraph,
        }
    }
}

impl Iterator for Boundaries<'_> {
    type Item = Boundary;

    fn next(&mut self) -> Option<Boundary> {
        let rest = &self.text[self.at..];
        let word = &rest[..end_of_word(rest)];
        let gap = &rest[word.len()..];
        let gap = &gap[..gap.len() - gap.trim_start().len()];
        let at = self.at + word.len() + gap.len();
        let after = &self.text[at..];
        if after.is_empty() {
            return None;
        }
        self.at = at;
        let level = self.level(word, gap, after);
        Some(Boundary {
            at,
            level: self.marked(at).unwrap_or(level),
        })
    }
}

/// What ends a sentence in scripts that have no space behind it.
const WIDE_ENDS: [char; 5] = ['。', '！', '？', '．', '｡'];

/// Where the word at the beginning of a text ends: at white space, or behind the end of a sentence that has none.
fn end_of_word(text: &str) -> usize {
    let Some(end) = text.find(|c: char| c.is_whitespace() || WIDE_ENDS.contains(&c)) else {
        return text.len();
    };
    let behind = text[end..].trim_start_matches(WIDE_ENDS);
    let closed = match behind.len() == text.len() - end {
        true => behind,
        false => behind.trim_start_matches(['」', '』', '）', '”', '’']),
    };
    text.len() - closed.len()
}

/// Ends of lines in white space; two are enough to know.
fn line_breaks(gap: &str) -> usize {
    let mut breaks = 0;
    let mut last = ' ';
    for c in gap.chars() {
        match c {
            '\n' if last == '\r' => {}
            '\n' | '\r' | '\u{85}' | '\u{2028}' => breaks += 1,
            '\u{c}' | '\u{2029}' => breaks += 2,
            _ => {}
        }
        if breaks > 1 {
            break;
        }
        last = c;
    }
    breaks
}

/// What stands around a sentence.
const CLOSING: [char; 12] = [
    '"', '\'', ')', ']', '}', '”', '’', '»', '*', '」', '』', '）',
];
const OPENING: [char; 10] = ['"', '\'', '(', '[', '{', '“', '‘', '«', '*', '_'];

/// Whether a word ends a sentence, as far as the word tells.
fn ends_sentence(word: &str) -> bool {
    let bare = word.trim_end_matches(CLOSING);
    match bare.chars().next_back() {
        // Not the initial of a name.
        Some('.') => bare
            .chars()
            .filter(|c| c.is_alphanumeric())
            .nth(1)
            .is_some(),
        Some(end) => matches!(
            end,
            '!' | '?' | '…' | '。' | '！' | '？' | '।' | '؟' | '۔' | '．' | '｡'
        ),
        None => false,
    }
}

fn begins_sentence(before: &str, after: &str) -> bool {
    let first = after.trim_start_matches(OPENING).chars().next();
    ends_sentence(before) && first.is_none_or(|first| !first.is_lowercase())
}

/// Whether a line begins something new rather than going on with what is before it.
fn begins_line(before: &str, after: &str) -> bool {
    let word = &after[..after.find(char::is_whitespace).unwrap_or(after.len())];
    let is_item = matches!(word, "-" | "*" | "+" | "•" | "–" | "|")
        || word.ends_with(['.', ')'])
            && word.len() <= 4
            && word.starts_with(|c: char| c.is_ascii_digit());
    is_item || before.ends_with([':', ';', '|']) || begins_sentence(before, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str, mode: Mode) -> Vec<(&str, Level)> {
        let places: Vec<Boundary> = Boundaries::new(text, mode).collect();
        let word = |at: usize| text[at..].split_whitespace().next().unwrap();
        places
            .iter()
            .map(|place| (word(place.at), place.level))
            .collect()
    }

    #[test]
    fn a_place_is_as_good_as_the_characters_around_it_say() {
        let text = "One two. Three J. Four\nfive:\nsix\n\nSeven 7.5 (yes.) \"No?\" Ten\r\n\r\n10\n- a\n- b";
        use Level::*;
        assert_eq!(
            levels(text, Mode::Text),
            [
                ("two.", Word),
                ("Three", Sentence),
                ("J.", Word),
                ("Four", Word),
                ("five:", Wrap),
                ("six", Line),
                ("Seven", Paragraph),
                ("7.5", Word),
                ("(yes.)", Word),
                ("\"No?\"", Sentence),
                ("Ten", Sentence),
                ("10", Paragraph),
                ("-", Line),
                ("a", Word),
                ("-", Line),
                ("b", Word),
            ]
        );
        assert_eq!(
            levels("a\nb", Mode::Code(crate::splitting::Language::C)),
            [("b", Line)]
        );
    }
}
