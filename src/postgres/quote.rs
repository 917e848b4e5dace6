//! Quoting for SQL: every name and value in the text of a statement passes through here.
//!
//! The input must not contain NUL: no text in PostgreSQL can, and the protocol encoder refuses such a statement.

use postgres_protocol::escape;

/// Quotes a name: `a"b` becomes `"a""b"`. Upper case and reserved words are kept.
///
/// ```
/// assert_eq!(lantern::postgres::quote::identifier("My Table"), "\"My Table\"");
/// ```
pub fn identifier(name: &str) -> String {
    escape::escape_identifier(name)
}

/// Quotes a text for SQL: `it's` becomes `'it''s'`.
///
/// A text with backslashes becomes an escape string with a space before it (` E'a\\b'`). It means the same under either
/// value of `standard_conforming_strings`, and cannot join a word to its left.
pub fn literal(text: &str) -> String {
    escape::escape_literal(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_keeps_case_spaces_and_quotes() {
        assert_eq!(identifier("docs"), r#""docs""#);
        assert_eq!(identifier("My Table"), r#""My Table""#);
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(identifier(r"a\b"), r#""a\b""#);
        assert_eq!(identifier("größe'"), r#""größe'""#);
    }

    #[test]
    fn a_literal_doubles_quotes_and_is_an_escape_string_if_it_has_backslashes() {
        assert_eq!(literal(""), "''");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r#"say "hi""#), r#"'say "hi"'"#);
        assert_eq!(literal(r"a\b'c"), r" E'a\\b''c'");
    }
}
