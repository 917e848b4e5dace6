//! How a value of a column becomes text.

/// How a value becomes text. The stream and SQL must agree on it, or no write-back would match its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// `text`, `varchar`, `citext`: the value is the text.
    Plain,
    /// `char(n)`: trailing blanks are padding (PostgreSQL manual, "Character Types").
    BlankPadded,
    /// Any other type: what its output function prints, which is also what the stream carries.
    Output,
}

impl TextForm {
    /// The text of a value that came through the stream.
    pub fn normalize(self, text: &str) -> &str {
        match self {
            TextForm::BlankPadded => text.trim_end_matches(' '),
            TextForm::Plain | TextForm::Output => text,
        }
    }

    /// SQL for the text of the column `column`; `''` for NULL.
    ///
    /// `COLLATE "C"` compares byte by byte. Under a nondeterministic collation two different texts may be equal, and a
    /// vector of one would be taken for the other's.
    pub fn sql_or_empty(self, column: &str) -> String {
        match self {
            TextForm::Plain | TextForm::BlankPadded => {
                format!("COALESCE({column}::text COLLATE \"C\", '')")
            }
            TextForm::Output => format!("format('%s', {column}) COLLATE \"C\""),
        }
    }

    /// SQL for the text of the column `column`; NULL for NULL and for `''`.
    pub fn sql_or_null(self, column: &str) -> String {
        match self {
            TextForm::Plain | TextForm::BlankPadded => {
                format!("NULLIF({column}::text COLLATE \"C\", '')")
            }
            TextForm::Output => format!("NULLIF(format('%s', {column}) COLLATE \"C\", '')"),
        }
    }

    /// SQL for the text of the column `column`; NULL for NULL alone. It means the same under any search path.
    pub fn sql(self, column: &str) -> String {
        match self {
            TextForm::Plain | TextForm::BlankPadded => {
                format!("{column}::pg_catalog.text COLLATE pg_catalog.\"C\"")
            }
            // A composite value with a NULL in it is not NULL, and IS NOT NULL says otherwise.
            TextForm::Output => format!(
                "CASE WHEN {column} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {column}) \
                 COLLATE pg_catalog.\"C\" END"
            ),
        }
    }
}
