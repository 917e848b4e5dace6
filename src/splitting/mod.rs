//! Cuts a document into passages, each with at most so many tokens, so that an edit changes only passages near it.
//!
//! A splitter that fills one passage after the other moves every cut behind an edit, and every passage after it is a
//! text that was not there before. Here the *text* decides where cuts are (content-defined chunking): among the places
//! where a passage may end, the cut is before the most important one, such as a heading or a paragraph, and among equals
//! before the one whose following text has the smallest hash. Two ways through a text that differ at one place, because
//! one of them was edited, see mostly the same places and soon take the same one. From there on they are the same.
//!
//! ```text
//!  boundaries ──▶ pieces ──▶ cuts ──▶ passages
//!  places and      with      one is    overlap, white space,
//!  their levels    tokens    chosen    the counter's last word
//!      ▲
//!  markdown, code: levels that only the syntax tells
//! ```
//!
//! The module knows texts and a counter of tokens, and nothing of models, jobs or PostgreSQL.

mod boundaries;
mod code;
mod cuts;
mod markdown;
mod mode;
mod overlap;
mod passages;
mod pieces;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use mode::{Language, Mode, UnknownMode};
pub use passages::split;

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

/// Counts the tokens of a text.
pub trait TokenCount {
    /// Tokens of the text alone, without special tokens. Texts of a bounded size are asked for, not whole documents.
    fn count(&self, text: &str) -> usize;
}

impl<F: Fn(&str) -> usize> TokenCount for F {
    fn count(&self, text: &str) -> usize {
        self(text)
    }
}

/// A part of a document. Ranges are half-open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Passage {
    /// Bytes of the text in UTF-8.
    pub bytes: Range<usize>,
    /// Unicode characters from 0, as PostgreSQL's `substr` counts them from 1.
    pub chars: Range<usize>,
}
