//! The end of everything that is committed, as a position for which the slot of a job is waited for.
//!
//! `pg_current_wal_insert_lsn()` may be ahead of that, and stay so while nothing is committed: by the changes of a
//! transaction that is still open, which need not be flushed, and only what is flushed is sent; or, where the last record
//! ends with its page, by the header of the next page (`XLogBytePosToRecPtr` in `xlog.c`).
//!
//! `sql/wait_for_embeddings.sql` does the same in SQL.

use std::time::Duration;

use tokio::time::Instant;

use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};
use crate::replication::Lsn;

/// With `synchronous_commit = off` a commit is flushed within three times `wal_writer_delay` (PostgreSQL manual,
/// "Asynchronous Commit").
const DELAYS_UNTIL_FLUSHED: u32 = 5;

/// The end of what was committed when it was read.
#[derive(Debug, Clone, Copy)]
pub struct CommittedEnd {
    position: Lsn,
    /// When the server has flushed all commits up to here; `None` once that is taken into account.
    flushed_at: Option<Instant>,
}

impl CommittedEnd {
    /// Everything that is committed now.
    ///
    /// # Errors
    /// The server's, such as that it is a standby.
    pub async fn read(session: &Session) -> Result<Self, DatabaseError> {
        let (position, writer_delay): (String, f64) = session
            .query_one(
                "SELECT pg_current_wal_insert_lsn()::text, \
                        extract(epoch FROM current_setting('wal_writer_delay')::interval)::float8",
                &[],
            )
            .await
            .and_then(|row| columns(&row))
            .map_err(failed())?;
        let delay = Duration::try_from_secs_f64(writer_delay).unwrap_or_default();
        Ok(CommittedEnd {
            position: lsn(&position),
            flushed_at: Some(Instant::now() + DELAYS_UNTIL_FLUSHED * delay),
        })
    }

    /// The position.
    pub fn position(self) -> Lsn {
        self.position
    }

    /// Leaves out what is of no commit, once the server has flushed all commits. To be called while the position is waited
    /// for.
    ///
    /// # Errors
    /// The server's.
    pub async fn leave_out_unflushed(&mut self, session: &Session) -> Result<(), DatabaseError> {
        if self.flushed_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        let flushed: String = session
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed())?;
        self.position = self.position.min(lsn(&flushed));
        self.flushed_at = None;
        Ok(())
    }
}

fn failed() -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
    DatabaseError::during("reading the end of the WAL")
}

/// What is no position is never reached.
fn lsn(text: &str) -> Lsn {
    text.parse().unwrap_or(Lsn(u64::MAX))
}
