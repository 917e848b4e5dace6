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

use tokio_postgres::error::SqlState;

use crate::backoff::Backoff;
use crate::pipeline::error::JobError;
use crate::postgres::user_settings::set_local_defaults;
use crate::postgres::{DatabaseError, Session};

/// The longest that a user can wait behind a statement of ours.
const LOCK_TIMEOUT_MS: u32 = 300;
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
    for _ in 0..MAX_ATTEMPTS {
        let Err(error) = session.batch_execute(&script).await else {
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
    Err(JobError::Transient(format!(
        "{doing} did not get its lock in {MAX_ATTEMPTS} attempts of {LOCK_TIMEOUT_MS} ms; a long transaction holds the table \
         (see pg_locks)"
    )))
}
