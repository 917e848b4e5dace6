//! Removes what an ended job left on its target server: its slot and publication, or its part in shared ones.
//!
//! ```text
//! attempt ──▶ removed, or nothing there ──▶ done
//!    │
//!    ├─ an error ──▶ pause, next attempt, for as long as it takes, or until the supervisor recalls the teardown
//!    ├─ an error, and the job never had anything ──▶ done
//!    ├─ the database was dropped, and its slots with it ──▶ done
//!    └─ a daemon with another copy of the jobs table has them ──▶ done
//! ```
//!
//! There is no error that ends the attempts: a server that refuses the login today may accept it tomorrow, and until
//! then the slot retains WAL. The job's row may change meanwhile, to a new password or another server, so the
//! supervisor can recall a teardown while it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::jobs::InitProgress;
use crate::jobs::definition::JobRow;
use crate::jobs::reporter::Reporter;
use crate::pipeline::changeover::cleanup;
use crate::pipeline::error::JobError;
use crate::pipeline::index::leftover;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::remove_member::remove_member;
use crate::pipeline::setup::{copies, target_database};
use crate::pipeline::slot::names::{JobNames, MemberId};
use crate::postgres::{ConnectionString, DatabaseError, JobAccess, Session};
use crate::reminder::Reminder;

/// The shortest and the longest pause between attempts.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A server that accepts a session and then does not answer must not keep other teardowns waiting for their turn. An
/// attempt on a server that answers takes less: its longest part is DDL that waits for a lock, and gives up after about
/// 40 s.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);

/// `initdb` creates it for clients that need some database to connect to.
const MAINTENANCE_DATABASE: &str = "postgres";

/// How a teardown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A slot or a publication, or the job's part in shared ones, is removed.
    Removed,
    /// Nothing was there, or it is not this daemon's to remove.
    Nothing,
    /// The supervisor has recalled it.
    Recalled,
}

/// What an ended job left, and how to remove it.
pub struct Teardown {
    /// The job.
    pub row: JobRow,
    /// What it may have left.
    pub names: JobNames,
    /// The job is to run again, under another definition.
    pub is_wanted: bool,
    /// The job does not come back as it was: a column that it has filled to take over that of another job is dropped.
    pub drops_new_column: bool,
    /// Where jobs may connect.
    pub access: JobAccess,
    /// Each attempt waits for one of these.
    pub turns: Arc<Semaphore>,
    /// Asks which server has the jobs database.
    pub reporter: Reporter,
    /// Ends the teardown while it waits.
    pub recalled: CancellationToken,
    /// Set when an attempt has failed.
    pub delayed: Arc<AtomicBool>,
}

impl Teardown {
    /// Removes what the job left on its target.
    ///
    /// Cancellation safe: each step can be repeated.
    pub async fn run(&self) -> End {
        let database = match target_database::from_definition(&self.row.definition, &self.access) {
            Ok(database) => database,
            Err(error @ JobError::Access(_)) => {
                if self.row.progress != InitProgress::New {
                    tracing::warn!("not cleaned up: {error}");
                }
                return End::Nothing;
            }
            // With an invalid connection string the job has never connected, so it has left nothing.
            Err(_) => return End::Nothing,
        };
        let database = database.named(&format!("job {} ending", self.row.id));
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let mut reminder = Reminder::default();
        loop {
            let error = match self.attempt_in_turn(&database).await {
                Ok(end) => return end,
                Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
                    match self.follow(&database).await {
                        Ok(end) => return end,
                        // A database with logical slots cannot be dropped (`dropdb` in dbcommands.c), so there is
                        // nothing to remove; and without any database of the server it cannot be asked.
                        Err(unknown) if unknown.is_access_refusal() => {
                            tracing::debug!("not cleaned up: {error}; {unknown}");
                            return End::Nothing;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if self.is_final(&error) {
                return End::Nothing;
            }
            self.delayed.store(true, Ordering::Relaxed);
            let message = error.to_string();
            if reminder.is_due(&message) {
                tracing::warn!(
                    "cannot clean up yet, trying again: the slot and the publication {} may be left behind, and retain \
                     WAL: {message}",
                    self.names.own
                );
            } else {
                tracing::debug!("cannot clean up yet, trying again: {message}");
            }
            tokio::select! {
                () = self.recalled.cancelled() => return End::Recalled,
                () = backoff.wait() => {}
            }
        }
    }

    /// Whether there is nothing left to do in spite of the error. Says so in the log.
    fn is_final(&self, error: &JobError) -> bool {
        if let JobError::StandsBack(_) = error {
            tracing::warn!("not cleaned up: {error}");
            return true;
        }
        // The row says that a job has started before anything is created for it.
        if self.row.progress == InitProgress::New {
            tracing::debug!("not cleaned up, since the job has never run: {error}");
            return true;
        }
        false
    }

    async fn attempt_in_turn(&self, database: &ConnectionString) -> Result<End, JobError> {
        // Only what waits can be recalled. A statement that has been sent would go on at the server.
        let connected = async {
            let turn = self.turns.acquire().await;
            (turn, Session::open(database).await)
        };
        let (_turn, session) = tokio::select! {
            () = self.recalled.cancelled() => return Ok(End::Recalled),
            connected = connected => connected,
        };
        let session = session?;
        let removed = timeout(ATTEMPT_TIMEOUT, self.attempt(&session)).await;
        removed.unwrap_or_else(|_| {
            Err(JobError::Transient(format!(
                "{database} did not answer within {} s",
                ATTEMPT_TIMEOUT.as_secs()
            )))
        })
    }

    /// The database does not exist under its name any more. If it was renamed, its slots are still there.
    async fn follow(&self, database: &ConnectionString) -> Result<End, JobError> {
        let session = Session::open(&database.in_database(MAINTENANCE_DATABASE)).await?;
        let names = [self.names.own.as_str(), self.names.shared.as_str()];
        let renamed: Option<String> = session
            .query_opt(
                "SELECT database::text FROM pg_replication_slots WHERE slot_name = ANY ($1::text[]) LIMIT 1",
                &[&names.as_slice()],
            )
            .await
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(DatabaseError::during("looking for slots of a renamed database"))?;
        let Some(renamed) = renamed else {
            tracing::debug!("nothing to clean up: {} was dropped", database.database());
            return Ok(End::Nothing);
        };
        if self.is_wanted {
            // The job goes on with this slot, once its row names the database.
            return Ok(End::Nothing);
        }
        tracing::info!(
            "the database {} is called {renamed} now",
            database.database()
        );
        let session = Session::open(&database.in_database(&renamed)).await?;
        self.attempt(&session).await
    }

    async fn attempt(&self, session: &Session) -> Result<End, JobError> {
        let Some(jobs_server) = self.reporter.server().await else {
            return Err(JobError::Transient("the daemon is stopping".into()));
        };
        copies::stand_back(session, &self.names, jobs_server).await?;
        let own = drop_slot_and_publication(session, &self.names.own).await?;
        let member = MemberId::from_slot(&self.names.own);
        // A job that never shares a slot leaves alone one without a member: another job is about to join.
        let shared = !self.row.definition.needs_own_slot()
            && remove_member(session, &self.names.shared, &member).await?;
        if let Err(error) = self.drop_unfinished_index(session).await {
            tracing::warn!("an unfinished index of the job may be left: {error}");
        }
        if self.drops_new_column && self.row.definition.replaces.is_some() {
            self.drop_new_column(session).await?;
        }
        Ok(match own || shared {
            true => End::Removed,
            false => End::Nothing,
        })
    }

    /// Drops the column that the job was to swap in. Where none of its roles may do that, the log says so.
    async fn drop_new_column(&self, session: &Session) -> Result<(), JobError> {
        let (definition, id) = (&self.row.definition, &self.row.id);
        // The other session has the settings of its role by now.
        let session = &Session::open(session.server()).await?;
        let rows = target_database::of_rows(definition, &self.access).unwrap_or_default();
        let mut dropped = cleanup::drop_staging(session, definition, id).await;
        if let (Err(error), Some(rows)) = (&dropped, rows)
            && error.is_insufficient_privilege()
        {
            let session = Session::open(&rows).await?;
            dropped = cleanup::drop_staging(&session, definition, id).await;
        }
        match dropped {
            Ok(true) => tracing::info!("the new column, which was not swapped in, is dropped"),
            Ok(false) => {}
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!("the new column, which was not swapped in, is left: {error}");
            }
        }
        Ok(())
    }

    /// A build of the job's index may go on at the server after its session has ended.
    async fn drop_unfinished_index(&self, session: &Session) -> Result<(), JobError> {
        let definition = &self.row.definition;
        let (Some(written), Some(column)) = (definition.written_table(), &definition.dst_column)
        else {
            return Ok(());
        };
        let (schema, table) = (&written.schema, &written.table);
        if definition.create_index.is_none() {
            return Ok(());
        }
        // The role of db_connection reaches the builds of its own only.
        let rows = target_database::of_rows(definition, &self.access).unwrap_or_default();
        leftover::drop_unfinished(session, schema, table, column).await?;
        if let Some(rows) = rows {
            let session = Session::open(&rows).await?;
            leftover::drop_unfinished(&session, schema, table, column).await?;
        }
        Ok(())
    }
}
