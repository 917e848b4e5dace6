//! Ends the session that writes the old column, and keeps others out, until the transaction of the swap ends.
//!
//! A write-back names its column. One that waits for the lock of the table while the columns are renamed would be planned
//! again afterwards, and write the vector of the old model into the new column. So in the transaction that holds the lock,
//! the session of the predecessor is ended, and its fence and the locks of its columns are taken. It comes back, gets them
//! after the commit, and then sees the new catalog.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::session_locks;
use crate::pipeline::slot::session_locks::Identity;
use crate::postgres::answer::all;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// How long a session that was told to end may take, while users wait for the table.
const END_TIMEOUT: Duration = Duration::from_millis(200);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Whose sessions are ended.
pub struct Writers<'a> {
    /// The table.
    pub table: u32,
    /// The columns.
    pub columns: &'a ColumnNames,
    /// The slot of the predecessor, after which its fence is named.
    pub fence: Option<SlotName>,
    /// The predecessor.
    pub predecessor: Identity,
    /// Sessions of the other roles of the job, of which one may be that of the session to end.
    pub others: &'a [Session],
}

impl Writers<'_> {
    /// Takes the locks for the rest of the transaction.
    ///
    /// # Errors
    /// [`JobError::Transient`] while a command or another job writes the columns, or the session does not end;
    /// [`JobError::StandsBack`] where the role may not end it; and the server's.
    pub async fn exclude(&self, session: &Session) -> Result<(), JobError> {
        let old = self.columns.names();
        let staging = self.columns.all().map(|column| column.staging.as_str());
        let both: Vec<&str> = staging.chain(old.iter().copied()).collect();
        // A command goes by the names as they were at its start.
        let of_commands = self.keys(session, &both, session_locks::column_of_command);
        if !try_locks(session, &of_commands.await?).await? {
            return Err(JobError::Transient(
                "the end of a command, such as lantern-cli resync, that writes one of the columns"
                    .into(),
            ));
        }
        let mut keys = self.keys(session, &old, session_locks::column).await?;
        keys.extend(self.fence.as_ref().map(session_locks::fence));
        let deadline = Instant::now() + END_TIMEOUT;
        while !try_locks(session, &keys).await? {
            if Instant::now() > deadline {
                return Err(JobError::Transient(
                    "the end of the session that writes the old column".into(),
                ));
            }
            self.end_holders(session, &keys).await?;
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        Ok(())
    }

    async fn keys(
        &self,
        session: &Session,
        columns: &[&str],
        key: fn(u32, i16) -> i64,
    ) -> Result<Vec<i64>, DatabaseError> {
        let numbers: Vec<i16> = session
            .query(
                "SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = ANY ($2::text[]) AND NOT attisdropped",
                &[&self.table, &columns],
            )
            .await
            .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            .map_err(DatabaseError::during("looking for the columns of a job"))?;
        let numbers = numbers.into_iter();
        Ok(numbers.map(|number| key(self.table, number)).collect())
    }

    async fn end_holders(&self, session: &Session, keys: &[i64]) -> Result<(), JobError> {
        for holder in session_locks::holders(session, keys).await? {
            let other = holder.identity;
            if other.is_some_and(|other| !other.is_same_job(self.predecessor)) {
                return Err(JobError::Transient(format!(
                    "another job than the one to be replaced to leave the column (process {} of the server)",
                    holder.pid
                )));
            }
            let Err(error) = self.end(session, holder.pid).await else {
                continue;
            };
            if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                return Err(JobError::StandsBack(format!(
                    "a right: this role may not end the session that writes the old column (process {}, role {}); let \
                     both jobs log in as one role, or grant this one pg_signal_backend",
                    holder.pid,
                    holder.role.as_deref().unwrap_or("?")
                )));
            }
            let doing = "ending the session that writes the old column";
            return Err(DatabaseError::during(doing)(error).into());
        }
        Ok(())
    }

    /// The session of the transaction comes last: an error ends that.
    async fn end(&self, session: &Session, pid: i32) -> Result<(), tokio_postgres::Error> {
        let end = "SELECT pg_terminate_backend($1)";
        for other in self.others {
            if other.execute(end, &[&pid]).await.is_ok() {
                return Ok(());
            }
        }
        session.execute(end, &[&pid]).await.map(|_| ())
    }
}

/// Takes locks of 64 bits for the transaction. Those that are taken stay so if others are not.
async fn try_locks(session: &Session, keys: &[i64]) -> Result<bool, DatabaseError> {
    let taken: Vec<(i64, bool)> = session
        .query(
            "SELECT key, pg_try_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS keys (key)",
            &[&keys],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during("claiming the columns of a job"))?;
    Ok(taken.iter().all(|(_, taken)| *taken))
}
