//! The SELECT that reads rows of the jobs table, and what becomes of its answer.
//!
//! A role that may insert a row chooses what its columns hold. So the server is asked for short values only: a longer one
//! never leaves the server, and fails its own job with a reason. Values are read as text and converted here, for the same
//! reason: a cast that fails would fail the statement for all rows.

use tokio_postgres::Row;

use super::chunk_table::PASSAGE_VECTORS;
use super::definition::{Definition, InitProgress, JobId, JobRow, OPTIONS};
use super::privileges::SECRET;
use super::table::JobsTable;
use crate::postgres::quote::{identifier, literal};

/// The longest value of a column of the jobs table, in bytes.
pub(super) const MAX_VALUE: usize = 16 << 10;
/// The longest id, in bytes.
pub(super) const MAX_ID: usize = 1 << 10;
/// How much of an earlier reason for a failure is read, in characters.
const MAX_REASON: usize = 4000;

/// The columns that every jobs table has and that hold texts of the user's.
const TEXTS: [&str; 6] = [
    "db_connection",
    "schema",
    "table",
    "src_column",
    "dst_column",
    "embedding_model",
];

/// The statement. `condition` is SQL over the row `j`, empty or beginning with WHERE.
///
/// The columns that every jobs table has are named as those of `j`. Those of [`OPTIONS`] are not: such a name means the
/// column of `j` if the table has it, and else that of `absent`, which is NULL. So an option takes effect as soon as its
/// column is added, and the role needs no right on any other column. Rows come in the order of their ids as text, since
/// `id` may have a type without an order.
pub(super) fn select_statement(table: &JobsTable, condition: &str) -> String {
    let texts = TEXTS.map(|name| (name, format!("j.{}", identifier(name))));
    let options = OPTIONS.iter().map(|(name, _)| (*name, identifier(name)));
    let named: Vec<(&str, String)> = texts
        .into_iter()
        .chain(options)
        .map(
            |(name, column)| match table.shows(name) || !is_secret(name) {
                true => (name, column),
                false => (name, "NULL::text".to_owned()),
            },
        )
        .collect();
    let mut selected: Vec<String> = named
        .iter()
        .map(|(name, column)| format!("{} AS {}", short(column, MAX_VALUE), identifier(name)))
        .collect();
    let lengths: Vec<String> = named
        .iter()
        .map(|(name, column)| {
            format!(
                "CASE WHEN {} THEN {} END",
                is_long(column, MAX_VALUE),
                literal(name)
            )
        })
        .collect();
    selected.extend([
        format!("{} AS id", short("j.id", MAX_ID)),
        format!("concat_ws(', ', {}) AS too_long", lengths.join(", ")),
        "j.init_started_at IS NOT NULL AS started".to_owned(),
        "j.init_finished_at IS NOT NULL AS finished".to_owned(),
        // The fraction of a second, where there is one, follows a point in JSON, whatever type the column has.
        "CASE WHEN j.init_finished_at IS NULL \
           THEN strpos(COALESCE(to_jsonb(j.init_started_at) #>> '{}', '.'), '.') = 0 \
           ELSE COALESCE(j.init_started_at > j.init_finished_at, false) END AS started_again"
            .to_owned(),
        "j.init_failed_at IS NOT NULL AS failed".to_owned(),
        format!(
            "CASE WHEN pg_column_size(j.init_failure_reason) < 65536 \
               THEN left(j.init_failure_reason::text, {MAX_REASON}) END AS failure_reason"
        ),
        format!("{} AS canceled", table.canceled_expression()),
        match table.may_read("replaced_by") {
            true => format!("{} AS replaced_by", short("j.replaced_by", MAX_ID)),
            false => "NULL::text AS replaced_by".to_owned(),
        },
    ]);
    let absent: Vec<String> = OPTIONS.iter().map(|(name, _)| identifier(name)).collect();
    format!(
        "SELECT r.* FROM (VALUES ({nulls})) AS absent ({absent}) CROSS JOIN LATERAL ( \
           SELECT {selected} FROM {table} j {condition}) r ORDER BY r.id",
        nulls = vec!["NULL::text"; absent.len()].join(", "),
        absent = absent.join(", "),
        selected = selected.join(", "),
        table = table.qualified(),
    )
}

fn is_secret(name: &str) -> bool {
    SECRET.contains(&name)
}

/// SQL for the value as text; NULL where it is long. The stored size is looked at first, which reads nothing of a value
/// that is stored out of line.
fn short(column: &str, limit: usize) -> String {
    format!(
        "CASE WHEN pg_column_size({column}) <= {stored} THEN \
           CASE WHEN octet_length({column}::text) <= {limit} THEN {column}::text END END",
        stored = limit + 4,
    )
}

fn is_long(column: &str, limit: usize) -> String {
    format!(
        "{column} IS NOT NULL AND ({}) IS NULL",
        short(column, limit)
    )
}

/// A row; `None` where it has no id, or none that could be written into a log.
///
/// # Errors
/// The answer has other columns, as none of PostgreSQL has.
pub(super) fn job_row(row: &Row) -> Result<Option<JobRow>, tokio_postgres::Error> {
    let Some(id) = row.try_get::<_, Option<String>>("id")? else {
        return Ok(None);
    };
    let text = |column: &str| -> Result<Option<String>, tokio_postgres::Error> {
        let value: Option<String> = row.try_get(column)?;
        Ok(value.filter(|value| !value.is_empty()))
    };
    let is = |column: &str| row.try_get::<_, bool>(column);
    let mut defects = Defects::default();
    defects.note_long(&text("too_long")?.unwrap_or_default());
    let chunk_table = text("chunk_table")?;
    let definition = Definition {
        db_connection: text("db_connection")?.unwrap_or_default(),
        write_connection: text("write_connection")?,
        schema: text("schema")?.unwrap_or_else(|| "public".to_owned()),
        table: text("table")?,
        src_column: text("src_column")?,
        dst_column: text("dst_column")?.or_else(|| {
            let of_passages = chunk_table.is_some();
            of_passages.then(|| PASSAGE_VECTORS.to_owned())
        }),
        embedding_model: text("embedding_model")?,
        column_type: text("column_type")?,
        pk: text("pk")?,
        batch_size: defects.number("batch_size", text("batch_size")?),
        runtime: text("runtime")?,
        // A JSON null stands for no value, as NULL does.
        runtime_params: text("runtime_params")?.filter(|params| params != "null"),
        chunk_table,
        fingerprint_column: text("fingerprint_column")?,
        trust_existing: defects.flag("trust_existing", text("trust_existing")?, false),
        backfill: defects.flag("backfill", text("backfill")?, true),
        skip_triggers: defects.flag("skip_triggers", text("skip_triggers")?, false),
        create_index: text("create_index")?,
        index_params: text("index_params")?.filter(|params| params != "null"),
        replaces: text("replaces")?.map(JobId::new),
        accept_failures: defects.flag("accept_failures", text("accept_failures")?, false),
        defect: defects.into_reason(),
    };
    Ok(Some(JobRow {
        id: JobId::new(id),
        definition,
        progress: progress(is("started")?, is("finished")?, is("started_again")?),
        failed: is("failed")?,
        failure_reason: text("failure_reason")?,
        canceled: is("canceled")?,
        replaced_by: text("replaced_by")?.map(JobId::new),
    }))
}

/// What is wrong with the values of a row, as the reasons of a failure.
#[derive(Default)]
struct Defects(Vec<String>);

impl Defects {
    /// `columns` are the names of those whose values are too long, separated by commas.
    fn note_long(&mut self, columns: &str) {
        if !columns.is_empty() {
            self.0.push(format!(
                "{columns}: longer than {} kB, and therefore not read; shorten it",
                MAX_VALUE >> 10
            ));
        }
    }

    fn number(&mut self, column: &str, value: Option<String>) -> Option<i64> {
        let value = value?;
        let number = value.trim().parse().ok();
        if number.is_none() {
            self.0.push(format!(
                "{column} is {}, which is no whole number",
                shown(&value)
            ));
        }
        number
    }

    /// The words of PostgreSQL's type boolean (manual, "Boolean Type").
    fn flag(&mut self, column: &str, value: Option<String>, default: bool) -> bool {
        let Some(value) = value else { return default };
        match value.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => true,
            "false" | "f" | "no" | "n" | "off" | "0" => false,
            _ => {
                self.0.push(format!(
                    "{column} is {}, which is neither true nor false",
                    shown(&value)
                ));
                default
            }
        }
    }

    fn into_reason(self) -> Option<String> {
        match self.0.is_empty() {
            true => None,
            false => Some(format!(
                "the job's row cannot be used: {}",
                self.0.join("; ")
            )),
        }
    }
}

/// A value in an error, shortened.
fn shown(value: &str) -> String {
    literal(&value.chars().take(40).collect::<String>())
}

fn progress(started: bool, finished: bool, started_again: bool) -> InitProgress {
    match (started, finished, started_again) {
        (false, _, _) => InitProgress::New,
        (true, _, true) => InitProgress::StartedAgain,
        (true, false, false) => InitProgress::Started,
        (true, true, false) => InitProgress::Finished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_number_or_flag_is_a_defect_of_its_row_alone() {
        let text = |value: &str| Some(value.to_owned());
        let mut defects = Defects::default();
        assert_eq!(defects.number("batch_size", text(" 7 ")), Some(7));
        assert!(defects.flag("backfill", text("T"), false));
        assert!(!defects.flag("backfill", text("off"), true));
        assert!(defects.flag("backfill", None, true));
        assert!(defects.into_reason().is_none());

        let mut defects = Defects::default();
        assert_eq!(defects.number("batch_size", text("many")), None);
        assert!(defects.flag("backfill", text("perhaps"), true));
        defects.note_long("pk, schema");
        let reason = defects.into_reason().expect("defects");
        for part in [
            "batch_size is 'many'",
            "backfill is 'perhaps'",
            "pk, schema: longer than 16 kB",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
    }
}
