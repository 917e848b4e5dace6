//! The few statements that change somebody's schema, each under a short `lock_timeout`: while a statement waits for a
//! lock, everybody who comes later waits behind it, so we give up quickly and try again.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::postgres::{DatabaseError, Session};

/// The longest that anybody can wait behind a statement of ours.
const LOCK_TIMEOUT_MS: u32 = 300;
/// Attempts before the job reports who is in the way and starts over later.
const ATTEMPTS: u32 = 20;

/// Runs one DDL statement, again with growing pauses while its lock is not to be had.
///
/// # Errors
/// The server's, or [`JobError::Transient`] when the lock stayed out of reach.
///
/// Cancellation safe: the statement is a transaction of its own.
pub async fn run(session: &Session, statement: &str) -> Result<(), JobError> {
    run_for(session, statement, statement).await
}

/// As [`run`]; errors say what was being done instead of the statement.
pub async fn run_for(session: &Session, statement: &str, doing: &str) -> Result<(), JobError> {
    let script = format!("BEGIN; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; {statement}; COMMIT");
    let mut pause = Duration::from_millis(50);
    for _ in 0..ATTEMPTS {
        let Err(error) = session.batch_execute(&script).await else {
            return Ok(());
        };
        session
            .batch_execute("ROLLBACK")
            .await
            .map_err(DatabaseError::during("rolling back"))?;
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(DatabaseError::during(doing)(error).into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    Err(JobError::Transient(format!(
        "{doing} did not get its lock within {LOCK_TIMEOUT_MS} ms, {ATTEMPTS} times; a long transaction holds the table"
    )))
}
