//! What a person should know of the table of a job, though it keeps no job from starting.

use tokio_postgres::error::SqlState;

use super::storage::{MANY_ROWS, Storage, rounded};
use crate::jobs::Definition;
use crate::pipeline::setup::columns::vector_schema;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::inspect::LookedAt;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::triggers::{WrittenRows, firing_triggers};
use crate::pipeline::table::target::{SourceColumn, ignored_child};
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// A table without statistics is counted up to this size, in bytes.
const MAX_COUNTED: i64 = 1 << 20;

type Advice = Result<Option<Outcome>, DatabaseError>;

/// The points that are there for every table.
const POINTS: [&str; 3] = ["rows", "pgvector", "triggers"];

/// Adds the points that cannot be made, for this reason.
pub(super) fn skip(points: &mut Points, why: &str) {
    points.skip(&POINTS, why);
}

/// Adds the advice. A question that fails is a point of its own.
pub(super) async fn give(
    points: &mut Points,
    session: &Session,
    names: &TargetNames,
    definition: &Definition,
    table: &LookedAt,
) {
    let looked = Looked {
        session,
        names,
        definition,
        table,
    };
    let storage = match Storage::read(session, table.relation.oid).await {
        Ok(storage) => storage,
        Err(error) => return skip(points, &error.to_string()),
    };
    let [rows, pgvector, triggers] = POINTS;
    let given = [
        (rows, looked.rows(&storage).await),
        (pgvector, looked.pgvector().await),
        (triggers, looked.triggers().await),
        ("children", looked.children().await),
        ("fingerprint", Ok(looked.fingerprint(&storage))),
        ("fillfactor", Ok(looked.fillfactor(&storage))),
        ("autovacuum", Ok(looked.autovacuum(&storage))),
    ];
    for (title, outcome) in given {
        match outcome {
            Ok(outcome) => outcome.map_or((), |outcome| points.add(title, outcome)),
            Err(error) => points.add(title, Outcome::Unknown(error.to_string())),
        }
    }
}

struct Looked<'a> {
    session: &'a Session,
    names: &'a TargetNames,
    definition: &'a Definition,
    table: &'a LookedAt,
}

impl Looked<'_> {
    /// How many rows the initial backfill has to embed: by the statistics, or counted where the table is small.
    async fn rows(&self, storage: &Storage) -> Advice {
        if !self.definition.backfill {
            let text = "existing rows are not embedded, since backfill is false";
            return Ok(Some(Outcome::Passed(text.into())));
        }
        let Some(source) = &self.table.source else {
            let why = "there is no source column";
            return Ok(Some(Outcome::Unknown(why.into())));
        };
        if storage.bytes <= MAX_COUNTED {
            return self.count(source).await;
        }
        if storage.rows < 0.0 {
            let table = self.names.qualified();
            return Ok(Some(Outcome::Advice(format!(
                "how many there are to embed is not known yet; run: ANALYZE {table};"
            ))));
        }
        let share = self.share_to_embed().await?;
        Ok(Some(Outcome::Passed(format!(
            "about {} to embed, of about {} (by the statistics)",
            rounded(storage.rows * share),
            rounded(storage.rows)
        ))))
    }

    /// The rows with a text and without a vector. A role that may not read them learns that from another point.
    async fn count(&self, source: &SourceColumn) -> Advice {
        let text = source.plain_sql("t");
        let lacks_vector = match &self.table.destination {
            // Whether passages are those of the text takes longer to tell than a check may.
            _ if self.names.passages.is_some() => "true".to_owned(),
            Some(destination) => format!("t.{} IS NULL", identifier(&destination.name)),
            None => "true".to_owned(),
        };
        let only = match self.table.relation.partitioned {
            true => "",
            false => "ONLY ",
        };
        let question = format!(
            "SELECT count(*) FROM {only}{} t WHERE {text} IS NOT NULL AND {lacks_vector}",
            self.names.qualified()
        );
        let answer = self.session.query_one(&question, &[]).await;
        match answer.and_then(|row| row.try_get::<_, i64>(0)) {
            Ok(count) if self.names.passages.is_some() => {
                Ok(Some(Outcome::Passed(format!("{count} with a text"))))
            }
            Ok(count) => Ok(Some(Outcome::Passed(format!("{count} to embed")))),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Ok(Some(Outcome::Unknown("the role may not count them".into())))
            }
            Err(error) => Err(DatabaseError::during("counting the rows to embed")(error)),
        }
    }

    /// The share of rows with a text and without a vector, by the statistics: 1 where there are none.
    async fn share_to_embed(&self) -> Result<f64, DatabaseError> {
        let destination = self.table.destination.as_ref();
        let destination = destination.filter(|_| self.names.passages.is_none());
        let destination = destination.map(|column| column.name.as_str());
        self.session
            .query_one(
                "SELECT (COALESCE((SELECT 1 - min(null_frac) FROM pg_stats WHERE schemaname = $1 AND tablename = $2 \
                                   AND attname = $3), 1) \
                       * COALESCE((SELECT max(null_frac) FROM pg_stats WHERE schemaname = $1 AND tablename = $2 \
                                   AND attname = $4), 1))::float8",
                &[
                    &self.names.schema,
                    &self.names.table,
                    &self.names.source,
                    &destination,
                ],
            )
            .await
            .and_then(|row| row.try_get(0))
            .map_err(DatabaseError::during("reading statistics of the table"))
    }

    async fn pgvector(&self) -> Advice {
        if let Some(schema) = vector_schema(self.session).await? {
            let version: Option<String> = self
                .session
                .query_opt(
                    "SELECT extversion FROM pg_extension WHERE extname = 'vector'",
                    &[],
                )
                .await
                .and_then(|row| row.map(|row| row.try_get(0)).transpose())
                .map_err(DatabaseError::during("asking for the version of pgvector"))?;
            let version = version.map_or_else(String::new, |version| format!("{version}, "));
            let schema = identifier(&schema);
            return Ok(Some(Outcome::Passed(format!(
                "{version}in the schema {schema}"
            ))));
        }
        let available: bool = self
            .session
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')",
                &[],
            )
            .await
            .and_then(|row| row.try_get(0))
            .map_err(DatabaseError::during("looking for pgvector"))?;
        let remedy = match available {
            true => "run: CREATE EXTENSION vector; before the column for the vectors is created",
            false => {
                "install the package of pgvector on the server, then run: CREATE EXTENSION vector;"
            }
        };
        Ok(Some(Outcome::Advice(format!(
            "not installed in this database: vectors go into arrays, which no index finds fast. For one, {remedy}"
        ))))
    }

    async fn triggers(&self) -> Advice {
        let mut written = vec![self.names.destination.as_str()];
        written.extend(self.names.fingerprint.as_deref());
        let skips = self.definition.skip_triggers;
        let table = match (&self.names.passages, self.table.chunk_table) {
            (Some(_), Some(oid)) => (oid, WrittenRows::Replaced),
            (Some(_), None) => return Ok(None),
            (None, _) => (self.table.relation.oid, WrittenRows::Updated),
        };
        let firing = firing_triggers(self.session, table, &written, skips).await?;
        if firing.is_empty() {
            return Ok(Some(Outcome::Passed("none fires for a write-back".into())));
        }
        let names: Vec<String> = firing.iter().map(|name| identifier(name)).collect();
        let remedy = match skips {
            true => "they are enabled as ALWAYS or REPLICA",
            false => "skip_triggers = true in the jobs table leaves them out",
        };
        Ok(Some(Outcome::Advice(format!(
            "each write-back fires {} of {}; {remedy}",
            names.join(", "),
            self.names.written()
        ))))
    }

    async fn children(&self) -> Advice {
        if self.table.relation.partitioned {
            return Ok(None);
        }
        let children: Vec<String> = self
            .session
            .query(
                "SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = $1 ORDER BY 1",
                &[&self.table.relation.oid],
            )
            .await
            .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            .map_err(DatabaseError::during("looking for tables that inherit"))?;
        let table = self.names.qualified();
        let told: Vec<String> = children
            .iter()
            .map(|child| ignored_child(&table, child))
            .collect();
        Ok((!told.is_empty()).then(|| Outcome::Advice(told.join("; "))))
    }

    fn fingerprint(&self, storage: &Storage) -> Option<Outcome> {
        let has_none = self.names.fingerprint.is_none() && self.names.passages.is_none();
        (has_none && storage.rows >= MANY_ROWS).then(|| {
            Outcome::Advice(
                "none: where changes may have been missed, every row is embedded again. With fingerprint_column in \
                 the jobs table, a uuid column tells which vectors are current, and only the others are"
                    .into(),
            )
        })
    }

    fn fillfactor(&self, storage: &Storage) -> Option<Outcome> {
        let table = self.names.qualified();
        let statement = match self.table.relation.partitioned {
            false => format!("ALTER TABLE {table} SET (fillfactor = 85);"),
            true => "ALTER TABLE … SET (fillfactor = 85); for each partition".into(),
        };
        let is_written = self.names.passages.is_none();
        (is_written && storage.fillfactor == 100 && storage.rows >= MANY_ROWS).then(|| {
            Outcome::Advice(format!(
                "100: a write-back makes a new version of its row, which finds no room in the page and touches every \
                 index. For pages that are written from now on: {statement}"
            ))
        })
    }

    fn autovacuum(&self, storage: &Storage) -> Option<Outcome> {
        // Write-backs of passages leave this table as it is.
        let is_written = self.names.passages.is_none();
        let advice = storage.advise_on_autovacuum(&self.names.qualified(), "rows");
        advice.filter(|_| is_written)
    }
}
