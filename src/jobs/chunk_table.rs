//! The name of the table for passages, as a jobs row has it: `docs_chunks`, `search.docs_chunks`, `"a.b".c`.

use std::iter::Peekable;
use std::str::Chars;

use crate::postgres::quote::identifier;

/// The column for vectors in a table for passages, unless the job says otherwise.
pub const PASSAGE_VECTORS: &str = "embedding";

/// A table by schema and name, as the catalog has them: not quoted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChunkTableName {
    /// The schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl ChunkTableName {
    /// Schema and table, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }

    /// Reads a name. Parts are taken as they are written, as the other names of a jobs row are; a part with a dot or a
    /// quote stands in double quotes, with quotes doubled. `default_schema` is for a name without a schema.
    ///
    /// # Errors
    /// A sentence that says how to write the name.
    pub fn parse(text: &str, default_schema: &str) -> Result<ChunkTableName, String> {
        let malformed = || {
            format!(
                "chunk_table is {text:?}; write it as table or schema.table, a name with a dot or a quote in double quotes"
            )
        };
        let mut parts = Vec::new();
        let mut rest = text.trim().chars().peekable();
        loop {
            parts.push(
                part(&mut rest)
                    .filter(|part| !part.is_empty())
                    .ok_or_else(malformed)?,
            );
            match rest.next() {
                None => break,
                Some('.') => {}
                Some(_) => return Err(malformed()),
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => Ok(ChunkTableName {
                schema: default_schema.to_owned(),
                table,
            }),
            (Some(schema), Some(table), None) => Ok(ChunkTableName { schema, table }),
            _ => Err(malformed()),
        }
    }
}

/// The next part, up to a dot or the end. `None` where a quote is not closed, or stands within a part.
fn part(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut part = String::new();
    if rest.next_if_eq(&'"').is_none() {
        while let Some(next) = rest.next_if(|next| *next != '.') {
            if next == '"' {
                return None;
            }
            part.push(next);
        }
        return Some(part);
    }
    loop {
        match rest.next()? {
            '"' if rest.next_if_eq(&'"').is_some() => part.push('"'),
            '"' => return Some(part),
            other => part.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_schema_or_gets_that_of_the_source() {
        for (text, schema, table) in [
            ("docs_chunks", "public", "docs_chunks"),
            ("search.Docs", "search", "Docs"),
            (r#""a.b"."c""d""#, "a.b", "c\"d"),
            (r#"s."T t""#, "s", "T t"),
        ] {
            let name = ChunkTableName::parse(text, "public").unwrap();
            assert_eq!(
                (name.schema.as_str(), name.table.as_str()),
                (schema, table),
                "{text}"
            );
        }
    }

    #[test]
    fn a_malformed_name_is_refused() {
        for text in ["", ".", "a.", "a.b.c", "\"a", "a\"b", "\"a\"b", "\"\""] {
            let refused = ChunkTableName::parse(text, "public").unwrap_err();
            assert!(refused.contains("schema.table"), "{text:?}: {refused}");
        }
    }
}
