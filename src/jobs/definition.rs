//! What one row of the jobs table asks for.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::chunk_table::ChunkTableName;
use crate::postgres::ConnectionString;

/// The row's `id` as text. The documented table has integers there, but any type will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(String);

impl JobId {
    /// The id with this text.
    pub fn new(text: impl Into<String>) -> Self {
        JobId(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a job is asked to do: the columns of its row that the user writes.
///
/// All values are as the user wrote them, but an empty text counts as NULL. They are checked when the job starts, so a
/// wrong value makes that job fail and no other. A value that is none of the type in [`OPTIONS`], or too long, is a
/// [`defect`](Self::defect).
///
/// # To add an option
///
/// This is the list of the steps; `CONTRIBUTING.md` follows one option through them. An option is an optional column:
/// a jobs table need not have it.
///
/// 1. Add its column to [`OPTIONS`], a field to this struct, and its default to `JobRow::example` below.
/// 2. Read the column in `job_row` (`rows.rs`). NULL and a missing column mean the default.
/// 3. Check the value in `pipeline/setup/definition.rs`, or, if that takes the server, in `pipeline/setup/preflight/`.
///    The message names the option and says how to correct it.
/// 4. Use it where the work is done: `pipeline/backfill/scope.rs` decides which rows are scanned, `WriteOptions`
///    (`pipeline/write/path.rs`) how vectors are written. `resync` and `retry-failed` take the same write path, but
///    `resync` and `verify` choose their rows themselves (`src/cli/resync.rs`, `pipeline/commands/verify.rs`). Which text
///    gets a vector at all is decided by `SourceColumn` (`pipeline/table/target.rs`), in SQL and for the stream
///    (`source` in `pipeline/capture/table_changes.rs`); both must agree. `pipeline/table` does not know the jobs table:
///    such an option reaches it through `TargetNames` and `pipeline/setup/preflight/source.rs`. Each command must honor
///    the option.
/// 5. Decide what a change of the option means for existing rows. By default it restarts the job, which continues where
///    it was, so only later write-backs heed it. If the option decides *which* vectors are written, add it to
///    `Definition::work`: then a change makes another job, which scans the table. See there how to add it without
///    renaming the slots of jobs that do not use it, which the tests in `pipeline/slot/names.rs` hold. Add it to the list
///    in the README ("If you change what a job embeds").
/// 6. Document the column in `sql/jobs.sql`, in the section "Jobs table" of the README (a test compares both with
///    [`OPTIONS`]), and in `CHANGELOG.md`. The documented `CREATE TABLE jobs` of the README never changes.
/// 7. Test the value and the refusal in `tests/integration/jobs_table.rs`, the commands in
///    `tests/integration/commands.rs`, and the effect as a user sees it in SQL in the module that fits.
#[derive(Clone, PartialEq, Eq)]
pub struct Definition {
    /// Connection string of the target database.
    pub db_connection: String,
    /// Connection string for everything that reads and writes rows of the target table, where that is to be another
    /// role than the one that streams.
    pub write_connection: Option<String>,
    /// Schema of the target table; `public` if the row names none.
    pub schema: String,
    /// Name of the target table.
    pub table: Option<String>,
    /// Column with the texts to embed.
    pub src_column: Option<String>,
    /// Column for the vectors: of the target table, or of the table for passages.
    pub dst_column: Option<String>,
    /// Name of the model.
    pub embedding_model: Option<String>,
    /// Type of the destination column, if the daemon has to create it.
    pub column_type: Option<String>,
    /// Names of the key columns, separated by commas. `None`: the key of the table's replica identity.
    pub pk: Option<String>,
    /// The maximum number of rows in one write-back.
    pub batch_size: Option<i64>,
    /// Where the model runs. Only `ort` is known.
    pub runtime: Option<String>,
    /// Settings of the runtime as JSON: how it uses the model.
    pub runtime_params: Option<String>,
    /// Table for passages of the texts, as the user wrote its name. `None`: each text has one vector, in its own row.
    pub chunk_table: Option<String>,
    /// Column of the target table for the fingerprint of the text and model that a row's vector was made from.
    pub fingerprint_column: Option<String>,
    /// Existing vectors count as right, even if changes may have been missed.
    pub trust_existing: bool,
    /// Existing rows are embedded too, not only those that change from now on.
    pub backfill: bool,
    /// Write-backs do not fire the triggers of the target table.
    pub skip_triggers: bool,
    /// The kind of index that the daemon builds on the destination. Only `hnsw` is known.
    pub create_index: Option<String>,
    /// What that index is like, as JSON.
    pub index_params: Option<String>,
    /// The job whose column this one takes over, once it has a vector of another model for every row.
    pub replaces: Option<JobId>,
    /// Rows of the failures table without a vector do not hold up the takeover.
    pub accept_failures: bool,
    /// Why the row cannot be used, if a value of it cannot be read.
    pub defect: Option<String>,
}

/// The columns of a [`Definition`] that a jobs table need not have, each with the type of its values.
pub const OPTIONS: &[(&str, &str)] = &[
    ("write_connection", "text"),
    ("column_type", "text"),
    ("pk", "text"),
    ("batch_size", "bigint"),
    ("runtime", "text"),
    ("runtime_params", "text"),
    ("chunk_table", "text"),
    ("fingerprint_column", "text"),
    ("trust_existing", "bool"),
    ("backfill", "bool"),
    ("skip_triggers", "bool"),
    ("create_index", "text"),
    ("index_params", "text"),
    ("replaces", "text"),
    ("accept_failures", "bool"),
];

impl Definition {
    /// Whether `other` asks for the same vectors in the same place, so that it can continue where this one stopped. A
    /// new password or batch size does not make another job.
    pub fn continues(&self, other: &Definition) -> bool {
        self.is_beside(other) && self.work() == other.work()
    }

    /// What the job embeds: one of them, and many.
    pub fn unit(&self) -> (&'static str, &'static str) {
        match self.chunk_table {
            Some(_) => ("document", "documents"),
            None => ("row", "rows"),
        }
    }

    /// Whether both name the same database, as far as connection strings tell.
    pub fn is_beside(&self, other: &Definition) -> bool {
        let place = |definition: &Definition| {
            let connection = definition.db_connection.parse::<ConnectionString>();
            connection.map(|connection| connection.to_string()).ok()
        };
        place(self).is_some() && place(self) == place(other)
    }

    /// Whether both have the same source column of the same table, and the same columns for what they write.
    pub fn shares_columns_with(&self, other: &Definition) -> bool {
        let place = |definition: &Definition| {
            let Definition {
                schema,
                table,
                src_column,
                dst_column,
                chunk_table,
                fingerprint_column,
                ..
            } = definition.clone();
            let written = (chunk_table, dst_column, fingerprint_column);
            (schema, table, src_column, written)
        };
        // A role that searches may see neither connection string.
        let is_beside = self.db_connection == other.db_connection || self.is_beside(other);
        place(self) == place(other) && is_beside
    }

    /// Whether both write one and the same column: vectors and fingerprints of two jobs would replace each other. A job
    /// that replaces another one writes columns of its own until then (see `pipeline/changeover`), which is for the
    /// caller to know.
    pub fn writes_a_column_of(&self, other: &Definition) -> bool {
        let written = |definition: &Definition| -> Vec<String> {
            let columns = [&definition.dst_column, &definition.fingerprint_column];
            columns.into_iter().flatten().cloned().collect()
        };
        let others = written(other);
        // A job writes whole rows of its table for passages.
        let both_have_passages = self.chunk_table.is_some() && other.chunk_table.is_some();
        self.written_table() == other.written_table()
            && (both_have_passages || written(self).iter().any(|column| others.contains(column)))
            && self.is_beside(other)
    }

    /// Whether the job has a slot of its own also where others share one: a shared publication publishes neither deletes nor
    /// truncates.
    pub fn needs_own_slot(&self) -> bool {
        self.chunk_table.is_some()
    }

    /// Whether a row tells by itself whether its vectors are of its text: by its fingerprint, or those of its passages.
    pub fn tells_current_rows(&self) -> bool {
        self.fingerprint_column.is_some() || self.chunk_table.is_some()
    }

    /// The table that vectors are written to, by schema and name. `None` where the row does not say, or not so that it can
    /// be read.
    pub fn written_table(&self) -> Option<ChunkTableName> {
        match &self.chunk_table {
            Some(name) => ChunkTableName::parse(name, &self.schema).ok(),
            None => Some(ChunkTableName {
                schema: self.schema.clone(),
                table: self.table.clone()?,
            }),
        }
    }

    /// A hash of what is embedded, from where, to where, and how. It is part of the names of slot and publication. So a
    /// job whose definition was changed while no daemon ran does not continue from the slot of the old definition.
    pub fn hash(&self) -> u32 {
        let hash = xxh3_64(format!("{:?}", self.work()).as_bytes());
        (hash ^ (hash >> 32)) as u32
    }

    /// The runtime of a job whose vectors servers compute.
    pub fn remote_runtime(&self) -> Option<&str> {
        self.runtime.as_deref().filter(|name| *name != "ort")
    }

    /// What decides which vectors are written. Its debug output is hashed into the names of slots, so it never changes
    /// for a job as it is: a daemon with another output finds none of the existing slots, and embeds every row of every
    /// job again. That holds for a further element too, even for one that is `None`.
    ///
    /// So a new option may only appear here while it is set: chain it as an iterator that is empty for `None`, with its
    /// name in the text (`"option=value"`), so that it differs from any other option that comes later. A number can be
    /// the text of a `Cow<str>`.
    fn work(&self) -> Vec<Option<Cow<'_, str>>> {
        let columns = [
            Some(&self.schema),
            self.table.as_ref(),
            self.src_column.as_ref(),
            self.dst_column.as_ref(),
            self.embedding_model.as_ref(),
            self.fingerprint_column.as_ref(),
        ];
        let columns = columns.map(|column| column.map(|text| Cow::from(text.as_str())));
        let params = self.runtime_params.as_deref().and_then(of_documents);
        let params = params.map(|params| Some(Cow::from(format!("runtime_params={params}"))));
        let runtime = self
            .remote_runtime()
            .map(|name| Some(Cow::from(format!("runtime={name}"))));
        let passages = self
            .chunk_table
            .as_ref()
            .map(|name| Some(Cow::from(format!("chunk_table={name}"))));
        let further = params.into_iter().chain(runtime).chain(passages);
        columns.into_iter().chain(further).collect()
    }
}

/// Parameters that decide no vector of a row: consents, and where and how vectors are asked for. A new key must not embed a
/// table again.
const OF_NO_VECTOR: [&str; 15] = [
    "api_key",
    "api_key_env",
    "api_key_header",
    "base_url",
    "encoding_format",
    "force",
    "headers",
    "hedge_after",
    "max_batch",
    "max_batch_tokens",
    "max_document_bytes",
    "max_in_flight",
    "price_per_million",
    "timeout",
    "truncate",
];

/// `runtime_params` as others may see them, without the key of a server and the values of headers.
pub fn without_keys(params: &str) -> String {
    let Ok(Value::Object(mut params)) = serde_json::from_str(params) else {
        return params.to_owned();
    };
    if let Some(key) = params.get_mut("api_key") {
        *key = HIDDEN.into();
    }
    if let Some(Value::Object(headers)) = params.get_mut("headers") {
        headers
            .values_mut()
            .for_each(|value| *value = HIDDEN.into());
    }
    Value::Object(params).to_string()
}

/// What stands for a secret.
const HIDDEN: &str = "***";

/// The part of `runtime_params` that decides vectors of rows; `None` if there is none. A new prompt for queries changes
/// no row, and neither does a consent.
fn of_documents(params: &str) -> Option<String> {
    // What is not JSON makes the job fail, whatever its slot is called.
    let Ok(Value::Object(mut params)) = serde_json::from_str(params) else {
        return Some(params.to_owned());
    };
    params.retain(|key, _| !OF_NO_VECTOR.contains(&key.as_str()));
    for key in ["prompt", "prompt_name", "task", "input_type"] {
        if let Some(Value::Object(roles)) = params.get_mut(key) {
            roles.remove("query");
        }
    }
    params.retain(|_, value| !matches!(value, Value::Null) && *value != Value::Object(Map::new()));
    // The keys are sorted, so that their order in the jobs table does not matter.
    (!params.is_empty()).then(|| Value::Object(params).to_string())
}

/// How far the initial backfill of a job has come, by the `init_*` columns of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitProgress {
    /// `init_started_at` is null.
    New,
    /// Started and not finished.
    Started,
    /// `init_finished_at` is not older than `init_started_at`.
    Finished,
    /// Every row has to be embedded, until that is done: changes may have been missed, or a first run has found vectors
    /// of unknown texts.
    ///
    /// After a first run was finished, `init_started_at` is then younger than `init_finished_at`. Before, the job must
    /// not read as finished: `init_finished_at` stays NULL, and an `init_started_at` without a fraction of a second
    /// tells this run from an ordinary one.
    StartedAgain,
}

/// A row of the jobs table: the definition of a job, and its state.
#[derive(Clone, PartialEq, Eq)]
pub struct JobRow {
    /// The row's id.
    pub id: JobId,
    /// What the job is asked to do.
    pub definition: Definition,
    /// How far the initial backfill has come.
    pub progress: InitProgress,
    /// The job has failed, and waits until a person acts.
    pub failed: bool,
    /// Why it has failed.
    pub failure_reason: Option<String>,
    /// The job is canceled.
    pub canceled: bool,
    /// The job that has taken over the column of this one.
    pub replaced_by: Option<JobId>,
}

impl JobRow {
    /// Whether `other` writes a column that this job would write too, and comes first: it has been started before, or
    /// has the smaller id. A job and the one that it replaces do not get in each other's way.
    pub fn comes_after(&self, other: &JobRow) -> bool {
        other.id != self.id
            && !self.replaces(other)
            && !other.replaces(self)
            && other.precedence() < self.precedence()
            && other.definition.writes_a_column_of(&self.definition)
    }

    /// Whether this job has yet to take over the column of one of these, by the jobs table.
    pub fn is_to_replace_one_of(&self, others: &[JobRow]) -> bool {
        let is_open = |other: &JobRow| other.replaced_by.as_ref() != Some(&self.id);
        others
            .iter()
            .any(|other| self.replaces(other) && is_open(other))
    }

    /// Whether this job takes over the column of `other`.
    pub fn replaces(&self, other: &JobRow) -> bool {
        self.definition.replaces.as_ref() == Some(&other.id)
    }

    /// The order in which jobs are started: those that have run before come first, then by id.
    pub fn in_order_of_start(&self, other: &JobRow) -> std::cmp::Ordering {
        self.precedence().cmp(&other.precedence())
    }

    fn precedence(&self) -> (bool, i64, &str) {
        let id = self.id.as_str();
        let number = id.parse().unwrap_or(i64::MAX);
        (self.progress == InitProgress::New, number, id)
    }
}

impl fmt::Display for Definition {
    /// `public.articles.title -> title_embedding`, or `public.docs.body -> docs_chunks.embedding`, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
        write!(
            f,
            "{}.{}.{} -> ",
            self.schema,
            shown(&self.table),
            shown(&self.src_column)
        )?;
        if let Some(chunk_table) = &self.chunk_table {
            write!(f, "{chunk_table}.")?;
        }
        f.write_str(&shown(&self.dst_column))
    }
}

#[cfg(test)]
impl JobRow {
    /// A new job, for tests.
    pub(crate) fn example(id: &str) -> JobRow {
        let text = |text: &str| Some(text.to_owned());
        let definition = Definition {
            db_connection: "postgresql://localhost/d".into(),
            write_connection: None,
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
            chunk_table: None,
            fingerprint_column: None,
            trust_existing: false,
            backfill: true,
            skip_triggers: false,
            create_index: None,
            index_params: None,
            replaces: None,
            accept_failures: false,
            defect: None,
        };
        JobRow {
            id: JobId::new(id),
            definition,
            progress: InitProgress::New,
            failed: false,
            failure_reason: None,
            canceled: false,
            replaced_by: None,
        }
    }
}
