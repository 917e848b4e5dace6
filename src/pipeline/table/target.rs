//! The target table of a job: its key, source and destination, and the SQL expressions for them.
//!
//! [`setup`](crate::pipeline::setup) reads all of it from the catalog. Names are quoted here, once, on their way into a
//! statement; SQL over keys is in [`key_sql`](super::key_sql).

use serde_json::Value;

use super::fingerprint::Fingerprint;
use super::passages::PassageTable;
use super::row::Key;
use super::template::Template;
use super::text_form::TextForm;
use crate::postgres::quote::identifier;

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// As the catalog has it, not quoted.
    pub name: String,
    /// The type as it is declared, without its modifier: `bigint`, `bpchar`, `public.mood`.
    pub type_name: String,
    /// The type below all domains, as a cast names it: `"pg_catalog"."int8"`. A cast to the domain itself would run its
    /// CHECK constraints for a key that has passed them.
    pub base_type: String,
    /// The collation of the key's index, quoted, where it is not that of the column.
    pub collation: Option<String>,
    /// How the key's index compares.
    pub operators: KeyOperators,
}

/// The operators of the index behind a key column, as SQL: `OPERATOR("pg_catalog".=)`.
///
/// Those that a type has under the usual names may be others, or in a schema that is not in the search path. Then SQL
/// would compare keys in another way than the index orders them, and could not use the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOperators {
    /// Less than.
    pub less: String,
    /// Equal to.
    pub equal: String,
    /// Greater than or equal to.
    pub at_least: String,
    /// Greater than.
    pub greater: String,
}

impl KeyColumn {
    /// A column of a type of the system, compared as usual. `type_name` is its name in a cast.
    pub fn of_the_system(name: &str, type_name: &str) -> Self {
        KeyColumn {
            name: name.into(),
            type_name: type_name.into(),
            base_type: type_name.into(),
            collation: None,
            operators: KeyOperators::of_the_system(),
        }
    }
}

impl KeyOperators {
    /// Those of this schema with these names.
    pub fn new(schema: &str, [less, equal, at_least, greater]: [&str; 4]) -> Self {
        let operator = |name| format!("OPERATOR({}.{name})", identifier(schema));
        KeyOperators {
            less: operator(less),
            equal: operator(equal),
            at_least: operator(at_least),
            greater: operator(greater),
        }
    }

    /// The usual ones of the system.
    pub fn of_the_system() -> Self {
        KeyOperators::new("pg_catalog", ["<", "=", ">=", ">"])
    }
}

/// The column with the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// As the catalog has it, not quoted.
    pub name: String,
    /// How its value becomes text.
    pub form: TextForm,
    /// False for generated columns, which servers before 18 do not publish: their text is read by key.
    pub published: bool,
    /// What is embedded of the text and other columns of the row, where that is not the text alone.
    pub template: Option<Template>,
}

impl SourceColumn {
    /// The text of a value that came through the stream.
    pub fn normalize<'a>(&self, text: &'a str) -> &'a str {
        self.form.normalize(text)
    }

    /// The columns that decide what is embedded, not quoted: this one, then those that the template names.
    pub fn columns(&self) -> Vec<&str> {
        let fields = self.template.iter().flat_map(Template::columns);
        let fields = fields.map(String::as_str);
        std::iter::once(self.name.as_str()).chain(fields).collect()
    }

    /// Those of the [`columns`](Self::columns) that servers publish.
    pub fn published_columns(&self) -> Vec<&str> {
        let fields = self.template.iter().flat_map(Template::published_columns);
        let own = self.published.then_some(self.name.as_str());
        own.into_iter().chain(fields).collect()
    }

    /// SQL for the text that is embedded of the row `alias`; NULL where the column's value is NULL or has no characters.
    pub fn sql(&self, alias: &str) -> String {
        let text = self.plain_sql(alias);
        match &self.template {
            Some(template) => template.sql(alias, &text),
            None => text,
        }
    }

    /// SQL for the column's text in the row `alias`; NULL where the value is NULL or has no characters. Where it is not
    /// NULL, neither is [`sql`](Self::sql).
    pub fn plain_sql(&self, alias: &str) -> String {
        let column = format!("{alias}.{}", identifier(&self.name));
        self.form.sql_or_null(&column)
    }

    /// [`plain_sql`](Self::plain_sql) that means the same under any search path. NULLIF finds its operator by that.
    pub fn qualified_sql(&self, alias: &str) -> String {
        let column = format!("{alias}.{}", identifier(&self.name));
        let text = match self.form {
            TextForm::Plain | TextForm::BlankPadded => format!("{column}::pg_catalog.text"),
            TextForm::Output => format!("pg_catalog.format('%s', {column})"),
        };
        let text = format!("{text} COLLATE pg_catalog.\"C\"");
        format!("(CASE WHEN ({text}) OPERATOR(pg_catalog.<>) '' THEN {text} END)")
    }
}

/// The column for the vectors: of the target table, or of the table of passages where the job has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationColumn {
    /// As the catalog has it, not quoted.
    pub name: String,
    /// The declared type with its modifier, as a cast names it: `public.vector(384)`, `real[]`.
    pub type_name: String,
    /// The name of the type below its domain, if it has one: `vector`, `_float4`.
    pub base_type: String,
    /// For how many dimensions a column of pgvector's types is declared, if it is.
    pub dimensions: Option<u32>,
    /// The schema of pgvector, where the column has one of its types.
    pub vector_schema: Option<String>,
    /// False for a column that the job has yet to create.
    pub exists: bool,
}

impl DestinationColumn {
    /// One that does not exist yet, of which only name and type are known.
    pub fn planned(name: &str, type_name: &str) -> Self {
        DestinationColumn {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            base_type: type_name.to_owned(),
            dimensions: None,
            vector_schema: None,
            exists: false,
        }
    }
}

/// A table that a job can work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTable {
    /// The OID in `pg_class`, by which the stream names the table.
    pub oid: u32,
    /// As the catalog has it, not quoted.
    pub schema: String,
    /// As the catalog has it, not quoted.
    pub name: String,
    /// Whether it is a partitioned table.
    pub partitioned: bool,
    /// The OIDs of the partitioned tables that it is a partition of.
    pub ancestors: Vec<u32>,
    /// The columns of the replica identity, in index order; at least one.
    pub key: Vec<KeyColumn>,
    /// REPLICA IDENTITY FULL: updates log the whole old row, and a publication may not have a column list.
    pub identity_full: bool,
    /// Where the text is.
    pub source: SourceColumn,
    /// Where the vector goes.
    pub destination: DestinationColumn,
    /// Where the fingerprint goes, if the job has one. A job with passages has none.
    pub fingerprint: Option<Fingerprint>,
    /// Where the passages of documents go, if the job cuts them. Then the destination is a column of that table.
    pub passages: Option<PassageTable>,
}

/// A table that vectors are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenTable<'a> {
    /// The OID in `pg_class`.
    pub oid: u32,
    /// As the catalog has it, not quoted.
    pub schema: &'a str,
    /// As the catalog has it, not quoted.
    pub name: &'a str,
    /// Whether it is a partitioned table.
    pub partitioned: bool,
}

impl WrittenTable<'_> {
    /// Schema and name, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(self.schema), identifier(self.name))
    }
}

impl TargetTable {
    /// Schema and name, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// The table in FROM and UPDATE. A partitioned table includes its partitions; a plain one does not include tables that
    /// inherit from it, which are not published with it either.
    pub fn from_clause(&self) -> String {
        if self.partitioned {
            self.qualified()
        } else {
            format!("ONLY {}", self.qualified())
        }
    }

    /// SQL that is true where the row `alias` is up to date: its fingerprint is that of its text, and it has a vector exactly
    /// where it has a text. Never true without a fingerprint column. Of a job with passages: they are those of the row.
    pub fn is_current(&self, alias: &str) -> String {
        if let Some(passages) = &self.passages {
            return self.has_right_passages(passages, alias);
        }
        let Some(fingerprint) = &self.fingerprint else {
            return "false".into();
        };
        format!(
            "({column} IS NOT DISTINCT FROM {expected} AND ({text} IS NULL) = ({alias}.{destination} IS NULL))",
            column = fingerprint.column(alias),
            expected = fingerprint.expected(&self.source.sql(alias)),
            text = self.source.plain_sql(alias),
            destination = identifier(&self.destination.name),
        )
    }

    /// A key as the failures table stores it: `{"id": "17"}`.
    pub fn key_to_json(&self, key: &Key) -> Value {
        let columns = self.key.iter().map(|column| column.name.clone());
        columns.zip(key.parts().map(Value::from)).collect()
    }

    /// The key that was stored as `value`; `None` if the table has other key columns now.
    pub fn key_from_json(&self, value: &Value) -> Option<Key> {
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

    /// The table that vectors are written to: this one, or that for passages.
    pub fn written(&self) -> WrittenTable<'_> {
        match &self.passages {
            Some(passages) => WrittenTable {
                oid: passages.oid,
                schema: &passages.schema,
                name: &passages.name,
                partitioned: false,
            },
            None => WrittenTable {
                oid: self.oid,
                schema: &self.schema,
                name: &self.name,
                partitioned: self.partitioned,
            },
        }
    }

    /// The columns that the publication must carry: the key and, as far as servers publish them, the columns that decide
    /// what is embedded.
    pub fn required_columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = self.key.iter().map(|column| column.name.clone()).collect();
        for column in self.source.published_columns() {
            if !columns.iter().any(|listed| listed == column) {
                columns.push(column.to_owned());
            }
        }
        columns
    }

    /// Whether the text of a change is read by key although the stream may carry it: what is embedded takes more than the
    /// text of the source.
    pub fn reads_texts(&self) -> bool {
        self.passages.is_some() || self.source.template.is_some()
    }

    /// The columns that a publication of ours carries: the required ones and the fingerprint, which shows that an update
    /// left the text unchanged.
    pub fn published_columns(&self) -> Vec<String> {
        let mut columns = self.required_columns();
        columns.extend(
            self.fingerprint
                .iter()
                .map(|fingerprint| fingerprint.name.clone()),
        );
        columns
    }

    /// Why every row has to be scanned again after a change of the definition of a column with texts, or of a label of an
    /// enum.
    pub fn redefined(&self) -> String {
        let fields = match &self.source.template {
            Some(template) if !template.columns().is_empty() => {
                " or of a column that its template names"
            }
            _ => "",
        };
        format!(
            "the definition of {}.{} (src_column){fields}, or a type in it or in the key, has changed: texts may have changed \
             without a change in the stream",
            self.qualified(),
            identifier(&self.source.name)
        )
    }

    /// What becomes of the rows of a table that inherits from this one, and is no partition. `child` is its name, quoted.
    pub fn ignored_child(&self, child: &str) -> String {
        ignored_child(&self.qualified(), child)
    }

    /// The reason with which a job fails once its key is no longer the table's replica identity.
    pub fn lost_identity(&self) -> String {
        format!(
            "the key ({}) of {} is no longer its replica identity; the job's publication was dropped, because with it every \
             UPDATE of the table would fail. Give the table a primary key again, then set init_failed_at to NULL",
            self.key_columns(),
            self.qualified()
        )
    }

    /// The reason with which a job fails once the table has REPLICA IDENTITY NOTHING.
    pub fn identity_nothing(&self) -> String {
        let table = self.qualified();
        format!(
            "{table} has REPLICA IDENTITY NOTHING now; the job's publication was dropped, because with it every UPDATE of \
             the table would fail. Run: ALTER TABLE {table} REPLICA IDENTITY DEFAULT; then set init_failed_at to NULL"
        )
    }

    /// The reason with which a job fails once the table has REPLICA IDENTITY FULL and its publication a column list.
    pub fn identity_full(&self) -> String {
        let table = self.qualified();
        format!(
            "{table} has REPLICA IDENTITY FULL now; the job's publication lists columns and was dropped, because with it \
             every UPDATE of the table would fail. Set init_failed_at to NULL, and the job goes on with whole rows; or \
             run first: ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"
        )
    }

    /// The reason with which a job fails once its key consists of these columns, or has these names. Not quoted.
    pub fn changed_key(&self, now: &[String]) -> String {
        let now: Vec<String> = now.iter().map(|name| identifier(name)).collect();
        format!(
            "the key of {} was ({}) and is ({}) now; the job's publication was dropped, because with it every UPDATE of the \
             table may fail. Set init_failed_at to NULL, and the job goes on with this key",
            self.qualified(),
            self.key_columns(),
            now.join(", ")
        )
    }

    fn key_columns(&self) -> String {
        let names = self.key.iter().map(|column| identifier(&column.name));
        names.collect::<Vec<_>>().join(", ")
    }
}

/// What becomes of the rows of a table that inherits from `table`, and is no partition. Both are names, quoted.
pub fn ignored_child(table: &str, child: &str) -> String {
    format!(
        "the table {child} inherits from {table}, and its rows are not followed: only partitions are; give it a job \
         of its own"
    )
}

#[cfg(test)]
impl TargetTable {
    /// `public.docs (id bigint PRIMARY KEY, body text, embedding real[])`, for unit tests.
    pub fn example() -> Self {
        TargetTable {
            oid: 9,
            schema: "public".into(),
            name: "docs".into(),
            partitioned: false,
            ancestors: Vec::new(),
            key: vec![KeyColumn::example("id", "bigint")],
            identity_full: false,
            source: SourceColumn {
                name: "body".into(),
                form: TextForm::Plain,
                published: true,
                template: None,
            },
            destination: DestinationColumn {
                name: "embedding".into(),
                type_name: "real[]".into(),
                base_type: "_float4".into(),
                dimensions: None,
                vector_schema: None,
                exists: true,
            },
            fingerprint: None,
            passages: None,
        }
    }
}

#[cfg(test)]
impl TargetTable {
    /// [`example`](Self::example) with its passages in `public.docs_chunks`, for unit tests.
    pub fn example_with_passages() -> Self {
        TargetTable {
            passages: Some(PassageTable::example()),
            ..TargetTable::example()
        }
    }
}

#[cfg(test)]
impl KeyColumn {
    /// A column of this name and type, for unit tests.
    pub fn example(name: &str, type_name: &str) -> Self {
        KeyColumn::of_the_system(name, type_name)
    }
}
