//! One job writes a column.
//!
//! Two jobs with one destination, or one fingerprint column, would replace each other's values without a word. Within a
//! jobs table the rows tell (`Watcher::earlier_writer`). Jobs of another jobs table, and jobs whose connection strings
//! name one database in two ways, meet at an advisory lock for each column, which the session that writes holds; and
//! where a job of a copied jobs table comes first to look, at the slot of the same definition that is being read.

use std::time::Duration;

use tokio::time::Instant;

use crate::jobs::{Definition, JobId};
use crate::pipeline::error::JobError;
use crate::pipeline::slot::names;
use crate::pipeline::slot::names::JobNames;
use crate::pipeline::slot::session_locks;
use crate::pipeline::slot::session_locks::{Holder, Identity, try_lock};
use crate::pipeline::table::passages::SEQ;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::answer::all;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// How long an earlier session that was told to end may take.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a lock is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A job that asks for the columns that it writes.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// Which job it is.
    pub identity: Identity,
    /// What its slots are called.
    pub names: &'a JobNames,
    /// The job has not run yet, or must embed every row anyhow. Where two claim a column, such a job fails. One that
    /// continues waits instead.
    pub is_newcomer: bool,
}

impl Claim<'_> {
    /// Fails where another job writes a column of this one.
    ///
    /// # Errors
    /// Permanent for a newcomer, otherwise [`JobError::StandsBack`]; and the server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn check(&self, session: &Session, target: &TargetTable) -> Result<(), JobError> {
        for (column, key) in written(session, target).await? {
            self.check_column(session, target, &column, key).await?;
        }
        match self.same_job_elsewhere(session).await? {
            Some(slot) => {
                let column = &target.destination.name;
                let other = format!("the job of another jobs table whose slot is {slot}");
                Err(self.refusal(target, column, &other))
            }
            None => Ok(()),
        }
    }

    /// Makes `session` the only one that writes the columns, for as long as it lives. The session holds the job's
    /// fence, so no earlier session of the job is left.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// Cancellation: the session may or may not hold the locks, so drop it as well.
    pub async fn acquire(&self, session: &Session, target: &TargetTable) -> Result<(), JobError> {
        let deadline = Instant::now() + END_TIMEOUT;
        for (column, key) in written(session, target).await? {
            while !try_lock(session, key).await? {
                self.check_column(session, target, &column, key).await?;
                if self
                    .is_held_by_stranger(session, target, &column, key)
                    .await?
                {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(JobError::Transient(format!(
                        "an earlier session of the job that writes {} does not end",
                        identifier(&column)
                    )));
                }
                self.end_earlier_sessions(session, key).await?;
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Ends sessions of the same job under an earlier definition, which has another fence.
    async fn end_earlier_sessions(&self, session: &Session, key: i64) -> Result<(), DatabaseError> {
        for holder in session_locks::holders(session, &[key]).await? {
            if self.is_own(&holder) {
                session
                    .execute("SELECT pg_terminate_backend($1)", &[&holder.pid])
                    .await
                    .map_err(DatabaseError::during(
                        "ending an earlier session that writes for this job",
                    ))?;
            }
        }
        Ok(())
    }

    /// Fails where the session of another job, or of a command, holds the lock of a column.
    async fn check_column(
        &self,
        session: &Session,
        target: &TargetTable,
        column: &str,
        key: i64,
    ) -> Result<(), JobError> {
        for holder in session_locks::holders(session, &[key]).await? {
            if self.is_own(&holder) || !may_write(session, &holder, target, column).await? {
                continue;
            }
            if is_command(&holder) {
                return Err(JobError::StandsBack(format!(
                    "{} is written by lantern-cli {EMBED_TABLE} (process {} of the server); the job starts when that has ended",
                    shown_column(target, column),
                    holder.pid
                )));
            }
            return Err(self.refusal(target, column, &self.describe(&holder)));
        }
        Ok(())
    }

    /// Whether a session holds the lock of a column whose role may not write that column. Any role that may connect can
    /// take the lock. It can be no other job, so the job goes on without the lock.
    async fn is_held_by_stranger(
        &self,
        session: &Session,
        target: &TargetTable,
        column: &str,
        key: i64,
    ) -> Result<bool, DatabaseError> {
        for holder in session_locks::holders(session, &[key]).await? {
            if !self.is_own(&holder) && !may_write(session, &holder, target, column).await? {
                tracing::warn!(
                    "a session of the role {} (process {} of the target server) holds the advisory lock of the column \
                     {}.{}, and is ignored, since the role may not write it",
                    holder.role.as_deref().unwrap_or("?"),
                    holder.pid,
                    target.written().qualified(),
                    identifier(column)
                );
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the session is an earlier one of this job.
    fn is_own(&self, holder: &Holder) -> bool {
        let other = holder.identity;
        other.is_some_and(|other| other.is_same_job(self.identity))
    }

    fn describe(&self, holder: &Holder) -> String {
        let name = holder.application.strip_prefix("lantern-cli: job ");
        let id = name.and_then(|name| name.strip_suffix(" write-back"));
        let job = match id {
            Some(id) => format!("job {id}"),
            None => format!("a job (process {} of the server)", holder.pid),
        };
        match holder.identity.map(|identity| identity.jobs_table) {
            Some(table) if table == self.identity.jobs_table => format!("{job} of this jobs table"),
            Some(table) => format!(
                "{job} of another jobs table (its slots are called {}…)",
                names::name_prefix(table)
            ),
            None => job,
        }
    }

    fn refusal(&self, target: &TargetTable, column: &str, other: &str) -> JobError {
        let column = shown_column(target, column);
        let remedy = match target.passages {
            Some(_) => REMEDY_OF_PASSAGES,
            None => REMEDY,
        };
        let message = format!("{column} is written by {other} already; {remedy}");
        match self.is_newcomer {
            true => JobError::Permanent(message),
            false => JobError::StandsBack(message),
        }
    }

    /// The slot of another jobs table for the same definition, if a daemon reads it: that of a copied jobs table, or of
    /// the original. Its daemon may be of a version that holds no locks, or be about to take them.
    async fn same_job_elsewhere(&self, session: &Session) -> Result<Option<String>, DatabaseError> {
        let own = self.names.own.as_str();
        let prefix = names::name_prefix(self.identity.jobs_table);
        let definition = own.rsplit('_').next().unwrap_or_default();
        session
            .query_opt(
                "SELECT s.slot_name::text FROM pg_replication_slots s \
                 WHERE s.database = current_database() AND s.active_pid IS NOT NULL \
                   AND s.slot_name ~ '^lantern_[0-9a-f]{8}_' AND NOT starts_with(s.slot_name::text, $1) \
                   AND (right(s.slot_name::text, 9) = '_' || $2 \
                     OR EXISTS (SELECT FROM pg_publication p WHERE p.pubname = s.slot_name \
                                AND strpos(obj_description(p.oid, 'pg_publication'), '_' || $2 || '@') > 0)) \
                 LIMIT 1",
                &[&prefix, &definition],
            )
            .await
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(DatabaseError::during(
                "looking for the same job of another jobs table",
            ))
    }
}

/// What the sessions of the command that embeds a table without a job are for.
pub const EMBED_TABLE: &str = "embed-table";

/// Whether it is a session of that command, which ends by itself.
pub fn is_command(holder: &Holder) -> bool {
    holder.identity.is_none() && holder.application == format!("lantern-cli: {EMBED_TABLE}")
}

fn shown_column(target: &TargetTable, column: &str) -> String {
    format!("{}.{}", target.written().qualified(), identifier(column))
}

/// Whether the role of the session may update the column. True where the session has just ended.
///
/// # Errors
/// The server's.
pub async fn may_write(
    session: &Session,
    holder: &Holder,
    target: &TargetTable,
    column: &str,
) -> Result<bool, DatabaseError> {
    let Some(role) = &holder.role else {
        return Ok(true);
    };
    session
        .query_opt(
            "SELECT has_column_privilege(r.oid, a.attrelid, a.attnum, 'UPDATE') FROM pg_roles r, pg_attribute a \
             WHERE r.rolname = $1 AND a.attrelid = $2 AND a.attname = $3 AND NOT a.attisdropped",
            &[role, &target.written().oid, &column],
        )
        .await
        .and_then(|row| row.map_or(Ok(true), |row| row.try_get(0)))
        .map_err(DatabaseError::during("looking for other writers of a column"))
}

const REMEDY: &str = "two jobs would replace each other's values: cancel one of them, or give it columns of its own \
                      (dst_column, fingerprint_column). If this jobs table is a copy, let db_connection name the \
                      copy's own database";

/// The same of a table for passages.
const REMEDY_OF_PASSAGES: &str = "two jobs would replace each other's passages: cancel one of them, or name another \
                                  chunk_table. If this jobs table is a copy, let db_connection name the copy's own \
                                  database";

/// Why a job is refused that would write a column of `first`, a job of the same jobs table.
pub fn refusal(definition: &Definition, first: &JobId) -> String {
    if definition.chunk_table.is_some()
        && let Some(table) = definition.written_table()
    {
        return format!(
            "job {first} writes {} (or its column for vectors) already; {REMEDY_OF_PASSAGES}",
            table.qualified()
        );
    }
    let name = |name: &Option<String>| identifier(name.as_deref().unwrap_or_default());
    format!(
        "job {first} writes {}.{}.{} (or its fingerprint column) already; {REMEDY}",
        identifier(&definition.schema),
        name(&definition.table),
        name(&definition.dst_column),
    )
}

/// The columns that a job writes, with the keys of their locks. A column that was dropped meanwhile is left out.
///
/// # Errors
/// The server's.
pub async fn written(
    session: &Session,
    target: &TargetTable,
) -> Result<Vec<(String, i64)>, DatabaseError> {
    let written = target.written();
    let fingerprint = target.fingerprint.as_ref();
    let mut names = vec![target.destination.name.clone()];
    names.extend(fingerprint.map(|fingerprint| fingerprint.name.clone()));
    // A job writes whole rows of its table for passages, so two of one table meet at this column.
    names.extend(target.passages.as_ref().map(|_| SEQ.to_owned()));
    let columns: Vec<(String, i16)> = session
        .query(
            "SELECT attname::text, attnum FROM pg_attribute \
             WHERE attrelid = $1 AND attname = ANY ($2::text[]) AND NOT attisdropped ORDER BY attnum",
            &[&written.oid, &names],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during("looking for the columns of a job"))?;
    let key = |number| session_locks::column(written.oid, number);
    let columns = columns
        .into_iter()
        .map(|(name, number)| (name, key(number)));
    Ok(columns.collect())
}
