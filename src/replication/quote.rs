//! Quoting for replication commands, which have a grammar of their own (PostgreSQL's `repl_scanner.l`).
//!
//! It has no escape strings: a backslash is a plain character in every literal. The input must not contain NUL, which
//! the protocol cannot carry; [`simple_query`](super::ReplicationConnection::simple_query) refuses such a command.

/// Quotes a name: `a"b` becomes `"a""b"`.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text: `it's` becomes `'it''s'`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_doubles_its_quotes() {
        assert_eq!(identifier("My Slot"), r#""My Slot""#);
        assert_eq!(identifier(r#"a"b\c'd"#), r#""a""b\c'd""#);
    }

    #[test]
    fn a_literal_leaves_backslashes_alone() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r"'a\b'");
        assert_eq!(literal(""), "''");
    }
}
