//! The swap: one short transaction in which the new column takes the name of the old one.
//!
//! ```text
//! LOCK TABLE                      at most 300 ms, then it gives up and is tried again
//! end the predecessor's session   and take its locks
//! RENAME the old column, then the new one; privileges, comment, names of indexes
//! COMMIT                          readers see the other column from here on
//! ```
//!
//! An error at any point leaves everything as it was: the predecessor connects again and goes on.

use tokio_postgres::error::SqlState;

use crate::failpoint;
use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::changeover::stage::{Columns, Stage};
use crate::pipeline::changeover::writers::Writers;
use crate::pipeline::changeover::{obstacle, stage, statements};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::slot::session_locks;
use crate::pipeline::slot::session_locks::Identity;
use crate::postgres::user_settings::set_local_defaults;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// The longest that a user can wait behind the swap while it waits itself.
const LOCK_TIMEOUT_MS: u32 = 300;

/// What is swapped.
pub struct Swap<'a> {
    /// The names of the table.
    pub names: &'a TargetNames,
    /// Its OID.
    pub table: u32,
    /// The columns.
    pub columns: &'a ColumnNames,
    /// The number of the new column when it was found to be complete.
    pub number: Option<i16>,
    /// The job whose columns they were.
    pub predecessor: Identity,
    /// Its slot, if its row is there.
    pub fence: Option<SlotName>,
    /// Sessions of the other roles of the job.
    pub others: &'a [Session],
}

impl Swap<'_> {
    /// Swaps. `session` is one of the owner of the table, for this alone.
    ///
    /// # Errors
    /// [`JobError::Transient`] where the lock is not available, and for other reasons to try again later;
    /// [`JobError::StandsBack`] where a person has to act; and the server's.
    ///
    /// Cancellation: the columns are swapped, or not. The catalog tells.
    pub async fn run(&self, session: &Session) -> Result<(), JobError> {
        // To the predecessor, the one that holds its locks now is a session of its own: it ends it rather than to fail.
        session_locks::introduce(session, self.predecessor).await?;
        let swapped = self.in_transaction(session).await;
        if swapped.is_err() {
            // Where the session is gone, the server does that.
            let _ = session.batch_execute("ROLLBACK").await;
        }
        swapped
    }

    async fn in_transaction(&self, session: &Session) -> Result<(), JobError> {
        self.lock(session).await?;
        self.check(session).await?;
        let (table, columns) = (self.table, self.columns);
        let statements = statements::read(session, self.names, table, columns).await?;
        let writers = Writers {
            table,
            columns,
            fence: self.fence.clone(),
            predecessor: self.predecessor,
            others: self.others,
        };
        writers.exclude(session).await?;
        // Event triggers are the users' code.
        let script = format!("{}{}", set_local_defaults(), statements.join("; "));
        let failed = || DatabaseError::during("exchanging the columns");
        session.batch_execute(&script).await.map_err(failed())?;
        failpoint::reach("changeover-before-commit");
        session.batch_execute("COMMIT").await.map_err(failed())?;
        failpoint::reach("changeover-after-commit");
        Ok(())
    }

    async fn lock(&self, session: &Session) -> Result<(), JobError> {
        let table = self.names.qualified();
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        );
        match session.batch_execute(&begin).await {
            Ok(()) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                Err(JobError::Transient(format!(
                    "a lock on {table}, which a transaction holds (see pg_locks); it is tried for {LOCK_TIMEOUT_MS} ms at a time"
                )))
            }
            Err(error) => Err(DatabaseError::during("locking the table")(error).into()),
        }
    }

    /// Under the lock, everything is looked at again.
    async fn check(&self, session: &Session) -> Result<(), JobError> {
        let TargetNames { schema, table, .. } = self.names;
        let found = Columns::read(session, schema, table, self.columns).await?;
        let is_there = |name: &String| found.has(name);
        let mut staging = self.columns.all().map(|column| &column.staging);
        let destination = &self.columns.destination;
        let number = stage::number(session, self.table, &destination.staging).await?;
        let is_swapped = found.stage(self.columns, false) == Stage::Swapped;
        if is_swapped || !staging.all(is_there) || number != self.number {
            return Err(JobError::Transient(
                "another look at the columns, which have changed meanwhile".into(),
            ));
        }
        match obstacle::find(session, self.names, self.table, self.columns).await? {
            Some(reason) => Err(obstacle::waits_for_a_person(&reason)),
            None => Ok(()),
        }
    }
}
