//! Whom a statement of ours waits for, as a person can find them again.
//!
//! Their statements are not in the description: it is written into the log and the jobs table, and they may hold other
//! people's data. It says where a person with the rights can read them.

use crate::postgres::{DatabaseError, Session};

/// What keeps a statement waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The creation of a slot waits for every transaction that is open and writes. The server waits for one after the
    /// other (`SnapBuildWaitSnapshot` in `snapbuild.c`), so `pg_blocking_pids` shows only the next one.
    ForTransactions,
    /// A statement waits for a lock.
    ForLock,
}

/// The server process of a session.
///
/// # Errors
/// The server's.
pub async fn backend_pid(session: &Session) -> Result<i32, DatabaseError> {
    session
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during(
            "reading the process id of the session",
        ))
}

/// Describes the sessions that the process `waiter` waits for. Asks over `session`, which is not the one that waits.
///
/// # Errors
/// The server's.
pub async fn describe(
    session: &Session,
    waiter: i32,
    waiting: Waiting,
) -> Result<String, DatabaseError> {
    let transactions = waiting == Waiting::ForTransactions;
    let blockers: Vec<String> = session
        .query(
            "SELECT format('process %s of %s%s, %s, open for %s s%s', a.pid, COALESCE(a.usename, '?'), \
                      CASE WHEN a.application_name <> '' THEN ' (' || left(a.application_name, 60) || ')' ELSE '' END, \
                      COALESCE(a.state, 'in a state that this role may not see'), \
                      COALESCE(floor(EXTRACT(EPOCH FROM clock_timestamp() - a.xact_start))::text, '?'), \
                      ', last statement started ' || floor(EXTRACT(EPOCH FROM clock_timestamp() - a.query_start)) || \
             ' s ago') FROM pg_stat_activity a \
             WHERE a.pid <> $1 AND (a.pid = ANY(pg_blocking_pids($1)) OR $2 AND a.backend_xid IS NOT NULL) \
             ORDER BY a.xact_start LIMIT 5",
            &[&waiter, &transactions],
        )
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during("looking for open transactions"))?;
    if blockers.is_empty() {
        return Ok("none that this role can see; check pg_prepared_xacts too".into());
    }
    Ok(format!(
        "{} (for their statements: SELECT pid, query FROM pg_stat_activity)",
        blockers.join("; ")
    ))
}
