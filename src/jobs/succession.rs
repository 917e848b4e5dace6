//! A job that replaces another one, as far as the jobs table tells: who replaces whom, and that it is done.

use super::definition::{JobId, JobRow};
use super::edit::{EditError, NewValues};
use super::rows::select_statement;
use super::store::JobStore;
use crate::postgres::DatabaseError;
use crate::postgres::quote::{identifier, literal};

/// What a job that replaces another one has from it: not its model, and no consent to leave rows without a vector.
const COPIED: [&str; 13] = [
    "db_connection",
    "write_connection",
    "schema",
    "table",
    "src_column",
    "dst_column",
    "fingerprint_column",
    "pk",
    "batch_size",
    "skip_triggers",
    "label",
    "create_index",
    "index_params",
];

impl JobStore {
    /// The jobs that are to replace this one, or have done so: those whose `replaces` has its id. Canceled ones too.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub async fn successors(&self, id: &JobId) -> Result<Vec<JobRow>, DatabaseError> {
        // Not `j.replaces`: a jobs table need not have the column.
        let select = select_statement(self.table(), "WHERE replaces::text = $1");
        Ok(self.read(&select, [id.as_str()]).await?.rows)
    }

    /// Records that `successor` has replaced the job `id`, which ends it.
    ///
    /// # Errors
    /// The role may not cancel jobs; and the server's.
    pub async fn note_replaced(&self, id: &JobId, successor: &JobId) -> Result<(), EditError> {
        let table = self.table();
        let mut set = format!("canceled_at = {}", table.canceled_value());
        let mut is_noted = format!("({})", table.canceled_expression());
        if table.has("replaced_by") {
            let successor = literal(successor.as_str());
            set.push_str(&format!(", replaced_by = {successor}"));
            is_noted.push_str(&format!(
                " AND replaced_by IS NOT DISTINCT FROM {successor}"
            ));
        }
        if table.has("waits_for") {
            set.push_str(", waits_for = NULL");
        }
        let statement = format!(
            "UPDATE {} SET {set} WHERE id::text = $1 AND NOT ({is_noted})",
            table.qualified()
        );
        self.change(&statement, id, "canceled_at").await?;
        Ok(())
    }

    /// Adds a job that replaces the job `id`: with its options, and with these `values` in their place.
    ///
    /// # Errors
    /// The table lacks a column, or the role may not; and the server's.
    pub async fn add_successor(&self, id: &JobId, values: &NewValues) -> Result<JobId, EditError> {
        self.check_columns(values)?;
        let given = |column: &str| values.iter().any(|(name, _)| *name == column);
        let copied = COPIED.iter().copied();
        let copied = copied.filter(|column| self.table().has(column) && !given(column));
        let mut columns: Vec<String> = copied.map(identifier).collect();
        let mut selected = columns.clone();
        for (column, value) in values {
            columns.push(identifier(column));
            selected.push(literal(value));
        }
        let table = self.table().qualified();
        let statement = format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {table} WHERE id::text = $1 RETURNING id::text",
            columns.join(", "),
            selected.join(", ")
        );
        let added = self.session().query_one(&statement, &[&id.as_str()]).await;
        match added.and_then(|row| row.try_get::<_, Option<String>>(0)) {
            Ok(id) => Ok(JobId::new(id.unwrap_or_default())),
            Err(error) => Err(self.not_added(values, error).await?),
        }
    }

    /// The statement by which a person cancels the job.
    pub fn cancel_statement(&self, id: &JobId) -> String {
        let value = self.table().canceled_value();
        let set = format!("canceled_at = {value}");
        self.table().update_statement(&set, id)
    }

    /// Lets the changeover of a job ignore rows that could not be embedded.
    ///
    /// # Errors
    /// The table lacks the column, or the role may not; and the server's.
    pub async fn accept_failures(&self, id: &JobId) -> Result<(), EditError> {
        self.check_columns(&vec![("accept_failures", "true".to_owned())])?;
        let column = identifier("accept_failures");
        let table = self.table().qualified();
        let statement = format!("UPDATE {table} SET {column} = true WHERE id::text = $1");
        self.change(&statement, id, "accept_failures").await?;
        Ok(())
    }

    /// The job replaces no other one any more: its old column is gone.
    ///
    /// # Errors
    /// The role may not; and the server's.
    pub async fn forget_replaced(&self, id: &JobId) -> Result<(), EditError> {
        let table = self.table().qualified();
        let statement = format!(
            "UPDATE {table} SET replaces = NULL WHERE id::text = $1 AND replaces IS NOT NULL"
        );
        self.change(&statement, id, "replaces").await?;
        Ok(())
    }
}
