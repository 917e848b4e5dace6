//! What goes into the splitter, and what comes out.

use std::ops::Range;

use super::mode::Mode;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Splitting {
    /// What kind of text they are.
    pub mode: Mode,
    /// The most tokens of a passage, its overlap included. At least 1.
    pub max_tokens: usize,
    /// The most tokens that a passage repeats of the text before it. At most half of `max_tokens` counts.
    pub overlap: usize,
}

/// A part of a document. Ranges are half-open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Passage {
    /// Bytes of the text in UTF-8.
    pub bytes: Range<usize>,
    /// Unicode characters from 0, as PostgreSQL's `substr` counts them from 1.
    pub chars: Range<usize>,
}
