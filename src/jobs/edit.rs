//! What a person writes into the jobs table: a row, a cancellation, another try. The commands `jobs …` do so with the
//! statements that the README documents.

use tokio_postgres::error::SqlState;

use super::definition::{JobId, OPTIONS};
use super::store::JobStore;
use crate::postgres::answer::columns;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};
use crate::shown::shown;

/// Why a row cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// An option needs a column that the table does not have.
    #[error(
        "the jobs table {table} has no column {column}; add it: ALTER TABLE {table} ADD COLUMN {column} {kind};"
    )]
    NoColumn {
        /// Schema and name, quoted.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        kind: &'static str,
    },
    /// The role lacks a privilege.
    #[error("the role {role} may not {what} {table}; run as its owner: {remedy}")]
    Privilege {
        /// The role.
        role: String,
        /// What it may not do, as a verb.
        what: &'static str,
        /// Schema and name, quoted.
        table: String,
        /// The statements.
        remedy: String,
    },
    /// A constraint of the table refuses the row. The server's detail would show the whole row, with its passwords.
    #[error("the jobs table {table} refuses the row: {reason}")]
    Refused {
        /// Schema and name, quoted.
        table: String,
        /// The server's message.
        reason: String,
    },
    /// The jobs database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The columns of a new row with their values, as text. The server converts them to the types of the columns.
pub type NewValues = Vec<(&'static str, String)>;

impl JobStore {
    /// The statement that adds a job. With a password in `values` it is not for people.
    pub fn insert_statement(&self, values: &NewValues) -> String {
        let list = |part: fn(&(&'static str, String)) -> String| {
            let parts: Vec<String> = values.iter().map(part).collect();
            parts.join(", ")
        };
        format!(
            "INSERT INTO {} ({}) VALUES ({})",
            self.table().qualified(),
            list(|(column, _)| column_name(column)),
            list(|(_, value)| literal(value))
        )
    }

    /// Checks that the table has these columns.
    ///
    /// # Errors
    /// [`EditError::NoColumn`] names the first that it has not.
    pub fn check_columns(&self, values: &NewValues) -> Result<(), EditError> {
        let missing = values.iter().find(|(column, _)| !self.table().has(column));
        match missing {
            None => Ok(()),
            Some((column, _)) => Err(EditError::NoColumn {
                table: self.table().qualified().to_owned(),
                column: column_name(column),
                kind: kind(column),
            }),
        }
    }

    /// Adds a job; returns its id.
    ///
    /// # Errors
    /// The role may not; and the server's.
    pub async fn add(&self, values: &NewValues) -> Result<JobId, EditError> {
        self.check_columns(values)?;
        let statement = format!("{} RETURNING id::text", self.insert_statement(values));
        let added = self.session().query_one(&statement, &[]).await;
        match added.and_then(|row| row.try_get::<_, Option<String>>(0)) {
            Ok(id) => Ok(JobId::new(id.unwrap_or_default())),
            Err(error) => Err(self.not_added(values, error).await?),
        }
    }

    /// Cancels a job. Returns whether it was not canceled yet.
    ///
    /// # Errors
    /// The role may not; and the server's.
    pub async fn cancel(&self, id: &JobId) -> Result<bool, EditError> {
        let value = self.table().canceled_value();
        let canceled = self.table().canceled_expression();
        let statement = format!(
            "UPDATE {} SET canceled_at = {value} WHERE id::text = $1 AND NOT ({canceled})",
            self.table().qualified()
        );
        self.change(&statement, id, "canceled_at").await
    }

    /// Has a failed job tried again. Returns whether it had failed.
    ///
    /// # Errors
    /// The role may not; and the server's.
    pub async fn retry(&self, id: &JobId) -> Result<bool, EditError> {
        let statement = format!(
            "UPDATE {} SET init_failed_at = NULL WHERE id::text = $1 AND init_failed_at IS NOT NULL",
            self.table().qualified()
        );
        self.change(&statement, id, "init_failed_at").await
    }

    pub(super) async fn change(
        &self,
        statement: &str,
        id: &JobId,
        column: &str,
    ) -> Result<bool, EditError> {
        match self.session().execute(statement, &[&id.as_str()]).await {
            Ok(rows) => Ok(rows > 0),
            Err(error) if is_denied(&error) => {
                let role = self.session().role().await?;
                let table = self.table().qualified();
                Err(EditError::Privilege {
                    what: "update",
                    table: table.to_owned(),
                    remedy: format!(
                        "GRANT UPDATE ({}) ON {table} TO {};",
                        identifier(column),
                        identifier(&role)
                    ),
                    role,
                })
            }
            Err(error) => Err(DatabaseError::during("changing the job")(error).into()),
        }
    }

    /// Why a row was not added.
    pub(super) async fn not_added(
        &self,
        values: &NewValues,
        error: tokio_postgres::Error,
    ) -> Result<EditError, DatabaseError> {
        if is_denied(&error) {
            return self.may_not_add(values).await;
        }
        // Class 23: integrity constraint violation.
        let refused = error.as_db_error();
        Ok(
            match refused.filter(|error| error.code().code().starts_with("23")) {
                Some(refused) => EditError::Refused {
                    table: self.table().qualified().to_owned(),
                    reason: shown(refused.message()),
                },
                None => DatabaseError::during("adding the job")(error).into(),
            },
        )
    }

    async fn may_not_add(&self, values: &NewValues) -> Result<EditError, DatabaseError> {
        let role = self.session().role().await?;
        let table = self.table().qualified();
        let quoted = identifier(&role);
        let names: Vec<String> = values
            .iter()
            .map(|(column, _)| column_name(column))
            .collect();
        let sequence = match sequence(self.session(), table).await? {
            Some(sequence) => format!(" GRANT USAGE ON SEQUENCE {sequence} TO {quoted};"),
            None => String::new(),
        };
        Ok(EditError::Privilege {
            what: "add a row to",
            table: table.to_owned(),
            remedy: format!(
                "GRANT INSERT ({}) ON {table} TO {quoted};{sequence}",
                names.join(", ")
            ),
            role,
        })
    }
}

/// The column as the documentation writes it: quoted where SQL needs that.
fn column_name(column: &str) -> String {
    match column {
        "table" => identifier(column),
        plain => plain.to_owned(),
    }
}

/// The type of an optional column.
fn kind(column: &str) -> &'static str {
    let option = OPTIONS.iter().find(|(name, _)| *name == column);
    match option {
        Some((_, kind)) => kind,
        None => "text",
    }
}

pub(super) fn is_denied(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// The sequence of a serial id, if the role may not use it. `table` is quoted.
async fn sequence(session: &Session, table: &str) -> Result<Option<String>, DatabaseError> {
    let found: (Option<String>, Option<bool>) = session
        .query_one(
            "SELECT s, NOT has_sequence_privilege(s, 'USAGE') FROM pg_get_serial_sequence($1, 'id') AS s",
            &[&table],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("looking for the sequence of the ids"))?;
    Ok(found.0.filter(|_| found.1 == Some(true)))
}
