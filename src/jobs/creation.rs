//! Creates the jobs table and the failures table beside it, as `sql/jobs.sql` does, under other names too.

use tokio_postgres::error::SqlState;

use super::table::{JobsTable, JobsTableError, failures_name, failures_part};
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// `sql/jobs.sql`.
pub const SCRIPT: &str = include_str!("../../sql/jobs.sql");

/// What was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Schema and name of the jobs table, quoted.
    pub jobs: String,
    /// Those of the failures table.
    pub failures: String,
    /// The jobs table was there.
    pub had_jobs: bool,
    /// The failures table was there.
    pub had_failures: bool,
    /// The statement that adds the columns which a jobs table that was there lacks, if it lacks any and is no view.
    pub addition: Option<String>,
}

/// Why the tables cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CreationError {
    /// The role may not create tables in the schema, or there is none.
    #[error("{cause}; {remedy}")]
    Refused {
        /// The server's error.
        cause: DatabaseError,
        /// What to do.
        remedy: String,
    },
    /// A table of the name is there, and is no jobs table.
    #[error(transparent)]
    Unsuitable(#[from] JobsTableError),
    /// The jobs database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Creates what is missing, in one transaction. What is there stays as it is.
///
/// # Errors
/// The role may not, or a table of the name is no jobs table: the message says what to do.
///
/// Cancellation safe: both tables are created, or none.
pub async fn create(session: &Session, schema: &str, name: &str) -> Result<Created, CreationError> {
    let jobs = format!("{}.{}", identifier(schema), identifier(name));
    let failures = failures_name(schema, name);
    let (had_jobs, had_failures) = existing(session, schema, name).await?;
    let addition = match had_jobs {
        true => addition(&JobsTable::discover_readable(session, schema, name).await?),
        false => None,
    };
    if let Err(error) = session.batch_execute(&script(&jobs, &failures)).await {
        let remedy = remedy(session, &error, schema).await?;
        let cause = DatabaseError::during(format!("creating {jobs}"))(error);
        return Err(match remedy {
            Some(remedy) => CreationError::Refused { cause, remedy },
            None => cause.into(),
        });
    }
    Ok(Created {
        jobs,
        failures,
        had_jobs,
        had_failures,
        addition,
    })
}

/// How the table gets the columns of the script that it lacks.
fn addition(table: &JobsTable) -> Option<String> {
    let additions: Vec<String> = script_columns()
        .filter(|(name, _)| !table.has(name))
        .map(|(name, kind)| format!("ADD COLUMN {} {kind}", identifier(name)))
        .collect();
    let is_complete = additions.is_empty() || table.is_view();
    (!is_complete).then(|| {
        format!(
            "ALTER TABLE {} {};",
            table.qualified(),
            additions.join(", ")
        )
    })
}

/// Name and type, with the default, of each column of the jobs table in the script that the daemon reads or writes.
fn script_columns() -> impl Iterator<Item = (&'static str, &'static str)> {
    let (_, table) = SCRIPT.split_once("EXISTS jobs (\n").unwrap_or_default();
    let (columns, _) = table.split_once("\n);").unwrap_or_default();
    let columns = columns.lines().filter_map(|line| {
        let definition = line.split("--").next()?.trim().trim_end_matches(',');
        let (name, kind) = definition.split_once(' ')?;
        Some((name.trim_matches('"'), kind))
    });
    // The daemon does not know it.
    columns.filter(|(name, _)| *name != "created_at")
}

/// Which of the two tables is there, also in a schema that the role may not use.
async fn existing(
    session: &Session,
    schema: &str,
    name: &str,
) -> Result<(bool, bool), DatabaseError> {
    session
        .query_one(
            "SELECT COALESCE(bool_or(c.relname = $2), false), COALESCE(bool_or(c.relname = $3), false) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1",
            &[&schema, &name, &failures_part(name)],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("looking for the jobs table"))
}

/// The script for tables of these names, quoted. Sent as one message, it is one transaction.
fn script(jobs: &str, failures: &str) -> String {
    let named = |name: &str| format!("CREATE TABLE IF NOT EXISTS {name} (");
    SCRIPT
        .replace(&named("jobs_failures"), &named(failures))
        .replace(&named("jobs"), &named(jobs))
}

async fn remedy(
    session: &Session,
    error: &tokio_postgres::Error,
    schema: &str,
) -> Result<Option<String>, DatabaseError> {
    let schema = identifier(schema);
    Ok(match error.code() {
        Some(&SqlState::INVALID_SCHEMA_NAME) => Some(format!("run: CREATE SCHEMA {schema};")),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let role = identifier(&session.role().await?);
            Some(format!(
                "run as the owner of the schema: GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};"
            ))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::definition::OPTIONS;

    #[test]
    fn the_script_has_all_columns_with_their_types() {
        let columns: Vec<(&str, &str)> = script_columns().collect();
        for (option, _) in OPTIONS {
            assert!(columns.iter().any(|(name, _)| name == option), "{option}");
        }
        for column in [
            ("table", "TEXT"),
            ("runtime", "TEXT DEFAULT 'ort'"),
            ("stats", "JSONB"),
            ("updated_at", "TIMESTAMP"),
        ] {
            assert!(columns.contains(&column), "{column:?}: {columns:?}");
        }
    }

    #[test]
    fn both_tables_get_the_names_that_are_asked_for() {
        let script = script("\"s\".\"t\"", "\"s\".\"t_failures\"");
        assert!(
            script.contains("CREATE TABLE IF NOT EXISTS \"s\".\"t\" (\n"),
            "{script}"
        );
        assert!(script.contains("CREATE TABLE IF NOT EXISTS \"s\".\"t_failures\" (\n"));
        assert!(!script.contains("EXISTS jobs"), "{script}");
    }
}
