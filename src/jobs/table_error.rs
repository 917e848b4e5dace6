//! Why a table cannot be used as the jobs table.

use crate::postgres::DatabaseError;

/// Why a table cannot be used as the jobs table. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum JobsTableError {
    /// There is no such table.
    #[error(
        "there is no table {table} in the jobs database; {} it with lantern-cli create-table, or \
         with sql/jobs.sql (lantern-cli sql jobs | psql), or name another one with --table and --schema",
        .similar.as_ref().map_or_else(
            || "create".to_owned(),
            |similar| format!("did you mean {similar}? Otherwise create")
        )
    )]
    Missing {
        /// Schema and name, quoted.
        table: String,
        /// The options that name a jobs table which the user may have meant.
        similar: Option<String>,
    },
    /// The table lacks most of the columns: it is a table of something else.
    #[error(
        "{table} is no jobs table: it lacks the columns {columns}; name the jobs table with --table and --schema{}",
        .similar.as_ref().map_or_else(
            || ", or create one of another name: lantern-cli create-table --table NAME".to_owned(),
            |similar| format!("; did you mean {similar}?")
        )
    )]
    NoJobsTable {
        /// Schema and name, quoted.
        table: String,
        /// The missing columns, separated by commas.
        columns: String,
        /// The options that name a jobs table which the user may have meant.
        similar: Option<String>,
    },
    /// The table lacks columns that the daemon needs.
    #[error(
        "the jobs table {table} lacks the column{plural} {columns}; see \"Jobs table\" in the README, {remedy}"
    )]
    MissingColumns {
        /// Schema and name, quoted.
        table: String,
        /// The missing columns, separated by commas.
        columns: String,
        /// The plural ending, if several columns are missing.
        plural: &'static str,
        /// How the columns are added.
        remedy: String,
    },
    /// `--label` needs a column of that name.
    #[error(
        "--label was given, but the jobs table {table} has no column \"label\"; add it: \
         ALTER TABLE {table} ADD COLUMN label TEXT;"
    )]
    NoLabelColumn {
        /// Schema and name, quoted.
        table: String,
    },
    /// `canceled_at` has a type that the daemon cannot read.
    #[error(
        "the column canceled_at of {table} has the type {found}; it must be BOOL, TIMESTAMP or TIMESTAMPTZ"
    )]
    CanceledType {
        /// Schema and name, quoted.
        table: String,
        /// The type that the column has.
        found: String,
    },
    /// The role lacks a privilege on the table.
    #[error(
        "the role {role} may not {privilege} {table}; run as its owner: \
         GRANT {grant} ON {table} TO {role_quoted};"
    )]
    Privilege {
        /// The daemon's role.
        role: String,
        /// The role's name for SQL.
        role_quoted: String,
        /// What the role may not do, as a verb.
        privilege: &'static str,
        /// The privileges that the role needs.
        grant: String,
        /// Schema and name, quoted.
        table: String,
    },
    /// Code of a third party would run with the rights of the daemon's role.
    #[error(
        "{table} cannot be used: {what} belongs to the role {owner}, and would run as the role {role}. Only code of the \
         owner of {table}, of {role} and of superusers may; run: {remedy}"
    )]
    OthersCode {
        /// Schema and name, quoted.
        table: String,
        /// The object, with where it is used.
        what: String,
        /// The owner of the object.
        owner: String,
        /// The daemon's role.
        role: String,
        /// What to do.
        remedy: String,
    },
    /// Others could gain rights of the daemon's role by the jobs table, which is to be refused: who, and what to do.
    #[error("{0}")]
    Exposed(String),
    /// The jobs database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}
