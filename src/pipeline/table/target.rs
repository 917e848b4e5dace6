//! The target table of a job: its key, source and destination, and the SQL expressions for them.
//!
//! Everything here is read from the catalogue by [`super::preflight`]; names are quoted once, here.

use serde_json::Value;

use crate::pipeline::table::fingerprint::Fingerprint;
use crate::pipeline::table::row::Key;
use crate::postgres::quote::identifier;

/// A column that takes part in the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    pub name: String,
    /// The type as a cast names it (`bigint`, `bpchar`, `public.mood`).
    pub type_name: String,
}

/// How a source column's value becomes text, the same in the stream and in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// `text`, `varchar`, `citext`: the value is the text.
    Plain,
    /// `char(n)`: its trailing blanks mean nothing.
    BlankPadded,
    /// Anything else: what the type's output function prints, which is also what the stream carries.
    Output,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    pub name: String,
    pub form: TextForm,
    /// False for generated columns, which the server does not publish: their text is read by key.
    pub published: bool,
}

impl SourceColumn {
    /// The text of a value that came through the stream.
    pub fn normalise<'a>(&self, text: &'a str) -> &'a str {
        match self.form {
            TextForm::BlankPadded => text.trim_end_matches(' '),
            TextForm::Plain | TextForm::Output => text,
        }
    }

    /// SQL for the column's text in the row `alias`; NULL where the value is NULL or has no characters. Compared byte by
    /// byte (`COLLATE "C"`), whatever the column's own collation calls equal.
    pub fn sql(&self, alias: &str) -> String {
        let column = format!("{alias}.{}", identifier(&self.name));
        match self.form {
            TextForm::Plain | TextForm::BlankPadded => {
                format!("NULLIF({column}::text COLLATE \"C\", '')")
            }
            TextForm::Output => format!("NULLIF(format('%s', {column}) COLLATE \"C\", '')"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationColumn {
    pub name: String,
    /// The declared type with its modifier, as a cast names it: `public.vector(384)`, `real[]`.
    pub type_name: String,
    /// The schema of pgvector, where the column is of one of its types.
    pub vector_schema: Option<String>,
}

/// A table that a job can work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTable {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub partitioned: bool,
    pub key: Vec<KeyColumn>,
    /// REPLICA IDENTITY FULL: the whole old row is logged, and a publication may not have a column list.
    pub identity_full: bool,
    pub source: SourceColumn,
    pub destination: DestinationColumn,
    pub fingerprint: Option<Fingerprint>,
}

impl TargetTable {
    /// Schema and name, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// The table in FROM and UPDATE: a partitioned one with its partitions, a plain one without tables that inherit from it
    /// (they are not published with it).
    pub fn from_clause(&self) -> String {
        if self.partitioned {
            self.qualified()
        } else {
            format!("ONLY {}", self.qualified())
        }
    }

    /// `a.k1, a.k2`
    pub fn key_list(&self, alias: &str) -> String {
        let columns: Vec<String> = self
            .key
            .iter()
            .map(|column| format!("{alias}.{}", identifier(&column.name)))
            .collect();
        columns.join(", ")
    }

    /// `format('%s', a.id) AS k0, …`: the key columns as their types print them, which is also how the stream has them.
    pub fn key_text_columns(&self, alias: &str) -> String {
        let columns: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(position, column)| {
                format!(
                    "format('%s', {alias}.{}) AS k{position}",
                    identifier(&column.name)
                )
            })
            .collect();
        columns.join(", ")
    }

    /// `a.k1 = b.k1 AND a.k2 = b.k2`, where `b` has the key under the names `k1`, `k2`, ….
    pub fn key_join(&self, alias: &str, incoming: &str) -> String {
        let conditions: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(position, column)| {
                format!(
                    "{alias}.{} = {incoming}.k{position}",
                    identifier(&column.name)
                )
            })
            .collect();
        conditions.join(" AND ")
    }

    /// `$3::text::bigint, …`: the parts of one key as parameters, the first of them numbered `first`.
    pub fn key_bounds(&self, first: usize) -> String {
        let bounds: Vec<String> = self
            .key
            .iter()
            .zip(first..)
            .map(|(column, number)| format!("${number}::text::{}", column.type_name))
            .collect();
        bounds.join(", ")
    }

    /// `u.k0::bigint AS k0, …`: keys come as text and are cast to their own types.
    pub fn key_casts(&self, alias: &str) -> String {
        let casts: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(position, column)| {
                format!("{alias}.k{position}::{} AS k{position}", column.type_name)
            })
            .collect();
        casts.join(", ")
    }

    /// SQL that is true where the row `alias` is known to hold what it should: its fingerprint is that of its text, and a
    /// vector is there exactly where a text is. Never true without a fingerprint column.
    pub fn fits(&self, alias: &str) -> String {
        let Some(fingerprint) = &self.fingerprint else {
            return "false".into();
        };
        let source = self.source.sql(alias);
        format!(
            "({column} IS NOT DISTINCT FROM {expected} AND ({source} IS NULL) = ({alias}.{destination} IS NULL))",
            column = fingerprint.column(alias),
            expected = fingerprint.expected(&source),
            destination = identifier(&self.destination.name),
        )
    }

    /// `{"id": "17"}`: how a key is noted outside of the table.
    pub fn key_to_json(&self, key: &Key) -> Value {
        let columns = self.key.iter().map(|column| column.name.clone());
        columns.zip(key.parts().map(Value::from)).collect()
    }

    /// The key that was noted as `value`; `None` if the table has other key columns by now.
    pub fn key_of_json(&self, value: &Value) -> Option<Key> {
        let columns = value.as_object()?;
        let parts: Option<Vec<Box<str>>> = self
            .key
            .iter()
            .map(|column| Some(columns.get(&column.name)?.as_str()?.into()))
            .collect();
        parts
            .filter(|parts| parts.len() == columns.len())
            .map(Key::new)
    }

    /// The columns that the publication must carry: key and, where the server publishes it, the source.
    pub fn required_columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = self.key.iter().map(|column| column.name.clone()).collect();
        if self.source.published && !columns.contains(&self.source.name) {
            columns.push(self.source.name.clone());
        }
        columns
    }

    /// The columns that our own publication carries: the required ones and the fingerprint, by which updates of other columns
    /// are known for what they are.
    pub fn published_columns(&self) -> Vec<String> {
        let mut columns = self.required_columns();
        columns.extend(
            self.fingerprint
                .iter()
                .map(|fingerprint| fingerprint.name.clone()),
        );
        columns
    }
}

/// What a person is told when the key is gone.
pub fn lost_identity(target: &TargetTable) -> String {
    let columns: Vec<&str> = target
        .key
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    format!(
        "the key ({}) of {} is no longer its replica identity; the job's publication was dropped, since with it every UPDATE \
         of the table would fail. Give the table a primary key again, then set init_failed_at to NULL",
        columns.join(", "),
        target.qualified()
    )
}
