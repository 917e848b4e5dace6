//! The first half of an attempt: everything that must exist before a job can stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::state::Job;
use crate::embedding::{Model, ModelName};
use crate::jobs::InitProgress;
use crate::pipeline::backfill::partitions::Coverage;
use crate::pipeline::backfill::scope::{self, BackfillScope, Continuity};
use crate::pipeline::capture::join::SubscriberEnds;
use crate::pipeline::capture::streamable::Streamable;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::prerequisites::check_prerequisites;
use crate::pipeline::setup::preflight::server::{check_server, is_standby};
use crate::pipeline::setup::written_columns::Claim;
use crate::pipeline::setup::{copies, target_database, target_table, written_columns};
use crate::pipeline::slot::session_locks;
use crate::pipeline::slot::session_locks::Identity;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::fence;
use crate::pipeline::write::path::{WriteOptions, WritePath};
use crate::postgres::{ConnectionString, ServerInstance, Session};

/// For so long after a daemon with another copy of the jobs table was seen at work, the job is left to it.
const SEEN_RECENTLY: Duration = Duration::from_secs(60);

/// What exists once a job can stream.
pub(super) struct Prepared {
    /// The server that the set-up has reached, and no other.
    pub database: ConnectionString,
    /// For what is left to do before the scan.
    pub session: Session,
    pub target: Arc<TargetTable>,
    pub streamable: Streamable,
    pub subscriber_ends: SubscriberEnds,
    pub write_path: WritePath,
    /// `None` where no existing row has to be scanned.
    pub backfill: Option<BackfillPlan>,
}

/// Which existing rows an attempt scans.
pub(super) struct BackfillPlan {
    pub scope: BackfillScope,
    /// The job's table, or some of its partitions.
    pub tables: Vec<Arc<TargetTable>>,
}

impl Job {
    /// Looks at the target, creates what is missing, opens the write path, and subscribes.
    ///
    /// Cancellation safe: the next attempt completes or replaces what is half done.
    ///
    /// # Errors
    /// Permanent ones with a remedy where a person has to act; the server's.
    pub(super) async fn prepare(&mut self) -> Result<Prepared, JobError> {
        let names = TargetNames::from_definition(&self.row.definition)?;
        // First: a row whose host is not allowed must not make the daemon load a model.
        let database = target_database::from_definition(&self.row.definition, &self.allowed_hosts)?;
        let model = self.load_model(&names.model).await?;
        let (session, database) = self.connect(&database).await?;
        check_prerequisites(&session, &names, model.dimensions()).await?;
        check_server(&session).await?;
        let jobs_server = self.stand_back_from_copies(&session).await?;
        let target = target_table::prepare(&session, &names, &self.row.definition, &model).await?;
        let target = Arc::new(target);

        let unbroken = self.subscription.find_unbroken(&session, &target).await?;
        let continuity = Continuity::from_check(unbroken.is_some());
        let names = self.subscription.names().clone();
        let claim = Claim {
            identity: Identity::new(jobs_server, self.jobs_table, &self.row.id),
            names: &names,
            is_newcomer: self.row.progress == InitProgress::New || continuity == Continuity::Broken,
        };
        if let Some(first) = self.reporter.earlier_writer().await {
            let refusal = written_columns::refusal(&self.row.definition, &first);
            return Err(JobError::Permanent(refusal));
        }
        claim.check(&session, &target).await?;
        let backfill = self.plan_backfill(&session, &target, continuity).await?;
        let set_up = self.named(&database, "set-up");
        let streamable = self
            .subscription
            .set_up(&session, &set_up, &target, unbroken)
            .await?;
        if self.row.progress == InitProgress::New {
            self.row.progress = InitProgress::Started;
        }
        let write_path = self.open_write_path(&database, &target, &model).await?;
        self.make_exclusive(write_path.session(), &target, claim)
            .await?;
        let subscriber_ends = self
            .subscription
            .join(&session, &database, &target, &streamable, self.stop.clone())
            .await?;
        Ok(Prepared {
            database,
            session,
            target,
            streamable,
            subscriber_ends,
            write_path,
            backfill,
        })
    }

    async fn load_model(&mut self, name: &str) -> Result<Model, JobError> {
        let name: ModelName = name.parse()?;
        let model = match &self.model {
            Some(loaded) => loaded.clone(),
            None => self.engine.model(&name).await?,
        };
        self.model = Some(model.clone());
        Ok(model)
    }

    /// A session with the target, and the connection string of just the server that it has reached: every other connection
    /// of the attempt must reach the same one.
    async fn connect(
        &self,
        database: &ConnectionString,
    ) -> Result<(Session, ConnectionString), JobError> {
        let session = Session::open(&self.named(database, "set-up")).await?;
        if is_standby(&session).await? {
            return Err(on_standby(self.row.progress));
        }
        let database = session.server().clone();
        Ok((session, database))
    }

    /// Decides which existing rows have to be scanned, and writes into the jobs table what must not be forgotten: from the
    /// creation of the new slot on, a crash would make a broken stream look unbroken.
    async fn plan_backfill(
        &mut self,
        session: &Session,
        target: &Arc<TargetTable>,
        continuity: Continuity,
    ) -> Result<Option<BackfillPlan>, JobError> {
        match scope::unverified_because(&self.row, continuity, session, target).await? {
            Some(reason) => {
                let effect = scope::effect_on_unverified(&self.row.definition);
                tracing::warn!("{reason}: {effect}");
                self.start_again().await;
            }
            None => self.reporter.started().await,
        }
        let is_caught_up = continuity == Continuity::Unbroken
            && (self.row.progress == InitProgress::Finished || self.partitions.are_pending());
        let coverage = match is_caught_up {
            true => Coverage::NewPartitions,
            false => Coverage::WholeTable,
        };
        let attached = self
            .partitions
            .to_scan(session, target, self.subscription.slot(), coverage)
            .await?;
        if self.row.progress == InitProgress::Finished && !attached.is_empty() {
            // After a crash the list of partitions is lost; then every row is scanned.
            self.start_again().await;
        }
        let scope = BackfillScope::for_start(self.row.progress, continuity, &self.row.definition);
        Ok(scope.map(|scope| BackfillPlan {
            scope,
            tables: match attached.is_empty() {
                true => vec![target.clone()],
                false => attached,
            },
        }))
    }

    async fn start_again(&mut self) {
        self.reporter.started_again().await;
        self.row.progress = InitProgress::StartedAgain;
    }

    /// Fails where a daemon with another copy of the jobs database runs this job, and for a while afterwards: its
    /// attempts end and begin again as those of any job. Returns the server of the jobs database.
    async fn stand_back_from_copies(
        &mut self,
        session: &Session,
    ) -> Result<ServerInstance, JobError> {
        let Some(jobs_server) = self.reporter.server().await else {
            return Err(JobError::Transient("the daemon is stopping".into()));
        };
        let found = copies::stand_back(session, self.subscription.names(), jobs_server).await;
        if matches!(found, Err(JobError::StandsBack(_))) {
            self.seen_elsewhere = Some(Instant::now());
        }
        found?;
        let recently = |seen: Instant| seen.elapsed() < SEEN_RECENTLY;
        if self.seen_elsewhere.is_some_and(recently) {
            return Err(JobError::StandsBack(format!(
                "a daemon with another copy of this jobs table ran the job until a moment ago; this one takes it over \
                 if that has not come back within {} s",
                SEEN_RECENTLY.as_secs()
            )));
        }
        Ok(jobs_server)
    }

    /// Makes `session` the only one that writes for the job, and the job the only one that writes its columns.
    async fn make_exclusive(
        &self,
        session: &Session,
        target: &TargetTable,
        claim: Claim<'_>,
    ) -> Result<(), JobError> {
        session_locks::introduce(session, claim.identity).await?;
        fence::acquire(session, self.subscription.name()).await?;
        claim.acquire(session, target).await
    }

    /// The write path, with a session of its own.
    async fn open_write_path(
        &self,
        database: &ConnectionString,
        target: &Arc<TargetTable>,
        model: &Model,
    ) -> Result<WritePath, JobError> {
        let database = self.named(database, "write-back");
        let options = WriteOptions::from_definition(&self.row.definition);
        let reporter = self.reporter.clone();
        WritePath::open(&database, target.clone(), model, options, reporter).await
    }
}

/// A job that has run before meets a standby while its cluster fails over. One that has not was given the wrong address.
fn on_standby(progress: InitProgress) -> JobError {
    let sentence = "the target server is a standby; vectors can only be written to the primary";
    match progress {
        InitProgress::New => JobError::permanent(format!(
            "{sentence}: name it in db_connection, or all servers with target_session_attrs=read-write"
        )),
        _ => JobError::Transient(sentence.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_does_not_fail_a_job_that_has_run_before() {
        assert!(on_standby(InitProgress::Finished).is_transient());
        assert!(on_standby(InitProgress::StartedAgain).is_transient());
        assert!(!on_standby(InitProgress::New).is_transient());
    }
}
