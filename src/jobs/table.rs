//! Looks the jobs table up and checks it. Which of the optional columns it has decides what is read and written.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use super::definition::JobId;
use super::privileges::{self, Access, Column, REQUIRED, SECRET, read_columns};
pub use super::table_error::JobsTableError;
use super::trust;
use crate::postgres::answer::columns;
use crate::postgres::instance::system_identifier;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};

/// A relation with fewer of the required columns is no jobs table, but one for something else.
const MOST: usize = REQUIRED.len() / 2;

/// The jobs table as it is in the database.
#[derive(Debug, Clone)]
pub struct JobsTable {
    qualified: String,
    failures: String,
    oid: u32,
    columns: BTreeSet<String>,
    /// Those that the role may read.
    readable: BTreeSet<String>,
    is_view: bool,
    is_plain: bool,
    canceled_is_boolean: bool,
    stats_type: Option<&'static str>,
    identity: u32,
}

impl JobsTable {
    /// Looks the table up and checks that a daemon can use it. With a label, the table must have a column for it.
    ///
    /// # Errors
    /// [`JobsTableError`] says what is missing, with the statement that adds it.
    pub async fn discover(
        session: &Session,
        schema: &str,
        name: &str,
        label: Option<&str>,
    ) -> Result<JobsTable, JobsTableError> {
        let found = find_table(session, schema, name).await?;
        Self::read(session, found, label, Access::ReadAndUpdate).await
    }

    /// As [`discover`](Self::discover), for a command, which only reads the table. The role need not be allowed to read
    /// connection strings: see [`may_read_connections`](Self::may_read_connections).
    ///
    /// # Errors
    /// [`JobsTableError`] says what is missing, with the statement that adds it.
    pub async fn discover_readable(
        session: &Session,
        schema: &str,
        name: &str,
    ) -> Result<JobsTable, JobsTableError> {
        let found = find_table(session, schema, name).await?;
        Self::read(session, found, None, Access::Read).await
    }

    async fn read(
        session: &Session,
        found: FoundTable<'_>,
        label: Option<&str>,
        access: Access,
    ) -> Result<JobsTable, JobsTableError> {
        let present = read_columns(session, found.oid).await?;
        let columns: BTreeSet<String> = present.keys().cloned().collect();
        check_required(session, &found, &columns).await?;
        if label.is_some() && !columns.contains("label") {
            return Err(JobsTableError::NoLabelColumn {
                table: found.qualified,
            });
        }
        privileges::check(&found.qualified, &found.role, access, &present)?;
        let canceled_is_boolean = canceled_is_boolean(&found.qualified, &present)?;
        trust::check_jobs_table(session, &found.qualified, found.oid).await?;
        let identity = identity(session, found.schema, found.name).await?;
        Ok(JobsTable {
            failures: failures_name(found.schema, found.name),
            is_view: found.is_view,
            is_plain: found.is_plain,
            qualified: found.qualified,
            oid: found.oid,
            readable: present
                .iter()
                .filter(|(_, column)| column.readable)
                .map(|(name, _)| name.clone())
                .collect(),
            stats_type: present.get("stats").and_then(json_type),
            columns,
            canceled_is_boolean,
            identity,
        })
    }

    /// Schema and name, quoted.
    pub fn qualified(&self) -> &str {
        &self.qualified
    }

    /// Schema and name of the failures table that belongs to it, quoted.
    pub fn failures(&self) -> &str {
        &self.failures
    }

    /// A number that differs between jobs tables, also between those of different servers. Daemons with different jobs
    /// tables may work on the same target database, and their slots must not have the same names.
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// The statement by which a person has a failed job tried again.
    pub fn retry_statement(&self, id: &JobId) -> String {
        self.update_statement("init_failed_at = NULL", id)
    }

    /// The statement by which a person has a canceled job run again.
    pub fn resume_statement(&self, id: &JobId) -> String {
        match self.canceled_is_boolean {
            true => self.update_statement("canceled_at = false", id),
            false => self.update_statement("canceled_at = NULL", id),
        }
    }

    pub(super) fn update_statement(&self, set: &str, id: &JobId) -> String {
        let id = match id.as_str() {
            number if number.parse::<i64>().is_ok() => number.to_owned(),
            text => literal(text),
        };
        format!("UPDATE {} SET {set} WHERE id = {id};", self.qualified)
    }

    /// Whether the role may read `db_connection`.
    pub fn may_read_connections(&self) -> bool {
        self.may_read("db_connection")
    }

    /// Whether it is a view, beside which there may be no failures table.
    pub fn is_view(&self) -> bool {
        self.is_view
    }

    /// Whether its rows are in itself, so that only transactions of its server change what is read of it.
    pub(super) fn has_own_rows(&self) -> bool {
        self.is_plain
    }

    /// Whether it has the column, and the role may read it.
    pub(super) fn shows(&self, column: &str) -> bool {
        match SECRET.contains(&column) {
            true => self.may_read(column),
            false => self.has(column),
        }
    }

    /// Whether it has the column, and the role may read it.
    pub(super) fn may_read(&self, column: &str) -> bool {
        self.readable.contains(column)
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.contains(column)
    }

    /// The type of the column `stats`, if there is one that holds JSON.
    pub(super) fn stats_type(&self) -> Option<&'static str> {
        self.stats_type
    }

    pub(super) fn oid(&self) -> u32 {
        self.oid
    }

    /// What cancels a job, as the value of `canceled_at`.
    pub(super) fn canceled_value(&self) -> &'static str {
        match self.canceled_is_boolean {
            true => "true",
            false => "now()",
        }
    }

    /// An SQL expression that is true for a canceled job.
    pub(super) fn canceled_expression(&self) -> &'static str {
        if self.canceled_is_boolean {
            "COALESCE(canceled_at, false)"
        } else {
            "canceled_at IS NOT NULL"
        }
    }
}

/// A table of that name.
struct FoundTable<'a> {
    schema: &'a str,
    name: &'a str,
    /// Schema and name, quoted.
    qualified: String,
    oid: u32,
    is_view: bool,
    is_plain: bool,
    role: String,
}

/// Looks for the table. Views and foreign tables will do as well.
async fn find_table<'a>(
    session: &Session,
    schema: &'a str,
    name: &'a str,
) -> Result<FoundTable<'a>, JobsTableError> {
    let qualified = format!("{}.{}", identifier(schema), identifier(name));
    let found: Option<(u32, i8, String)> = session
        .query_opt(
            "SELECT c.oid, c.relkind, current_user::text \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f')",
            &[&schema, &name],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during("looking for the jobs table"))?;
    let Some((oid, kind, role)) = found else {
        let similar = similar_table(session, schema, name).await?;
        return Err(JobsTableError::Missing {
            table: qualified,
            similar,
        });
    };
    Ok(FoundTable {
        schema,
        name,
        qualified,
        oid,
        is_view: kind.cast_unsigned() == b'v',
        is_plain: kind.cast_unsigned() == b'r',
        role,
    })
}

/// The options that name the jobs table which was most likely meant: one in another schema or in other letters, or the
/// one whose qualified or quoted name was given as `--table`.
async fn similar_table(
    session: &Session,
    schema: &str,
    name: &str,
) -> Result<Option<String>, DatabaseError> {
    // A relation that is no jobs table is no help, whatever its name is.
    let statement = "SELECT n.nspname::text, c.relname::text \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'f') AND has_schema_privilege(n.oid, 'USAGE') \
           AND $5 <= (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped \
                      AND a.attname = ANY ($4::text[])) \
         ORDER BY lower(n.nspname || '.' || c.relname) = lower($1) DESC, lower(c.relname) = lower($2) DESC, \
                  n.nspname = $3 DESC, n.nspname, c.relname LIMIT 1";
    let plain = name.replace('"', "");
    let last = plain.rsplit('.').next().unwrap_or_default();
    let found: Option<(String, String)> = session
        .query_opt(
            statement,
            &[&plain, &last, &schema, &REQUIRED, &(MOST as i64)],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during("looking for other jobs tables"))?;
    Ok(found.map(|(schema, table)| {
        format!(
            "--schema {} --table {}",
            shell_word(&schema),
            shell_word(&table)
        )
    }))
}

/// A word as a shell reads it (POSIX, "Quoting").
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `canceled_at` is a boolean in the documented table. A time is accepted too: then any time means canceled.
fn canceled_is_boolean(
    table: &str,
    columns: &BTreeMap<String, Column>,
) -> Result<bool, JobsTableError> {
    let kind = columns
        .get("canceled_at")
        .map(|column| column.kind.as_str());
    match kind {
        Some("boolean") => Ok(true),
        Some(kind) if kind.starts_with("timestamp") || kind == "date" => Ok(false),
        other => Err(JobsTableError::CanceledType {
            table: table.to_owned(),
            found: other.unwrap_or("?").to_owned(),
        }),
    }
}

fn json_type(column: &Column) -> Option<&'static str> {
    ["jsonb", "json"]
        .into_iter()
        .find(|kind| column.kind == *kind)
}

/// Schema and name of the failures table of a jobs table, quoted.
pub(super) fn failures_name(schema: &str, name: &str) -> String {
    format!(
        "{}.{}",
        identifier(schema),
        identifier(&failures_part(name))
    )
}

/// `<jobs table>_failures`. The server would cut a name after 63 bytes and so lose the suffix; the jobs table's part is
/// cut instead.
pub(super) fn failures_part(name: &str) -> String {
    const SUFFIX: &str = "_failures";
    let mut end = name.len().min(63 - SUFFIX.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUFFIX}", &name[..end])
}

/// Checks that the table has all columns that a daemon needs.
async fn check_required(
    session: &Session,
    found: &FoundTable<'_>,
    present: &BTreeSet<String>,
) -> Result<(), JobsTableError> {
    let missing: Vec<&str> = REQUIRED
        .iter()
        .copied()
        .filter(|column| !present.contains(*column))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let table = found.qualified.clone();
    let columns = missing.join(", ");
    // A statement that adds them would make a jobs table of a table that is used for something else.
    if REQUIRED.len() - missing.len() < MOST {
        return Err(JobsTableError::NoJobsTable {
            table,
            columns,
            similar: similar_table(session, found.schema, found.name).await?,
        });
    }
    Err(JobsTableError::MissingColumns {
        remedy: addition(&table, &missing, found.is_view),
        table,
        columns,
        plural: if missing.len() == 1 { "" } else { "s" },
    })
}

/// How the columns are added to a jobs table.
fn addition(table: &str, missing: &[&str], is_view: bool) -> String {
    if is_view {
        return format!("and add to the query of the view: CREATE OR REPLACE VIEW {table} AS …");
    }
    let kind = |column: &str| match column {
        "init_started_at" | "init_failed_at" | "init_finished_at" => "TIMESTAMP",
        "canceled_at" => "BOOL",
        _ => "TEXT",
    };
    let additions: Vec<String> = missing
        .iter()
        .map(|column| format!("ADD COLUMN {} {}", identifier(column), kind(column)))
        .collect();
    format!("for example: ALTER TABLE {table} {};", additions.join(", "))
}

/// A hash of the server's system identifier, the database and the table's name. Some managed services deny access to
/// the system identifier; there the rest has to suffice.
async fn identity(session: &Session, schema: &str, name: &str) -> Result<u32, JobsTableError> {
    let system = system_identifier(session).await?.unwrap_or(0);
    let database: u32 = session
        .query_one(
            "SELECT oid FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during(
            "reading the identity of the jobs database",
        ))?;
    let hash = xxh3_64(format!("{system}/{database}/{schema}\0{name}").as_bytes());
    Ok((hash ^ (hash >> 32)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failures_table_of_a_long_name_keeps_its_ending() {
        assert_eq!(failures_name("s", "jobs"), "\"s\".\"jobs_failures\"");
        let name = failures_name("s", &"ü".repeat(31));
        assert!(
            name.ends_with("ü_failures\"") && name.len() <= 63 + 6,
            "{name}"
        );
    }

    #[test]
    fn a_name_is_quoted_for_a_shell_where_it_must_be() {
        assert_eq!(shell_word("embedding_jobs"), "embedding_jobs");
        assert_eq!(shell_word("EmbedJobs"), "EmbedJobs");
        assert_eq!(shell_word("my jobs"), "'my jobs'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_missing_column_is_named_with_its_remedy() {
        let said = addition("t", &["table", "canceled_at"], false);
        assert_eq!(
            said,
            "for example: ALTER TABLE t ADD COLUMN \"table\" TEXT, ADD COLUMN \"canceled_at\" BOOL;"
        );
        assert!(addition("t", &["table"], true).contains("CREATE OR REPLACE VIEW t"));
    }
}
