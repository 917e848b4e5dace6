//! One change of a shared publication: compare and change, in one statement.
//!
//! ```text
//! read the publication ─▶ decide ─▶ DO: lock, compare with what was read ─┬─ equal ──▶ change, write the comment
//!          ▲                                                              └─ changed ┐
//!          └───────────────────────────── after a pause ◀────────────────────────────┘
//! ```
//!
//! Several daemons and tasks change the same publication independently. None of them holds a lock between
//! reading and changing, so one that hangs holds up none of the others. The advisory lock lasts for one transaction
//! only: without it, two edits could both see what they had read, and the second would overwrite the comment of the
//! first.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use xxhash_rust::xxh3::xxh3_64;

use crate::backoff::Backoff;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::preflight::publishing::shared_remedy;
use crate::pipeline::setup::publication::catalog::Publication;
use crate::pipeline::setup::publication::members::MembershipRecords;
use crate::postgres::Session;
use crate::postgres::quote::literal;
use crate::replication::{Lsn, SlotName};

/// How often an edit is tried that other sessions were faster with.
const MAX_ATTEMPTS: u32 = 200;
const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);

/// Stands in a record's version for the transaction of the edit, which becomes the `xmin` of the catalog rows that it
/// writes.
pub const THIS_TRANSACTION: &str = "{xid}";
/// Stands in a record's `since` for the end of the WAL at the edit.
pub const END_OF_WAL: Lsn = Lsn(u64::MAX);

/// Makes the changes in one transaction, if the publication and the table in it are still as they were found. Returns
/// false if they are not. `changes` are statements of PL/pgSQL, each with its semicolon. They run with the search path of
/// the users, whose event triggers they may fire, so their names must be complete.
///
/// # Errors
/// The server's, and a transient one if a lock is not available.
///
/// Cancellation safe: everything happens in one transaction, or nothing.
pub async fn edit(
    session: &Session,
    name: &SlotName,
    table: u32,
    found: &Publication,
    changes: &str,
) -> Result<bool, JobError> {
    let lock = xxh3_64(format!("lantern publication {name}").as_bytes()).cast_signed();
    let seen = format!(
        "{} {}",
        found.version,
        found.comment.as_deref().unwrap_or_default()
    );
    let body = format!(
        "DECLARE users_path pg_catalog.text := pg_catalog.current_setting('search_path'); \
         BEGIN PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true); PERFORM pg_advisory_xact_lock({lock}); \
         IF (SELECT format('%s/%s %s', p.xmin, r.xmin, obj_description(p.oid, 'pg_publication')) \
             FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = {table} \
             WHERE p.pubname = {}) IS DISTINCT FROM {} THEN \
           RAISE serialization_failure USING MESSAGE = 'the publication was changed by another session'; \
         END IF; PERFORM set_config('search_path', users_path, true); {changes} END",
        literal(name.as_str()),
        literal(&seen)
    );
    match run(session, &format!("DO {}", literal(&body))).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Counts the attempts of an edit, and pauses between them.
#[derive(Debug)]
pub struct Retries {
    left: u32,
    backoff: Backoff,
}

impl Default for Retries {
    fn default() -> Self {
        Retries {
            left: MAX_ATTEMPTS,
            backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF),
        }
    }
}

impl Retries {
    /// Waits for the next attempt at the publication `name`, which another session has changed.
    ///
    /// # Errors
    /// A transient one when there were enough.
    ///
    /// Cancellation safe.
    pub async fn wait(&mut self, name: &SlotName) -> Result<(), JobError> {
        self.left -= 1;
        if self.left == 0 {
            return Err(JobError::Transient(format!(
                "the publication {name} could not be changed: other sessions changed it first, {MAX_ATTEMPTS} times"
            )));
        }
        self.backoff.wait().await;
        Ok(())
    }
}

/// The PL/pgSQL statement that writes the records into the comment, with the placeholders replaced.
pub fn comment_statement(name: &SlotName, records: &MembershipRecords) -> String {
    format!(
        "EXECUTE pg_catalog.format('COMMENT ON PUBLICATION %I IS %L', {}, \
         pg_catalog.replace(pg_catalog.replace( \
           {}, '{THIS_TRANSACTION}', pg_catalog.pg_current_xact_id()::pg_catalog.xid::pg_catalog.text), \
           '{END_OF_WAL}', pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text));",
        literal(name.as_str()),
        literal(&records.to_string())
    )
}

/// Runs a statement that changes the shared publication. Its errors say so, and what to do where the role may not run
/// it.
///
/// # Errors
/// As [`ddl::run`].
///
/// Cancellation safe, as [`ddl::run`].
pub async fn run(session: &Session, statement: &str) -> Result<(), JobError> {
    let doing = "changing the publication that all jobs of the database share";
    match ddl::run_described(session, statement, doing).await {
        Err(error) if error.is_insufficient_privilege() => {
            Err(error.with_remedy(shared_remedy(&session.role().await?)))
        }
        other => other,
    }
}
