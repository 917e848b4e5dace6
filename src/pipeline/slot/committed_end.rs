//! The end of everything that is committed, as a position for which the slot of a job is waited for.
//!
//! `pg_current_wal_insert_lsn()` is not quite that position, for two reasons that only show while nothing else is written:
//!
//! - Where the last record ends with its page, the function's result is behind the header of the next page
//!   (`XLogBytePosToRecPtr` in `xlog.c`). A slot stays before that header until a record follows it.
//! - What belongs to no commit, such as the changes of an open transaction, may stay unflushed for as long as nothing
//!   else is committed; and only what is flushed is sent.
//!
//! `sql/wait_for_embeddings.sql` does the same in SQL.

use std::time::Duration;

use tokio::time::Instant;

use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};
use crate::replication::Lsn;

/// `SizeOfXLogShortPHD`: the header of a page.
const PAGE_HEADER: u64 = 24;
/// `SizeOfXLogLongPHD`: the header of the first page of a segment.
const SEGMENT_HEADER: u64 = 40;
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
        let (position, page, segment, writer_delay): (String, i64, i64, f64) = session
            .query_one(
                "SELECT pg_current_wal_insert_lsn()::text, current_setting('wal_block_size')::bigint, \
                        pg_size_bytes(current_setting('wal_segment_size')), \
                        extract(epoch FROM current_setting('wal_writer_delay')::interval)::float8",
                &[],
            )
            .await
            .and_then(|row| columns(&row))
            .map_err(failed())?;
        let delay = Duration::try_from_secs_f64(writer_delay).unwrap_or_default();
        Ok(CommittedEnd {
            position: end_of_record(lsn(&position), page, segment),
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

/// A position that no server sends is none that a slot stays before.
fn lsn(text: &str) -> Lsn {
    text.parse().unwrap_or(Lsn(u64::MAX))
}

/// The end of the record before this position, where only a header is in between. No record ends directly behind a header.
fn end_of_record(position: Lsn, page: i64, segment: i64) -> Lsn {
    let is_behind = |header: u64, size: i64| {
        u64::try_from(size).is_ok_and(|size| size > 0 && position.0 % size == header)
    };
    if is_behind(SEGMENT_HEADER, segment) {
        Lsn(position.0 - SEGMENT_HEADER)
    } else if is_behind(PAGE_HEADER, page) {
        Lsn(position.0 - PAGE_HEADER)
    } else {
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_behind_a_header_is_the_end_of_the_page_before() {
        let (page, segment) = (8192, 16 << 20);
        let end = |position: u64| end_of_record(Lsn(position), page, segment).0;
        assert_eq!(end(3 * 8192 + 24), 3 * 8192);
        assert_eq!(end((2 << 24) + 40), 2 << 24);
        assert_eq!(end((2 << 24) + 24), 2 << 24);
        for elsewhere in [0, 8192, 3 * 8192 + 32, 3 * 8192 + 40, u64::MAX] {
            assert_eq!(end(elsewhere), elsewhere);
        }
        assert_eq!(end_of_record(Lsn(24), 0, -1), Lsn(24));
    }
}
