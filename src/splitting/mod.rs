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
mod level;
mod markdown;
mod mode;
mod overlap;
mod passage;
mod passages;
mod pieces;
#[cfg(test)]
mod tests;
mod token_count;

pub use mode::{Language, Mode, UnknownMode};
pub use passage::{Passage, Splitting};
pub use passages::split;
pub use token_count::TokenCount;
