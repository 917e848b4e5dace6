//! What kind of text a document is, as `chunk_mode` names it.

use std::fmt;
use std::str::FromStr;

use crate::similar::most_similar;

/// What kind of text a document is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Paragraphs, lines, sentences and words.
    #[default]
    Text,
    /// As text, and sections begin with headings.
    Markdown,
    /// As the language's syntax has it: functions, classes and blocks.
    Code(Language),
}

/// A programming language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Language {
    C,
    Go,
    Java,
    JavaScript,
    Python,
    Rust,
    TypeScript,
}

/// All modes, as a person writes them.
const MODES: [(&str, Mode); 9] = [
    ("text", Mode::Text),
    ("markdown", Mode::Markdown),
    ("code:c", Mode::Code(Language::C)),
    ("code:go", Mode::Code(Language::Go)),
    ("code:java", Mode::Code(Language::Java)),
    ("code:javascript", Mode::Code(Language::JavaScript)),
    ("code:python", Mode::Code(Language::Python)),
    ("code:rust", Mode::Code(Language::Rust)),
    ("code:typescript", Mode::Code(Language::TypeScript)),
];

/// Shorter names that people use for languages.
const SHORT: [(&str, &str); 7] = [
    ("js", "code:javascript"),
    ("jsx", "code:javascript"),
    ("md", "markdown"),
    ("py", "code:python"),
    ("rs", "code:rust"),
    ("ts", "code:typescript"),
    ("tsx", "code:typescript"),
];

/// A mode that does not exist, as a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{written:?} is no mode of splitting: there are {}{}", Mode::names().join(", "), Mode::meant(written))]
pub struct UnknownMode {
    written: String,
}

impl Mode {
    /// All modes, as a person writes them.
    pub fn names() -> Vec<&'static str> {
        MODES.iter().map(|(name, _)| *name).collect()
    }

    /// The mode that was probably meant, as the end of a sentence.
    fn meant(written: &str) -> String {
        let lower = written.to_lowercase();
        let language = lower.strip_prefix("code:").unwrap_or(&lower);
        let short = SHORT.iter().find(|(short, _)| *short == language);
        let bare = Self::names()
            .into_iter()
            .find(|name| name.strip_prefix("code:") == Some(language));
        let meant = short
            .map(|(_, name)| *name)
            .or(bare)
            .or_else(|| most_similar(written, Self::names()));
        meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"))
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(written: &str) -> Result<Self, UnknownMode> {
        let found = MODES.iter().find(|(name, _)| *name == written);
        found.map(|(_, mode)| *mode).ok_or_else(|| UnknownMode {
            written: written.to_owned(),
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = MODES.iter().find(|(_, mode)| mode == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_a_name_that_is_read_back() {
        for name in Mode::names() {
            assert_eq!(name.parse::<Mode>().unwrap().to_string(), name);
        }
        assert_eq!("code:rust".parse(), Ok(Mode::Code(Language::Rust)));
        assert_eq!(Mode::default().to_string(), "text");
    }

    #[test]
    fn an_unknown_mode_is_answered_with_all_and_with_the_one_that_was_meant() {
        let known = "text, markdown, code:c, code:go, code:java, code:javascript, code:python, code:rust, code:typescript";
        for (written, meant) in [
            ("markdwon", "; did you mean markdown?"),
            ("rust", "; did you mean code:rust?"),
            ("code:js", "; did you mean code:javascript?"),
            ("code:pyton", "; did you mean code:python?"),
            ("Code:Go", "; did you mean code:go?"),
            ("code:cobol-74", ""),
            ("", ""),
        ] {
            let error = written.parse::<Mode>().unwrap_err().to_string();
            let expected = format!("{written:?} is no mode of splitting: there are {known}{meant}");
            assert_eq!(error, expected);
        }
    }
}
