//! Whether another session needs the target database for itself: then the daemon leaves.
//!
//! `ALTER DATABASE … RENAME` and `SET TABLESPACE`, and `CREATE DATABASE … TEMPLATE`, lock the database, wait 5 s for the
//! sessions of others to end, and fail (`CountOtherDBBackends` in `procarray.c`). A session that comes later waits for
//! that lock before it counts as one, so it is harmless to come back at once. `DROP DATABASE` fails without waiting where
//! a logical slot is active; so who is about to drop a database closes it first (`ALLOW_CONNECTIONS false`).

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// Less than the 5 s, and not often: the list of locks is not free.
const INTERVAL: Duration = Duration::from_millis(1500);

const QUESTION: &str = "SELECT d.datallowconn, EXISTS ( \
       SELECT FROM pg_catalog.pg_locks l \
       WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass AND l.objid = d.oid \
         AND l.granted AND l.mode IN ('ShareLock', 'AccessExclusiveLock')) \
     FROM pg_catalog.pg_database d WHERE d.datname = current_database()";

/// Why the daemon has to leave a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It is closed, perhaps to be dropped: an active slot would prevent that.
    Closed,
    /// Another session holds its lock and waits for all others to end.
    Wanted,
}

impl Leave {
    /// The reason in words.
    pub fn reason(self) -> &'static str {
        match self {
            Leave::Closed => "the database accepts no connections any more",
            Leave::Wanted => {
                "another session renames, moves or copies the database, and needs it for itself"
            }
        }
    }
}

/// Why the daemon has to leave the database of this session; `None` where it may stay.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn find(session: &Session) -> Result<Option<Leave>, DatabaseError> {
    let failed = || DatabaseError::during("asking who needs the database");
    let question = session.repeated(QUESTION).await.map_err(failed())?;
    let found: Option<(bool, bool)> = session
        .query_opt(&question, &[])
        .await
        .and_then(|row| row.map(|row| columns(&row)).transpose())
        .map_err(failed())?;
    Ok(match found {
        Some((_, true)) => Some(Leave::Wanted),
        Some((false, false)) => Some(Leave::Closed),
        Some((true, false)) | None => None,
    })
}

/// Returns when the daemon has to leave the database of this session, with the reason, or when it cannot be asked. Other
/// statements of the session may run in between.
///
/// Cancellation safe.
pub async fn wait_until_asked_to_leave(session: &Session) -> JobError {
    loop {
        tokio::time::sleep(INTERVAL).await;
        match find(session).await {
            Ok(None) => {}
            Ok(Some(leave)) => return JobError::Transient(leave.reason().into()),
            // The session is shared, and may be in a transaction that has failed.
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
    }
}
