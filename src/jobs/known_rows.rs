//! The rows of the jobs table as last read. They are read again only where any transaction has ended on the server since: a
//! daemon looks at them several times a second, and an idle one sees the same each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::definition::JobRow;
use super::store::{JobRows, JobStore};
use crate::postgres::DatabaseError;

/// They are read at least this often. A policy of row level security may go by the clock.
const MAX_AGE: Duration = Duration::from_secs(2);

/// Which transactions of the server had ended (PostgreSQL manual, "Transaction ID and Snapshot Information Functions").
const SNAPSHOT: &str = "SELECT pg_current_snapshot()::text";

/// The rows of the jobs table.
#[derive(Default)]
pub struct KnownRows {
    /// In the order of their ids. If the table has no key, several may have one id.
    pub rows: Arc<[JobRow]>,
    /// The number of further rows, which have no id, or one that is too long.
    pub nameless: usize,
    /// The snapshot before they were read, and when that was; `None` if they have to be read in any case.
    seen: Option<(String, Instant)>,
}

impl KnownRows {
    /// Has them read again: the session is another one.
    pub fn outdate(&mut self) {
        self.seen = None;
    }
}

impl JobStore {
    /// Brings the rows up to date: those of this daemon, as [`rows`](Self::rows) reads them. Returns whether they were read.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub async fn refresh(&self, known: &mut KnownRows) -> Result<bool, DatabaseError> {
        let now = Instant::now();
        let snapshot = match self.table().has_own_rows() {
            true => Some(self.snapshot().await?),
            false => None,
        };
        let is_current = |(seen, at): &(String, Instant)| {
            snapshot.as_ref() == Some(seen) && now.duration_since(*at) < MAX_AGE
        };
        if known.seen.as_ref().is_some_and(is_current) {
            return Ok(false);
        }
        let JobRows { rows, nameless } = self.rows().await?;
        *known = KnownRows {
            rows: rows.into(),
            nameless,
            seen: snapshot.map(|snapshot| (snapshot, now)),
        };
        Ok(true)
    }

    async fn snapshot(&self) -> Result<String, DatabaseError> {
        let failed = || DatabaseError::during("asking whether the jobs table may have changed");
        let question = self.session().repeated(SNAPSHOT).await.map_err(failed())?;
        let row = self.session().query_one(&question, &[]).await;
        row.and_then(|row| row.try_get(0)).map_err(failed())
    }
}
