//! Creating a slot, and telling the operator what it waits for.
//!
//! ```text
//! create ┬─ pg_create_logical_replication_slot ── waits for every open transaction ──▶ the slot
//!        └─ every 5 s: log and `waits_for` name those transactions; past the retention limit, drop the slot ──▶ error
//! ```

use std::time::Duration;

use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::catalog::create_logical_slot;
use crate::pipeline::slot::drop::drop_slot;
use crate::pipeline::slot::retention::{self, WatchedSlot};
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// How long a slot may take before the wait is reported, and how often the report is repeated.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A slot to create.
#[derive(Clone, Copy)]
pub struct NewSlot<'a> {
    /// Its name, its database and the limit that already holds while the slot is created.
    pub watched: &'a WatchedSlot,
    /// Where to report what the slot waits for.
    pub reporter: &'a Reporter,
}

/// Creates the slot. While that takes, the log and the job's row name the transactions that it waits for.
///
/// # Errors
/// The server's, and a transient one if the slot retains more WAL than its limit before it is ready.
///
/// Cancellation: as [`create_logical_slot`].
pub async fn create_slot(session: &Session, slot: &NewSlot<'_>) -> Result<(), JobError> {
    let creator = backend_pid(session).await?;
    let _clear = ClearReport(slot.reporter);
    tokio::select! {
        biased;
        created = create_logical_slot(session, &slot.watched.slot) => Ok(created?),
        error = report_wait(slot, creator) => Err(error),
    }
}

async fn backend_pid(session: &Session) -> Result<i32, DatabaseError> {
    let row = session
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .map_err(DatabaseError::during(
            "reading the process id of the session",
        ))?;
    Ok(row.get(0))
}

/// Clears `waits_for` in the job's row when the wait is over, also when the job is canceled during it.
struct ClearReport<'a>(&'a Reporter);

impl Drop for ClearReport<'_> {
    fn drop(&mut self) {
        self.0.waits_for(None);
    }
}

/// Reports the wait of the process `creator` until the slot may wait no longer; returns why.
async fn report_wait(slot: &NewSlot<'_>, creator: i32) -> JobError {
    let name = &slot.watched.slot;
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        let blockers = match blockers(&slot.watched.database, creator).await {
            Ok(blockers) => blockers,
            Err(error) => format!("unknown, because {error}"),
        };
        tracing::warn!(
            "the replication slot {name} waits for open transactions to end: {blockers}"
        );
        slot.reporter.waits_for(Some(blockers));
        if let Err(error) = enforce_limit(slot.watched).await {
            return error;
        }
    }
}

/// Drops the unfinished slot if it retains more WAL than its limit, and returns that as an error.
async fn enforce_limit(watched: &WatchedSlot) -> Result<(), JobError> {
    let Some(reason) = retention::unfinished_over_limit(watched).await? else {
        return Ok(());
    };
    // The session that creates the slot is busy with that. Dropping its future alone would leave the server waiting,
    // and the WAL retained.
    let other = Session::open(&watched.database).await?;
    drop_slot(&other, &watched.slot).await?;
    Err(JobError::Transient(reason))
}

/// The transactions that the process `creator` waits for, as a person can find them again.
///
/// The server waits for one transaction after the other (`SnapBuildWaitSnapshot` in `snapbuild.c`), so
/// `pg_blocking_pids` shows only the next one. Every open transaction with an id is in the list. Statements are not:
/// they may hold other people's data. The message says where a person with the rights can read them.
async fn blockers(database: &ConnectionString, creator: i32) -> Result<String, DatabaseError> {
    let session = Session::open(database).await?;
    let rows = session
        .query(
            "SELECT format('process %s of %s%s, %s, open for %s s%s', a.pid, COALESCE(a.usename, '?'), \
                      CASE WHEN a.application_name <> '' THEN ' (' || left(a.application_name, 60) || ')' ELSE '' END, \
                      COALESCE(a.state, 'in a state that this role may not see'), \
                      COALESCE(floor(EXTRACT(EPOCH FROM clock_timestamp() - a.xact_start))::text, '?'), \
                      ', last statement started ' || floor(EXTRACT(EPOCH FROM clock_timestamp() - a.query_start)) || ' s ago') \
             FROM pg_stat_activity a \
             WHERE a.pid <> $1 AND (a.pid = ANY(pg_blocking_pids($1)) OR a.backend_xid IS NOT NULL) \
             ORDER BY a.xact_start LIMIT 5",
            &[&creator],
        )
        .await
        .map_err(DatabaseError::during("looking for open transactions"))?;
    let blockers: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if blockers.is_empty() {
        return Ok("none that this role can see; check pg_prepared_xacts too".into());
    }
    Ok(format!(
        "{} (for their statements: SELECT pid, query FROM pg_stat_activity)",
        blockers.join("; ")
    ))
}
