//! The statements that change a user's schema, each under a short `lock_timeout`.
//!
//! ```text
//!   a long SELECT            holds ACCESS SHARE
//!   └─ our ALTER TABLE       waits for ACCESS EXCLUSIVE       ◀─ ended after 300 ms
//!      └─ each later SELECT waits behind us                      and tried again later
//! ```
//!
//! Lock requests on a table queue up. A request that conflicts with one that waits, waits too, although it would not
//! conflict with the locks that are held (PostgreSQL manual, "Explicit Locking"; `LockAcquireExtended` in `lock.c`). So
//! a statement of ours that waits for a long transaction would stop all use of the table. It gives up quickly, leaves
//! the queue and tries again.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::backoff::Backoff;
use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::blockers;
use crate::pipeline::slot::blockers::{Waiting, backend_pid};
use crate::postgres::user_settings::set_local_defaults;
use crate::postgres::{DatabaseError, Session};

/// The longest that a user can wait behind a statement of ours.
const LOCK_TIMEOUT_MS: u32 = 300;
/// How long a lock may take before the wait is reported, and how often the report is repeated.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// When a statement that waits for its lock is asked for whom: late in the wait, and before its end.
const LOOK_AFTER: Duration = Duration::from_millis(150);
/// Attempts before the error is reported. The job retries later.
const MAX_ATTEMPTS: u32 = 20;
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Runs one DDL statement, and retries it while its lock is not available.
///
/// # Errors
/// The server's, and [`JobError::Transient`] if the lock stays unavailable.
///
/// Cancellation safe: the statement is a transaction of its own.
pub async fn run(session: &Session, statement: &str) -> Result<(), JobError> {
    run_described(session, statement, statement).await
}

tokio::task_local! {
    /// The row of the job for which the task runs statements.
    static WAITS: Reporter;
}

/// Runs `work`, for whose statements the row of a job shows what they wait for.
///
/// Statements are run in many places, most of which know no job. So whom to tell belongs to the task, as the span of
/// its messages in the log does.
pub async fn telling<T>(reporter: Reporter, work: impl Future<Output = T>) -> T {
    WAITS.scope(reporter, work).await
}

fn tell(waits_for: Option<String>) {
    // Without a job, as in a teardown, the log has to do.
    let _ = WAITS.try_with(|reporter| reporter.waits_for(waits_for));
}

/// As [`run`]; errors say `doing` instead of the statement.
///
/// # Errors
/// As [`run`].
///
/// Cancellation safe, as [`run`].
pub async fn run_described(
    session: &Session,
    statement: &str,
    doing: &str,
) -> Result<(), JobError> {
    // Event triggers are the users' code. So names in our statements must be complete.
    let users = set_local_defaults();
    let script =
        format!("BEGIN; {users}SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; {statement}; COMMIT");
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    let mut wait = LockWait::new(doing);
    for _ in 0..MAX_ATTEMPTS {
        wait.prepare(session).await;
        let executed = session.batch_execute(&script);
        tokio::pin!(executed);
        let executed = tokio::select! {
            biased;
            executed = &mut executed => executed,
            () = wait.look() => executed.await,
        };
        let Err(error) = executed else {
            return Ok(());
        };
        // An error ends the script in a failed transaction.
        session
            .batch_execute("ROLLBACK")
            .await
            .map_err(DatabaseError::during("rolling back"))?;
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(DatabaseError::during(doing)(error).into());
        }
        backoff.wait().await;
    }
    let blockers = wait.blockers.take();
    Err(JobError::Transient(format!(
        "{doing} did not get its lock in {MAX_ATTEMPTS} attempts of {LOCK_TIMEOUT_MS} ms: {}",
        blockers.unwrap_or_else(|| "a long transaction holds the table (see pg_locks)".into())
    )))
}

/// A statement that waits for its lock, attempt after attempt.
struct LockWait<'a> {
    doing: &'a str,
    since: Instant,
    reported: Option<Instant>,
    /// The session that asks, and the process that waits.
    watching: Option<(Session, i32)>,
    /// The last answer.
    blockers: Option<String>,
}

impl<'a> LockWait<'a> {
    fn new(doing: &'a str) -> Self {
        LockWait {
            doing,
            since: Instant::now(),
            reported: None,
            watching: None,
            blockers: None,
        }
    }

    /// Before an attempt, once the wait is long enough to be reported: opens the session that asks.
    async fn prepare(&mut self, session: &Session) {
        if self.watching.is_some() || self.since.elapsed() < REPORT_INTERVAL {
            return;
        }
        let Ok(waiter) = backend_pid(session).await else {
            return;
        };
        if let Ok(other) = Session::open(&session.server().named("lock waits")).await {
            self.watching = Some((other, waiter));
        }
    }

    /// While an attempt waits: asks for whom, and reports it from time to time. Pends where the wait is not long enough
    /// yet.
    ///
    /// Cancellation safe.
    async fn look(&mut self) {
        let Some((session, waiter)) = &self.watching else {
            return std::future::pending().await;
        };
        tokio::time::sleep(LOOK_AFTER).await;
        let Ok(found) = blockers::describe(session, *waiter, Waiting::ForLock).await else {
            return;
        };
        let found = format!("it waits for a lock that is held by {found}");
        let is_due = |reported: Instant| reported.elapsed() >= REPORT_INTERVAL;
        if self.reported.is_none_or(is_due) {
            tracing::warn!("{}: {found}", self.doing);
            tell(Some(found.clone()));
            self.reported = Some(Instant::now());
        }
        self.blockers = Some(found);
    }
}

impl Drop for LockWait<'_> {
    /// The wait is over, also where the job was canceled during it.
    fn drop(&mut self) {
        if self.reported.is_some() {
            tell(None);
        }
    }
}
