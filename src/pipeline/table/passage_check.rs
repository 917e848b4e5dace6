//! What is looked at before the passages of a row count as right.
//!
//! ```text
//! the document   passage 0 has the fingerprint of the row            one look into an index: daemon, status
//! each passage   and so on for all of them, without a gap            verify, resync, retry-failed
//! ```
//!
//! The job leaves passages whole, so one look is enough unless the table was changed by hand.

use super::passages::{
    CHUNK, CHUNK_FINGERPRINT, DOCUMENT_FINGERPRINT, END, PassageCheck, PassageTable, SEQ, START,
};
use super::target::{SourceColumn, TargetTable};
use crate::postgres::quote::{identifier, literal};

/// A character that is in a passage, as a regular expression: none of Unicode's white space, and no control character.
const NO_WHITE_SPACE: &str =
    r"[^\u0001-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]";
/// No text of PostgreSQL has so many characters.
const MAX_POSITION: i32 = 1 << 30;

/// SQL for the text that is embedded of a passage: `chunk` is SQL for the passage, `alias` its row.
pub fn embedded_text(source: &SourceColumn, alias: &str, chunk: &str) -> String {
    match &source.template {
        Some(template) => template.sql(alias, chunk),
        None => chunk.to_owned(),
    }
}

impl PassageTable {
    /// SQL that is true where the passage `passage` of the row `alias` says that its vector is that of its text and of the
    /// row's fields. Not true where it does not say, or lacks its text.
    pub fn claims_vector(&self, source: &SourceColumn, passage: &str, alias: &str) -> String {
        let text = embedded_text(source, alias, &format!("{passage}.{CHUNK}"));
        let expected = self.passages.expected(&text);
        format!("{passage}.{CHUNK_FINGERPRINT} = {expected}")
    }
}

impl TargetTable {
    /// SQL that is true where the passages of the row `alias` count as right.
    pub(super) fn has_right_passages(&self, passages: &PassageTable, alias: &str) -> String {
        match passages.check {
            PassageCheck::Document => passages.is_current(&self.key, &self.source, alias),
            PassageCheck::EachPassage => self.has_whole_passages(passages, alias),
        }
    }

    /// SQL that is true where the row `alias` has exactly the passages of its text, as far as fingerprints tell.
    pub fn has_whole_passages(&self, passages: &PassageTable, alias: &str) -> String {
        let whole = format!(
            "COALESCE((SELECT {} AND {} FROM {} passage WHERE {}), false)",
            self.is_whole_set(passages, "passage", alias),
            self.is_of_text(passages, "passage", alias),
            passages.qualified(),
            passages.is_of(&self.key, "passage", alias),
        );
        self.unless_empty(passages, alias, &whole)
    }

    /// `of_text` for a row with a text; a row without one is right where it has no passages.
    fn unless_empty(&self, passages: &PassageTable, alias: &str, of_text: &str) -> String {
        format!(
            "CASE WHEN {text} IS NULL THEN (SELECT true FROM {table} passage WHERE {of_row} LIMIT 1) IS NULL \
             ELSE {of_text} END",
            text = self.source.plain_sql(alias),
            table = passages.qualified(),
            of_row = passages.is_of(&self.key, "passage", alias),
        )
    }

    /// An aggregate over all passages of the row `alias`: they are numbered from 0 without a gap, up to the end of the text,
    /// and each has a vector which is, as far as its fingerprint tells, that of its text. NULL where there are none.
    pub fn is_whole_set(&self, passages: &PassageTable, passage: &str, alias: &str) -> String {
        format!(
            "min({passage}.{SEQ}) = 0 AND max({passage}.{SEQ}) = count(*) - 1 \
             AND substr({text}, LEAST(max({passage}.{END}), {MAX_POSITION}) + 1) !~ {no_white_space} \
             AND bool_and(COALESCE({passage}.{vector} IS NOT NULL AND {claims} \
                 AND {passage}.{END}::bigint - {passage}.{START} = length({passage}.{CHUNK}), false))",
            text = self.source.plain_sql(alias),
            no_white_space = literal(NO_WHITE_SPACE),
            vector = identifier(&self.destination.name),
            claims = passages.claims_vector(&self.source, passage, alias),
        )
    }

    /// An aggregate over all passages of the row `alias`: the first one says that they are of the row's text and fields. NULL
    /// where there are none.
    pub fn is_of_text(&self, passages: &PassageTable, passage: &str, alias: &str) -> String {
        format!(
            "bool_or(CASE WHEN {passage}.{SEQ} = 0 \
                          THEN {passage}.{DOCUMENT_FINGERPRINT} IS NOT DISTINCT FROM {expected} ELSE false END)",
            expected = passages.documents.expected(&self.source, alias),
        )
    }
}
