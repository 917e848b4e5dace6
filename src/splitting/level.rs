//! How good a place is for a cut.

/// How good a place is for a cut, from the best. It is a place before a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// A heading of the first or second degree, or an item of a program such as a class.
    Section,
    /// A heading of a lower degree, or an item in an item such as a method.
    Subsection,
    /// What follows an empty line.
    Paragraph,
    /// A line that begins with something new: an item of a list, a sentence, a statement.
    Line,
    /// A sentence in a line.
    Sentence,
    /// A line of a sentence that goes on.
    Wrap,
    /// Another word.
    Word,
    /// Not even that: what follows belongs to what is before it, such as a paragraph to its heading.
    Never,
}

/// A level that the syntax of the document gives to a place. Texts of PostgreSQL have at most 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub at: u32,
    pub level: Level,
}

impl Mark {
    pub(super) fn new(at: usize, level: Level) -> Self {
        Self {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            level,
        }
    }
}
