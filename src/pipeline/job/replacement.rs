//! A table that is replaced by another of its name while an attempt looks at it, or just before.
//!
//! The definition of a table is read by several statements, and any of them may meet another table than the one before, or
//! a table that is gone. What they find together then is the definition of no table, and no reason to fail a job.

use tokio::time::Instant;

use super::state::Job;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::postgres::{DatabaseError, Session};

impl Job {
    /// Remembers it if another table has the job's name than the one that the job followed. The watchdog does not always see
    /// that first: the last attempt may have ended because the publication had lost the table, or at a write-back.
    pub(super) fn notice_replacement(&mut self, named: Option<u32>) {
        if self.history.followed.is_some() && self.history.followed != named {
            self.history.gone_at.get_or_insert_with(Instant::now);
        }
    }
}

/// The OID of the table that has the job's name; `None` if there is none.
///
/// # Errors
/// The server's.
pub(super) async fn table_named(
    session: &Session,
    names: &TargetNames,
) -> Result<Option<u32>, DatabaseError> {
    session
        .query_opt(
            "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1::text AND c.relname = $2::text",
            &[&names.schema, &names.table],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking for the table of the job"))
}

/// What an error means that came while the definition of the table `named` was read.
pub(super) async fn judge(
    error: JobError,
    session: &Session,
    names: &TargetNames,
    named: Option<u32>,
) -> JobError {
    if error.is_transient() {
        return error;
    }
    match table_named(session, names).await {
        Ok(now) if now == named || named.is_none() => error,
        Ok(_) => JobError::Transient(format!(
            "the table {} was replaced while its definition was read",
            names.qualified()
        )),
        Err(error) => error.into(),
    }
}
