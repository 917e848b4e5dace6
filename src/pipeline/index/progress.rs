//! How far a statement is that builds or drops an index, and who waits for it.

use crate::postgres::{DatabaseError, Session};

/// Heads the state of an index that is being built.
pub const BUILDING: &str = "building";
/// Heads the state of one that is being dropped, because its build was interrupted.
pub const DROPPING: &str = "dropping";

/// Whether this state of an index (`index_state`) says that work on it is under way.
pub fn is_under_way(state: &str) -> bool {
    let head = state.split(' ').next();
    head == Some(BUILDING) || head == Some(DROPPING)
}

/// What a look at the statement has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The phase in the server's words, such as `building index: loading tuples`.
    pub phase: Option<String>,
    /// Percent of the phase, where the server counts something.
    pub percent: Option<u8>,
    /// A session that the statement waits for, by its process.
    pub waits_for: Option<i32>,
    /// Sessions that wait for a lock that the statement has.
    pub waiting: Vec<i32>,
}

/// Who waits with a `lock_timeout` counts too: each of its attempts would fail for as long as the build takes. The
/// manual says what the columns of the view mean in which phase ("CREATE INDEX Progress Reporting").
const STATEMENT: &str = "SELECT p.phase, \
       CASE WHEN p.phase LIKE 'waiting %' THEN CASE WHEN p.lockers_total > 0 THEN 100 * p.lockers_done / p.lockers_total END \
            WHEN p.tuples_total > 0 THEN 100 * p.tuples_done / p.tuples_total \
            WHEN p.blocks_total > 0 THEN 100 * p.blocks_done / p.blocks_total END, \
       NULLIF(p.current_locker_pid, 0)::int, \
       ARRAY(SELECT DISTINCT l.pid FROM pg_locks l \
             WHERE l.locktype = 'relation' AND l.relation = $2::oid AND NOT l.granted \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND l.pid <> $1 AND $1 = ANY (pg_blocking_pids(l.pid))) \
     FROM (VALUES ($1::int)) AS builder (pid) LEFT JOIN pg_stat_progress_create_index p ON p.pid = builder.pid";

/// Looks at the statement that the process `builder` runs on a table. `session` is another one.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn look(session: &Session, builder: i32, table: u32) -> Result<Progress, DatabaseError> {
    let failed = || DatabaseError::during("asking for the progress of an index");
    let question = session.repeated(STATEMENT).await.map_err(failed())?;
    session
        .query_one(&question, &[&builder, &table])
        .await
        .and_then(|row| {
            let percent: Option<i64> = row.try_get(1)?;
            Ok(Progress {
                phase: row.try_get(0)?,
                percent: percent.map(|percent| percent.clamp(0, 100) as u8),
                waits_for: row.try_get(2)?,
                waiting: row.try_get(3)?,
            })
        })
        .map_err(failed())
}

impl std::fmt::Display for Progress {
    /// `building index: loading tuples, 42 %`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.phase.as_deref().unwrap_or("beginning"))?;
        if let Some(percent) = self.percent {
            write!(f, ", {percent} %")?;
        }
        if let Some(pid) = self.waits_for {
            write!(f, " (for the transaction of process {pid} to end)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_a_sentence() {
        let mut progress = Progress::default();
        assert_eq!(progress.to_string(), "beginning");
        progress.phase = Some("building index: loading tuples".into());
        progress.percent = Some(42);
        assert_eq!(progress.to_string(), "building index: loading tuples, 42 %");
        progress = Progress {
            phase: Some("waiting for writers before build".into()),
            waits_for: Some(7),
            ..Progress::default()
        };
        assert_eq!(
            progress.to_string(),
            "waiting for writers before build (for the transaction of process 7 to end)"
        );
    }
}
