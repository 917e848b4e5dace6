//! Discovery of the jobs table: which of the columns it has decides what is read and written.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Columns that the documented table has; without any of these the daemon does not start.
const REQUIRED: &[&str] = &[
    "id",
    "db_connection",
    "init_started_at",
    "init_failed_at",
    "init_finished_at",
    "init_failure_reason",
    "canceled_at",
    "schema",
    "table",
    "src_column",
    "dst_column",
    "embedding_model",
];

#[derive(Debug, thiserror::Error)]
pub enum JobsTableError {
    #[error(
        "there is no table {table} in the jobs database; create it with sql/jobs.sql (psql -f sql/jobs.sql) or name \
         another one with --table and --schema"
    )]
    Missing { table: String },
    #[error(
        "the jobs table {table} lacks the column{plural} {columns}; see \"The jobs table\" in the README, for example: ALTER TABLE {table} {remedy};"
    )]
    MissingColumns {
        table: String,
        columns: String,
        plural: &'static str,
        remedy: String,
    },
    #[error(
        "--label was given, but the jobs table {table} has no column \"label\"; add it: ALTER TABLE {table} ADD COLUMN label TEXT;"
    )]
    NoLabelColumn { table: String },
    #[error(
        "the column canceled_at of {table} has the type {found}; it must be BOOL, TIMESTAMP or TIMESTAMPTZ"
    )]
    CanceledType { table: String, found: String },
    #[error(
        "the role {role} may not {privilege} {table}; run as its owner: GRANT SELECT, UPDATE ON {table} TO {role_quoted};"
    )]
    Privilege {
        role: String,
        role_quoted: String,
        privilege: &'static str,
        table: String,
    },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The jobs table as it is in the database.
#[derive(Debug, Clone)]
pub struct JobsTable {
    qualified: String,
    failures: String,
    oid: u32,
    columns: BTreeSet<String>,
    canceled_is_boolean: bool,
    identity: u32,
}

impl JobsTable {
    /// Looks the table up and checks that it is usable.
    ///
    /// # Errors
    /// [`JobsTableError`] says what is missing and the statement that adds it.
    pub async fn discover(
        session: &Session,
        schema: &str,
        name: &str,
        label: Option<&str>,
    ) -> Result<JobsTable, JobsTableError> {
        let qualified = format!("{}.{}", identifier(schema), identifier(name));
        let found = session
            .query_opt(
                "SELECT c.oid, has_table_privilege(c.oid, 'SELECT'), \
                        has_table_privilege(c.oid, 'UPDATE') OR has_any_column_privilege(c.oid, 'UPDATE'), current_user::text \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f')",
                &[&schema, &name],
            )
            .await
            .map_err(DatabaseError::during("looking for the jobs table"))?;
        let Some(found) = found else {
            return Err(JobsTableError::Missing { table: qualified });
        };
        let (oid, may_read, may_write, role): (u32, bool, bool, String) =
            (found.get(0), found.get(1), found.get(2), found.get(3));
        for (allowed, privilege) in [(may_read, "read"), (may_write, "update")] {
            if !allowed {
                let role_quoted = identifier(&role);
                return Err(JobsTableError::Privilege {
                    role,
                    role_quoted,
                    privilege,
                    table: qualified,
                });
            }
        }
        let columns: Vec<(String, String)> = session
            .query(
                "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
                 WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
                &[&oid],
            )
            .await
            .map_err(DatabaseError::during(
                "reading the columns of the jobs table",
            ))?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let names: BTreeSet<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        check_required(&qualified, &names)?;
        if label.is_some() && !names.contains("label") {
            return Err(JobsTableError::NoLabelColumn { table: qualified });
        }
        let canceled_type = columns
            .into_iter()
            .find(|(name, _)| name == "canceled_at")
            .map(|(_, kind)| kind);
        let canceled_is_boolean = match canceled_type.as_deref() {
            Some("boolean") => true,
            Some(kind) if kind.starts_with("timestamp") || kind == "date" => false,
            other => {
                let found = other.unwrap_or("?").to_string();
                return Err(JobsTableError::CanceledType {
                    table: qualified,
                    found,
                });
            }
        };
        let identity = identity(session, schema, name).await?;
        Ok(JobsTable {
            failures: failures_name(schema, name),
            qualified,
            oid,
            columns: names,
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

    /// A number that differs between jobs tables, also of different servers: two daemons with different jobs tables may
    /// work on the same target database, and their slots must not share a name.
    pub fn identity(&self) -> u32 {
        self.identity
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.contains(column)
    }

    pub(super) fn oid(&self) -> u32 {
        self.oid
    }

    /// SQL that is true for a cancelled job.
    pub(super) fn canceled_expression(&self) -> &'static str {
        if self.canceled_is_boolean {
            "COALESCE(canceled_at, false)"
        } else {
            "canceled_at IS NOT NULL"
        }
    }
}

/// `<jobs table>_failures`, with a long name cut short as the server would cut it, but at its own end.
fn failures_name(schema: &str, name: &str) -> String {
    const SUFFIX: &str = "_failures";
    let mut end = name.len().min(63 - SUFFIX.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}{SUFFIX}", &name[..end]);
    format!("{}.{}", identifier(schema), identifier(&name))
}

fn check_required(table: &str, present: &BTreeSet<String>) -> Result<(), JobsTableError> {
    let missing: Vec<&str> = REQUIRED
        .iter()
        .copied()
        .filter(|column| !present.contains(*column))
        .collect();
    if missing.is_empty() {
        return Ok(());
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
    Err(JobsTableError::MissingColumns {
        table: table.to_string(),
        columns: missing.join(", "),
        plural: if missing.len() == 1 { "" } else { "s" },
        remedy: additions.join(", "),
    })
}

/// The server's system identifier, the database and the table's name, hashed. Some managed services keep the system
/// identifier to themselves; there the rest has to do.
async fn identity(session: &Session, schema: &str, name: &str) -> Result<u32, JobsTableError> {
    let system: i64 = match session
        .query_one("SELECT system_identifier FROM pg_control_system()", &[])
        .await
    {
        Ok(row) => row.get(0),
        Err(error) if error.code().is_some() => 0,
        Err(error) => {
            return Err(DatabaseError::during("reading the system identifier")(error).into());
        }
    };
    let database: u32 = session
        .query_one(
            "SELECT oid FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await
        .map_err(DatabaseError::during(
            "reading the identity of the jobs database",
        ))?
        .get(0);
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
    fn a_missing_column_is_named_with_its_remedy() {
        let present = REQUIRED
            .iter()
            .map(|name| name.to_string())
            .filter(|name| name != "table")
            .collect();
        let error = check_required("public.jobs", &present)
            .unwrap_err()
            .to_string();
        assert!(error.contains("lacks the column table;"), "{error}");
        assert!(error.contains("ADD COLUMN \"table\" TEXT"), "{error}");
    }
}
