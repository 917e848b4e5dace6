//! The index that a job asks for: checked when the job starts, built once every row has its vector.

use std::pin::Pin;
use std::sync::Arc;

use super::state::Job;
use crate::jobs::InitProgress;
use crate::pipeline::error::JobError;
use crate::pipeline::index::upkeep::Upkeep;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::index::{leftover, look};
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, Session};

/// What there is to do about the index of a job.
pub(super) enum IndexTask {
    /// The job asks for this one.
    Keep(WantedIndex),
    /// The job asked for one until its build was interrupted.
    Clear,
}

/// The work on the index, which ends when there is none left. It reports its errors itself.
pub(super) type IndexWork = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Job {
    /// What there is to do about the index. Nothing where the job asks for none, or for one that cannot be.
    ///
    /// # Errors
    /// Permanent for a job that has never run, where its vectors cannot be indexed: now is the time to change the
    /// column. A job that has run goes on without the index, because its vectors are what counts. And the server's.
    pub(super) async fn index_task(
        &self,
        sessions: Sessions<'_>,
        names: &TargetNames,
        target: &TargetTable,
        dimensions: usize,
    ) -> Result<Option<IndexTask>, JobError> {
        let column = &target.destination.name;
        let Some(options) = &names.index else {
            self.reporter.index_state(None);
            let has_some = target.destination.vector_schema.is_some()
                && leftover::exists(sessions.stream, target.written().oid, column).await?;
            return Ok(has_some.then_some(IndexTask::Clear));
        };
        match WantedIndex::new(target, dimensions, options) {
            Ok(wanted) => {
                self.tell_of_owner(sessions, target, &wanted).await?;
                Ok(Some(IndexTask::Keep(wanted)))
            }
            Err(reason) if self.row.progress == InitProgress::New => {
                Err(JobError::permanent(reason))
            }
            Err(reason) => {
                tracing::warn!("the job runs without an index: {reason}");
                self.say(&reason);
                Ok(None)
            }
        }
    }

    /// Fails before anything is created, where the job has never run and the column that it would create cannot be
    /// indexed.
    ///
    /// # Errors
    /// Permanent, with the remedy.
    pub(super) fn check_index(
        &self,
        names: &TargetNames,
        planned: Option<&TargetTable>,
        dimensions: usize,
    ) -> Result<(), JobError> {
        let (Some(options), Some(planned)) = (&names.index, planned) else {
            return Ok(());
        };
        match WantedIndex::new(planned, dimensions, options) {
            Err(reason) if self.row.progress == InitProgress::New => {
                Err(JobError::permanent(reason))
            }
            _ => Ok(()),
        }
    }

    /// Says at the start of the job, and not after hours of backfill, that no role of the job can create the index.
    async fn tell_of_owner(
        &self,
        sessions: Sessions<'_>,
        target: &TargetTable,
        wanted: &WantedIndex,
    ) -> Result<(), JobError> {
        for session in [sessions.stream, sessions.rows] {
            if look::is_owner(session, target.written().oid).await? {
                return Ok(());
            }
        }
        if look::find(sessions.stream, target, wanted).await?.is_none() {
            let reason = look::for_the_owner(target, wanted);
            tracing::warn!("create_index: {reason}");
            self.say(&reason);
        }
        Ok(())
    }

    fn say(&self, reason: &str) {
        self.reporter
            .index_state(Some(format!("not built: {reason}")));
    }

    /// The work, over connections of its own. `stream` and `rows` are the servers that the attempt has reached.
    pub(super) fn index_work(
        &self,
        task: IndexTask,
        target: Arc<TargetTable>,
        stream: &ConnectionString,
        rows: &ConnectionString,
    ) -> IndexWork {
        let stream = self.named(stream, "index");
        let wanted = match task {
            IndexTask::Keep(wanted) => wanted,
            IndexTask::Clear => return Box::pin(clear(stream, target)),
        };
        let mut roles = vec![stream];
        if self.row.definition.write_connection.is_some() {
            roles.push(self.named(rows, "index"));
        }
        let upkeep = Upkeep {
            roles,
            target,
            wanted,
            reporter: self.reporter.clone(),
        };
        Box::pin(upkeep.run())
    }
}

async fn clear(database: ConnectionString, target: Arc<TargetTable>) {
    let cleared = async {
        let session = Session::open(&database).await?;
        let column = &target.destination.name;
        let table = target.written();
        leftover::drop_unfinished(&session, table.schema, table.name, column).await
    };
    if let Err(error) = cleared.await {
        tracing::warn!("an unfinished index is left: {error}");
    }
}
