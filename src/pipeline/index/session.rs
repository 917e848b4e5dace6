//! The session that builds and drops indexes: one statement at a time, watched by a second session.
//!
//! ```text
//! users' INSERT, UPDATE, DELETE   ROW EXCLUSIVE            go on beside
//! our CREATE INDEX CONCURRENTLY   SHARE UPDATE EXCLUSIVE   on the table, for as long as the build takes
//! users' ALTER TABLE, VACUUM      wait for us, and all that comes later waits behind an ALTER TABLE  ◀─ so we end
//! ```
//!
//! The statement itself may wait as long as it likes: its lock conflicts with no statement on rows, so none of those
//! queues up behind it (PostgreSQL manual, "Explicit Locking"). What must not wait are users who need a stronger lock.
//!
//! When the daemon is killed the server notices within [`CHECK_INTERVAL_MS`] that the client is gone, and ends the
//! statement. What it leaves is an invalid index, which the next one replaces.

use std::time::Duration;

use tokio::time::sleep;

use crate::pipeline::error::JobError;
use crate::pipeline::index::progress::{self, Progress};
use crate::pipeline::slot::blockers::backend_pid;
use crate::pipeline::slot::session_locks;
use crate::postgres::quote::literal;
use crate::postgres::user_settings::set_defaults;
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// How often the server looks whether its client is still there (`client_connection_check_interval`).
const CHECK_INTERVAL_MS: u32 = 2000;
/// How often the progress is asked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A session for building and dropping indexes.
pub struct IndexSession {
    session: Session,
    /// Its server process.
    pid: i32,
    database: ConnectionString,
}

impl IndexSession {
    /// Opens it. Its role must own the tables.
    ///
    /// # Errors
    /// The server's.
    pub async fn open(
        database: &ConnectionString,
        maintenance_work_mem: Option<&str>,
    ) -> Result<IndexSession, JobError> {
        let session = Session::open(database).await?;
        let failed = || DatabaseError::during("preparing the session that builds an index");
        // Event triggers are the users' code.
        let mut settings = set_defaults();
        if let Some(memory) = maintenance_work_mem {
            settings.push_str(&format!("SET maintenance_work_mem = {};", literal(memory)));
        }
        session.batch_execute(&settings).await.map_err(failed())?;
        // Systems other than Linux, macOS and illumos have no way to find out, and refuse the setting.
        let interval = format!("SET client_connection_check_interval = {CHECK_INTERVAL_MS}");
        let _ = session.batch_execute(&interval).await;
        Ok(IndexSession {
            pid: backend_pid(&session).await?,
            session,
            database: database.clone(),
        })
    }

    /// For the catalog.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Keeps all other builders of this table away, until the session ends.
    ///
    /// # Errors
    /// [`JobError::Transient`] while there is another one, and the server's.
    pub async fn claim(&self, table: u32, name: &str) -> Result<(), JobError> {
        for key in [
            session_locks::index_build(table),
            session_locks::index(table, name),
        ] {
            if !session_locks::try_lock(&self.session, key).await? {
                return Err(JobError::Transient(
                    "another session of a daemon builds an index of the table".into(),
                ));
            }
        }
        Ok(())
    }

    /// Runs a statement that may take long, and reports how far it is.
    ///
    /// # Errors
    /// The server's, and [`JobError::Transient`] where the statement was ended because others waited for the table.
    ///
    /// Cancellation: the server ends the statement soon after the session is dropped.
    pub async fn run(
        &self,
        statement: &str,
        table: u32,
        mut report: impl FnMut(&Progress),
    ) -> Result<(), JobError> {
        let watching = Session::open(&self.database).await?;
        let executed = self.session.batch_execute(statement);
        tokio::pin!(executed);
        let mut gives_way = None;
        loop {
            tokio::select! {
                biased;
                done = &mut executed => return match (done, gives_way) {
                    (Ok(()), _) => Ok(()),
                    (Err(_), Some(why)) => Err(JobError::Transient(why)),
                    (Err(error), None) => Err(DatabaseError::during(statement)(error).into()),
                },
                () = sleep(LOOK_INTERVAL) => {}
            }
            let progress = progress::look(&watching, self.pid, table).await?;
            report(&progress);
            if !progress.waiting.is_empty() && gives_way.is_none() {
                cancel(&watching, self.pid).await?;
                gives_way = Some(why(&progress.waiting));
            }
        }
    }
}

fn why(waiting: &[i32]) -> String {
    let pids: Vec<String> = waiting.iter().map(i32::to_string).collect();
    format!(
        "the build of the index gave way, because others wait for a lock of the table (process {}); it is tried again later",
        pids.join(", ")
    )
}

/// Ends the statement that a process of the same role runs.
pub(super) async fn cancel(session: &Session, pid: i32) -> Result<(), DatabaseError> {
    session
        .execute("SELECT pg_cancel_backend($1)", &[&pid])
        .await
        .map_err(DatabaseError::during("ending the build of an index"))?;
    Ok(())
}
