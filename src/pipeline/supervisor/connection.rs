//! The session to the jobs database: opened, watched, lost and won back, and given up when the daemon stops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::jobs::lock::Lock;
use crate::jobs::reporter::Report;
use crate::jobs::table::JobsTableError;
use crate::jobs::{JobId, JobStore, JobsTable, lock, presence};
use crate::pipeline::job::state::JobEnd;
use crate::pipeline::supervisor::cleanup::{Ending, GRACE};
use crate::pipeline::supervisor::{LOOK_EVERY, Options, Slots, Supervisor, Then, fleet};
use crate::postgres::{DatabaseError, Session};

/// When nothing has come of a question for so long, another session looks after the one that asked it.
const PATIENCE: Duration = Duration::from_secs(4);

/// A session, as the server knows it. Process ids are used again; together with its beginning it is one session only.
#[derive(Debug, Clone)]
pub(super) struct SessionId {
    pub pid: presence::Pid,
    began: String,
}

/// Opens a session, checks the jobs table, and joins the daemons that work with it.
pub(super) async fn open(options: &Options) -> Result<(JobStore, SessionId), JobsTableError> {
    let session = Session::open(&options.database.named("jobs")).await?;
    let (schema, table) = (&options.schema, &options.table);
    let table = JobsTable::discover(&session, schema, table, options.label.as_deref()).await?;
    let row = session
        .query_one(
            "SELECT pid, backend_start::text FROM pg_stat_get_activity(pg_backend_pid())",
            &[],
        )
        .await
        .map_err(DatabaseError::during("asking for the session's process"))?;
    let id = SessionId {
        pid: row.get(0),
        began: row.get(1),
    };
    let store = JobStore::new(session, table, options.label.clone());
    let store = store.sharing_slots(options.slots == Slots::Database);
    presence::announce(&store).await?;
    Ok((store, id))
}

/// Returns when the session is lost though nobody has said so: the server is waiting for us while we are waiting for it, or
/// knows of no such session. A server that is busy with our question is waited for, and so is one that is out of reach.
///
/// Cancellation safe.
pub(super) async fn silence(options: Arc<Options>, session: SessionId) -> DatabaseError {
    loop {
        tokio::time::sleep(PATIENCE).await;
        match waits_for_us(&options, &session).await {
            Ok(false) => {}
            Ok(true) => {
                return DatabaseError::Silent {
                    database: options.database.to_string(),
                };
            }
            Err(error) => tracing::warn!("the jobs database does not answer: {error}"),
        }
    }
}

async fn waits_for_us(options: &Options, session: &SessionId) -> Result<bool, DatabaseError> {
    let other = Session::open(&options.database.named("looking after the jobs session")).await?;
    let busy = other
        .query_opt(
            "SELECT state = 'active' AND wait_event_type IS DISTINCT FROM 'Client' FROM pg_stat_get_activity($1) \
             WHERE backend_start = $2::text::timestamptz",
            &[&session.pid, &session.began],
        )
        .await
        .map_err(DatabaseError::during("looking after the jobs session"))?;
    Ok(!busy.is_some_and(|row| row.get::<_, Option<bool>>(0).unwrap_or(true)))
}

/// A lost session may live on in the server for as long as that does not notice, and hold our locks.
async fn end_previous(store: &JobStore, previous: &SessionId) -> Result<(), DatabaseError> {
    store
        .session()
        .execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_get_activity($1) \
             WHERE backend_start = $2::text::timestamptz",
            &[&previous.pid, &previous.began],
        )
        .await
        .map_err(DatabaseError::during("ending the lost jobs session"))?;
    Ok(())
}

impl Supervisor {
    /// The jobs database is away or refuses: says so once, and opens a new session where the old one is lost.
    ///
    /// Jobs go on meanwhile. None of them can begin anew before its row says so, and a daemon that takes one over ends the
    /// sessions with which it works.
    pub(super) async fn recover(&mut self, error: DatabaseError, said: &mut Option<String>) {
        let message = error.to_string();
        if said.as_deref() != Some(&message) {
            tracing::warn!("the jobs database does not answer, trying again: {message}");
            // A process that was stopped, or cut off, while others were there: they have taken the jobs over by now.
            let first = said.is_none();
            let overdue = first && self.last_answer.elapsed() >= fleet::SILENCE;
            if overdue && self.fleet.has_others() {
                self.let_go(self.held().into_iter().collect());
            }
            *said = Some(message);
        }
        let answered = matches!(error, DatabaseError::Query { .. });
        if answered && !self.store.session().is_closed() {
            return;
        }
        match self.come_back().await {
            Ok(()) => tracing::info!("connected to the jobs database again"),
            Err(error) => {
                tracing::debug!("no new session: {error}");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Opens a new session and takes the locks of what runs here; what others have taken meanwhile is left to them.
    async fn come_back(&mut self) -> Result<(), JobsTableError> {
        let (store, session) = open(&self.options).await?;
        end_previous(&store, &self.session).await?;
        let mut databases = BTreeSet::new();
        for slot in &self.databases {
            if lock::try_lock(&store, Lock::Shared(slot)).await? {
                databases.insert(slot.clone());
            }
        }
        let mut lost = Vec::new();
        for id in self.held() {
            let slot = self
                .running
                .get(&id)
                .map(|running| self.shared_slot(&running.row));
            let shared = slot
                .is_none_or(|slot| databases.contains(&slot) || !self.databases.contains(&slot));
            if !shared || !lock::try_lock(&store, Lock::Job(&id)).await? {
                lost.push(id);
            }
        }
        self.databases = databases;
        (self.store, self.session) = (store, session);
        self.claims.after_an_outage();
        self.let_go(lost);
        Ok(())
    }

    /// Ends jobs whose locks are not ours any more, without touching anything that their new owners need.
    fn let_go(&mut self, jobs: Vec<JobId>) {
        for id in &jobs {
            tracing::warn!(job = %id, "another daemon has taken this job over");
            let mut ended = Vec::new();
            if let Some(running) = self.running.get_mut(id) {
                if running.then == Then::TearDown {
                    ended.push(running.row.clone());
                }
                running.then = Then::Forget;
                running.cancel.cancel();
            }
            if let Some(tearing_down) = self.tearing_down.remove(id) {
                tearing_down.task.abort();
                ended.extend(tearing_down.leftovers.rows);
            }
            if !ended.is_empty() {
                let leftovers = self.leftovers.entry(id.clone()).or_default();
                leftovers.rows.extend(ended);
                leftovers.elsewhere = true;
            }
        }
        self.unwritten.retain(|(id, ..)| !jobs.contains(id));
    }

    pub(super) async fn wind_down(mut self) {
        tracing::info!(
            "stopping: finishing what is under way in {} jobs",
            self.running.len()
        );
        let finished = tokio::time::timeout(GRACE, self.let_jobs_finish()).await;
        if finished.is_err() {
            tracing::warn!(
                "{} jobs did not stop in time; they go on from their confirmed position at the next start",
                self.running.len()
            );
        }
        self.tasks.shutdown().await;
        tracing::info!("stopped");
    }

    /// Lets go of each job as it ends, so that another daemon takes it up at once. What is being torn down may take for ever
    /// and is not waited for: the next daemon sees to it.
    async fn let_jobs_finish(&mut self) {
        if let Err(error) = presence::withdraw(&self.store).await {
            tracing::debug!("{error}");
        }
        while !self.running.is_empty() {
            let written = tokio::select! {
                Some(message) = self.messages.recv() => {
                    self.hear(message);
                    self.write_reports().await
                }
                Some(ending) = self.tasks.join_next() => match ending {
                    Ok(Ending::Job(id, ended)) => self.finished(id, ended).await,
                    _ => Ok(()),
                },
            };
            if let Err(error) = written {
                tracing::warn!("not written to the jobs table: {error}");
                self.unwritten.clear();
            }
        }
    }

    async fn finished(&mut self, id: JobId, ended: JobEnd) -> Result<(), DatabaseError> {
        let forgotten = self
            .running
            .remove(&id)
            .is_none_or(|running| running.then == Then::Forget);
        if forgotten {
            return Ok(());
        }
        if let JobEnd::Failed(reason) = ended {
            tracing::error!(job = %id, "failed: {reason}");
            let report = Report::Failed(reason);
            self.unwritten.push((id, report, None));
            return self.write_reports().await;
        }
        self.write_reports().await?;
        lock::unlock(&self.store, Lock::Job(&id)).await?;
        self.release_databases().await
    }
}
