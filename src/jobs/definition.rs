//! One row of the jobs table.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::postgres::ConnectionString;

/// The value of the row's `id` column as text: integers in the documented table, but any type will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(String);

impl JobId {
    pub fn new(text: impl Into<String>) -> Self {
        JobId(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a job is asked to do.
///
/// Everything is as the user wrote it; checks happen when the job starts, so that a bad row fails as that job and no other.
#[derive(Clone, PartialEq, Eq)]
pub struct Definition {
    pub db_connection: String,
    pub schema: String,
    pub table: Option<String>,
    pub src_column: Option<String>,
    pub dst_column: Option<String>,
    pub embedding_model: Option<String>,
    /// Type of the destination column, where it has to be created.
    pub column_type: Option<String>,
    /// Names of the key columns, comma-separated; found from the table itself where absent.
    pub pk: Option<String>,
    /// Rows in one write-back at most.
    pub batch_size: Option<i64>,
    /// Where the model runs; only `ort` is known.
    pub runtime: Option<String>,
    /// Settings of the runtime as JSON; `ort` has none.
    pub runtime_params: Option<String>,
    /// Column of the target table that says which text and model a row's vector is of.
    pub fingerprint_column: Option<String>,
    /// Vectors that are there already are taken for right, also where changes may have been missed.
    pub trust_existing: bool,
    /// Whether rows that are there already are embedded, or only those that change from now on.
    pub backfill: bool,
    /// Write-backs fire no triggers.
    pub skip_triggers: bool,
}

impl Definition {
    /// Whether the other one asks for the same vectors in the same place, so that it may go on where this one stopped. A new
    /// password or batch size makes no other job.
    pub fn continues(&self, other: &Definition) -> bool {
        let place = |definition: &Definition| {
            let connection = definition.db_connection.parse::<ConnectionString>();
            connection.map(|connection| connection.to_string()).ok()
        };
        place(self).is_some() && place(self) == place(other) && self.work() == other.work()
    }

    /// A number for what is embedded from where to where and how. It is part of the names of slot and publication: those of
    /// an earlier definition are none of this one's, also where it was changed while no daemon ran.
    pub fn fingerprint(&self) -> u32 {
        let hash = xxh3_64(format!("{:?}", self.work()).as_bytes());
        (hash ^ (hash >> 32)) as u32
    }

    fn work(&self) -> [Option<&str>; 6] {
        [
            Some(self.schema.as_str()),
            self.table.as_deref(),
            self.src_column.as_deref(),
            self.dst_column.as_deref(),
            self.embedding_model.as_deref(),
            self.fingerprint_column.as_deref(),
        ]
    }
}

/// How far the first run of a job has come, as the row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// `init_started_at` is null.
    New,
    /// Started and not finished.
    Started,
    /// `init_finished_at` is not older than `init_started_at`.
    Finished,
    /// Started again after it had finished once: `init_started_at` is the younger of the two. Set when changes may have
    /// been missed, until every row has been embedded anew.
    StartedAgain,
}

/// A row with its state.
#[derive(Clone, PartialEq, Eq)]
pub struct JobRow {
    pub id: JobId,
    pub definition: Definition,
    pub progress: Progress,
    pub failed: bool,
    pub canceled: bool,
}

impl fmt::Display for Definition {
    /// `public.articles.title -> title_embedding`, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
        write!(
            f,
            "{}.{}.{} -> {}",
            self.schema,
            shown(&self.table),
            shown(&self.src_column),
            shown(&self.dst_column)
        )
    }
}

#[cfg(test)]
impl JobRow {
    /// A new job, for tests.
    pub(crate) fn example(id: &str) -> JobRow {
        let text = |text: &str| Some(text.to_owned());
        let definition = Definition {
            db_connection: "postgresql://localhost/d".into(),
            schema: "public".into(),
            table: text("t"),
            src_column: text("s"),
            dst_column: text("d"),
            embedding_model: text("m"),
            column_type: None,
            pk: None,
            batch_size: None,
            runtime: None,
            runtime_params: None,
            fingerprint_column: None,
            trust_existing: false,
            backfill: true,
            skip_triggers: false,
        };
        JobRow {
            id: JobId::new(id),
            definition,
            progress: Progress::New,
            failed: false,
            canceled: false,
        }
    }
}
