//! What is said of a job that does not exist yet, by `check` and by `jobs add`.

use anyhow::Context;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::stderr;
use crate::embedding::ModelName;
use crate::jobs::chunk_table::PASSAGE_VECTORS;
use crate::jobs::edit::NewValues;
use crate::jobs::{Definition, InitProgress, JobId, JobRow};
use crate::postgres::connection_string::rewritten;

/// Which text gets vectors where.
pub struct Place<'a> {
    /// The target table.
    pub table: &'a str,
    /// The column with the text.
    pub column: &'a str,
}

/// All else about a new job.
#[derive(Args)]
pub struct NewJobArguments {
    /// The schema of the table
    #[arg(long, default_value = "public", value_name = "NAME")]
    schema: String,

    /// The column for the vectors, created if it does not exist [default: the name of the column and _embedding; embedding
    /// with --chunk-table]
    #[arg(long, value_name = "NAME")]
    dst_column: Option<String>,

    /// A table for passages of the texts with a vector each, created if it does not exist: docs_chunks or
    /// search.docs_chunks
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "fingerprint_column",
        value_parser = NonEmptyStringValueParser::new()
    )]
    chunk_table: Option<String>,

    /// The embedding model
    #[arg(long, default_value = ModelName::DEFAULT, value_name = "NAME")]
    model: String,

    /// The target database, as the daemon connects to it [default: that of --uri, without its password, which the
    /// password file or PGPASSWORD lends to the daemon]
    #[arg(
        long,
        env = "LANTERN_DB_CONNECTION",
        hide_env_values = true,
        value_name = "URI"
    )]
    db_connection: Option<String>,

    /// The same database as another role, for all that reads and writes rows
    #[arg(
        long,
        env = "LANTERN_WRITE_CONNECTION",
        hide_env_values = true,
        value_name = "URI"
    )]
    write_connection: Option<String>,

    /// A uuid column that tells which vectors are current, created if it does not exist
    #[arg(long, value_name = "NAME")]
    fingerprint_column: Option<String>,

    /// The type of a destination that the daemon creates: vector, halfvec, REAL[] or DOUBLE PRECISION[]
    #[arg(long, value_name = "TYPE")]
    column_type: Option<String>,

    /// The columns of the table's key, separated by commas; the job fails if the key is another one
    #[arg(long, value_name = "COLUMNS")]
    pk: Option<String>,

    /// The most rows in one write-back
    #[arg(long, value_name = "N")]
    batch_size: Option<i64>,

    /// Where the model is: ort (in the daemon), or servers that speak a protocol: openai, cohere, voyage, ollama
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,

    /// How the model is used, as JSON
    #[arg(long, value_name = "JSON")]
    runtime_params: Option<String>,

    /// Build an index of the vectors after the initial backfill: hnsw
    #[arg(long, value_name = "METHOD")]
    create_index: Option<String>,

    /// How that index is built, as JSON, such as {"m": 16}
    #[arg(long, value_name = "JSON")]
    index_params: Option<String>,

    /// Take vectors that are there for right
    #[arg(long)]
    trust_existing: bool,

    /// Embed only rows that change from now on
    #[arg(long)]
    no_backfill: bool,

    /// Write vectors without firing triggers of the table
    #[arg(long)]
    skip_triggers: bool,

    /// The label of the job: only a daemon with this label, or with none, runs it
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
}

impl NewJobArguments {
    /// The values of the row.
    ///
    /// # Errors
    /// `--uri` is not a connection string.
    pub fn values(&self, place: &Place<'_>, uri: &str) -> anyhow::Result<NewValues> {
        let destination = match (&self.dst_column, &self.chunk_table) {
            (Some(given), _) => given.clone(),
            (None, Some(_)) => PASSAGE_VECTORS.to_owned(),
            (None, None) => default_destination(place.column),
        };
        let db_connection = match &self.db_connection {
            Some(given) => given.clone(),
            None => rewritten::for_job(uri).context("--uri")?,
        };
        let text = |value: &Option<String>| value.clone();
        let flag = |is_set: bool, value: &str| is_set.then(|| value.to_owned());
        let all = [
            ("db_connection", Some(db_connection)),
            ("schema", Some(self.schema.clone())),
            ("table", Some(place.table.to_owned())),
            ("src_column", Some(place.column.to_owned())),
            ("dst_column", Some(destination)),
            ("embedding_model", Some(self.model.clone())),
            ("write_connection", text(&self.write_connection)),
            ("fingerprint_column", text(&self.fingerprint_column)),
            ("chunk_table", text(&self.chunk_table)),
            ("column_type", text(&self.column_type)),
            ("pk", text(&self.pk)),
            ("batch_size", self.batch_size.map(|size| size.to_string())),
            ("runtime", text(&self.runtime)),
            ("runtime_params", text(&self.runtime_params)),
            ("create_index", text(&self.create_index)),
            ("index_params", text(&self.index_params)),
            ("trust_existing", flag(self.trust_existing, "true")),
            ("backfill", flag(self.no_backfill, "false")),
            ("skip_triggers", flag(self.skip_triggers, "true")),
            ("label", text(&self.label)),
        ];
        let set = all.into_iter();
        Ok(set
            .filter_map(|(column, value)| Some((column, value?)))
            .collect())
    }

    /// Says where the password of `--uri` is not that of the job.
    pub fn warn_of_password(&self, uri: &str) {
        if self.db_connection.is_none() && rewritten::has_password(uri) {
            stderr::line(
                "note: the password in --uri is not written into the job, where others could read it: put it into the \
                 password file of the daemon (PGPASSFILE), or name the target with --db-connection",
            );
        }
    }

    /// The row as the daemon would read it. It has no id yet.
    pub fn row(&self, values: &NewValues) -> JobRow {
        let value = |name: &str| {
            let found = values.iter().find(|(column, _)| *column == name);
            found
                .map(|(_, value)| value.clone())
                .filter(|value| !value.is_empty())
        };
        JobRow {
            id: JobId::new(""),
            definition: Definition {
                db_connection: value("db_connection").unwrap_or_default(),
                write_connection: value("write_connection"),
                schema: value("schema").unwrap_or_else(|| "public".to_owned()),
                table: value("table"),
                src_column: value("src_column"),
                dst_column: value("dst_column"),
                embedding_model: value("embedding_model"),
                column_type: value("column_type"),
                pk: value("pk"),
                batch_size: self.batch_size,
                runtime: value("runtime"),
                runtime_params: value("runtime_params"),
                fingerprint_column: value("fingerprint_column"),
                create_index: value("create_index"),
                index_params: value("index_params"),
                chunk_table: value("chunk_table"),
                trust_existing: self.trust_existing,
                backfill: !self.no_backfill,
                skip_triggers: self.skip_triggers,
                replaces: None,
                accept_failures: false,
                defect: None,
            },
            progress: InitProgress::New,
            failed: false,
            failure_reason: None,
            canceled: false,
            replaced_by: None,
        }
    }
}

/// The column's name with an ending. The server would cut a name after 63 bytes and so lose that.
pub fn default_destination(column: &str) -> String {
    const ENDING: &str = "_embedding";
    let mut end = column.len().min(63 - ENDING.len());
    while !column.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ENDING}", &column[..end])
}

#[cfg(test)]
mod tests {
    use super::default_destination;

    #[test]
    fn the_destination_of_a_long_column_keeps_its_ending() {
        assert_eq!(default_destination("title"), "title_embedding");
        let long = default_destination(&"ü".repeat(31));
        assert!(long.ends_with("ü_embedding") && long.len() <= 63, "{long}");
    }
}
