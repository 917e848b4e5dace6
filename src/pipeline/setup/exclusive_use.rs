//! Whether another session needs the target database for itself: then the daemon leaves.
//!
//! `ALTER DATABASE … RENAME` and `SET TABLESPACE`, and `CREATE DATABASE … TEMPLATE`, lock the database, wait 5 s for the
//! sessions of others to end, and fail (`CountOtherDBBackends` in `procarray.c`). A session that comes later waits for
//! that lock before it counts as one, so it is harmless to come back at once. `DROP DATABASE` fails without waiting where
//! a logical slot is active; so who is about to drop a database closes it first (`ALLOW_CONNECTIONS false`).
//!
//! The question is asked each second, so it brings what else every job of the server wants to know.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// Less than the 5 s, and not often: the list of locks is not free.
const INTERVAL: Duration = Duration::from_millis(1500);

/// Always one row. `datallowconn` and the locks are those of the session's database.
const QUESTION: &str = "SELECT COALESCE(d.datallowconn, true), EXISTS ( \
       SELECT FROM pg_catalog.pg_locks l \
       WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass AND l.objid = d.oid \
         AND l.granted AND l.mode IN ('ShareLock', 'AccessExclusiveLock')), pg_current_snapshot()::text, \
       current_setting('synchronous_standby_names') \
     FROM (VALUES (current_database())) AS c (name) LEFT JOIN pg_catalog.pg_database d ON d.datname = c.name";

/// A database, and its server, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseState {
    /// Why the daemon has to leave it, if it has to.
    pub leave: Option<Leave>,
    /// Which transactions of the server had ended.
    pub snapshot: String,
    /// The server's `synchronous_standby_names`.
    pub standbys: String,
}

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

/// The state of the session's database.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn read(session: &Session) -> Result<DatabaseState, DatabaseError> {
    let failed = || DatabaseError::during("asking who needs the database");
    let question = session.repeated(QUESTION).await.map_err(failed())?;
    let (is_open, is_wanted, snapshot, standbys) = session
        .query_one(&question, &[])
        .await
        .and_then(|row| columns(&row))
        .map_err(failed())?;
    let leave = match (is_open, is_wanted) {
        (_, true) => Some(Leave::Wanted),
        (false, false) => Some(Leave::Closed),
        (true, false) => None,
    };
    Ok(DatabaseState {
        leave,
        snapshot,
        standbys,
    })
}

/// Why the daemon has to leave the database of this session; `None` where it may stay.
///
/// # Errors
/// As [`read`].
///
/// Cancellation safe: it only reads.
pub async fn find(session: &Session) -> Result<Option<Leave>, DatabaseError> {
    Ok(read(session).await?.leave)
}

/// The name of the session's database now.
///
/// # Errors
/// The server's.
pub async fn database_name(session: &Session) -> Result<String, DatabaseError> {
    session
        .query_one("SELECT current_database()::text", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("asking for the name of the database"))
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
