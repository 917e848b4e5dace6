//! The first half of an attempt: everything that must exist before a job can stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::index::IndexTask;
use super::replacement;
use super::state::{Job, TableHistory};
use super::watchdog::{self, WatchedTable};
use crate::embedding::Model;
use crate::jobs::InitProgress;
use crate::pipeline::backfill::partitions::Coverage;
use crate::pipeline::backfill::scan::Part;
use crate::pipeline::backfill::scope::{self, BackfillScope, Continuity};
use crate::pipeline::capture::join::SubscriberEnds;
use crate::pipeline::capture::streamable::Streamable;
use crate::pipeline::changeover::place::Place;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::server::{is_standby, standby_refusal};
use crate::pipeline::setup::preflight::subject::Subject;
use crate::pipeline::setup::publication::check::listed_columns;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::setup::table_state::TableState;
use crate::pipeline::setup::written_columns::Claim;
use crate::pipeline::setup::{
    chunk_table, copies, exclusive_use, leaves, model, target_database, target_table,
    written_columns,
};
use crate::pipeline::slot::session_locks;
use crate::pipeline::slot::session_locks::Identity;
use crate::pipeline::table::leaf::Leaf;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::fence;
use crate::pipeline::write::path::{WriteOptions, WritePath};
use crate::postgres::{ConnectionString, DatabaseError, ServerInstance, Session};

/// For so long after a daemon with another copy of the jobs table was seen at work, the job is left to it.
const SEEN_RECENTLY: Duration = Duration::from_secs(60);
/// A set-up that takes longer than this waits for open transactions.
const SET_UP_IS_LONG: Duration = Duration::from_secs(1);

/// What exists once a job can stream.
pub(super) struct Prepared {
    /// The server that the set-up has reached, and no other.
    pub database: ConnectionString,
    /// The same server, for what reads and writes rows.
    pub rows: ConnectionString,
    /// For what is left to do before the scan.
    pub session: Arc<Session>,
    pub target: Arc<TargetTable>,
    /// The state of the table that the watchdog compares with.
    pub state: TableState,
    pub streamable: Streamable,
    pub subscriber_ends: SubscriberEnds,
    pub write_path: WritePath,
    /// `None` where no existing row has to be scanned.
    pub backfill: Option<BackfillPlan>,
    /// What there is to do about an index of the vectors after that.
    pub index: Option<IndexTask>,
    /// What the job works on now.
    pub place: Place,
    /// The server of the jobs database.
    pub jobs_server: ServerInstance,
}

/// Which existing rows an attempt scans.
pub(super) struct BackfillPlan {
    pub scope: BackfillScope,
    /// The job's table, or some of its partitions.
    pub parts: Vec<Part>,
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
        let database = target_database::from_definition(&self.row.definition, &self.access)?;
        let model = self.load_model(&names).await?;
        let (session, database) = self.connect(&database).await?;
        let session = Arc::new(session);
        let asked = session.clone();
        tokio::select! {
            biased;
            prepared = Box::pin(self.prepare_in(session, database, names, model)) => prepared,
            error = exclusive_use::wait_until_asked_to_leave(&asked) => Err(error),
        }
    }

    /// The same in a database, where `session` is the first.
    async fn prepare_in(
        &mut self,
        session: Arc<Session>,
        database: ConnectionString,
        names: TargetNames,
        model: Model,
    ) -> Result<Prepared, JobError> {
        let of_rows = self.connect_for_rows(&session).await?;
        let reading = of_rows.as_ref().unwrap_or(&session);
        let rows = reading.server().clone();
        let sessions = Sessions {
            stream: &session,
            rows: reading,
        };
        let named = replacement::table_named(&session, &names).await?;
        self.notice_replacement(named);
        let place = self.place(&session, names).await?;
        let names = &place.names;
        let (jobs_server, target) = match self.examine(sessions, &place, &model).await {
            Ok(found) => found,
            Err(error) => return Err(replacement::judge(error, &session, names, named).await),
        };
        self.prepare_changeover(sessions, &place, &target).await?;
        let index = self
            .index_task(sessions, names, &target, model.dimensions())
            .await?;
        let leaves = self.read_leaves(reading, &target).await?;
        let state = TableState::read(reading, &target, &leaves).await?;
        watchdog::warn_of_children(&target, &[], state.children());
        if target.partitioned {
            let files = state.partition_files().unwrap_or_default();
            self.partitions.note_files(files);
        }
        self.history = TableHistory {
            followed: Some(target.oid),
            chunk_table: target.passages.as_ref().map(|passages| passages.oid),
            sends_whole_rows: listed_columns(&session, &target).is_none(),
            gone_at: None,
        };

        let unbroken = self.subscription.find_unbroken(&session, &target).await?;
        let continuity = Continuity::from_check(unbroken.is_some());
        let slots = self.subscription.names().clone();
        let claim = Claim {
            identity: Identity::new(jobs_server, self.jobs_table, &self.row.id),
            names: &slots,
            is_newcomer: self.row.progress == InitProgress::New || continuity == Continuity::Broken,
        };
        if let Some(first) = self.reporter.earlier_writer().await {
            let refusal = written_columns::refusal(&self.row.definition, &first);
            return Err(JobError::Permanent(refusal));
        }
        claim.check(&session, &target).await?;
        let backfill = self
            .plan_backfill(reading, &target, &leaves, continuity)
            .await?;
        let set_up = self.named(&database, "set-up");
        let streamable = tokio::select! {
            biased;
            streamable = self.subscription.set_up(&session, &set_up, &target, unbroken) => streamable?,
            error = self.watch_set_up(&rows, &target, &state) => return Err(error),
        };
        if self.row.progress == InitProgress::New {
            self.row.progress = InitProgress::Started;
        }
        let writing = match of_rows {
            Some(session) => session,
            None => Session::open(&self.named(&rows, "write-back")).await?,
        };
        let write_path = self.open_write_path(writing, &target, &model).await?;
        self.make_exclusive(write_path.session(), &target, claim)
            .await?;
        self.check_columns(write_path.session(), &target, &state, names)
            .await?;
        let subscriber_ends = self
            .subscription
            .join(&session, &database, &target, &streamable, self.stop.clone())
            .await?;
        Ok(Prepared {
            database,
            rows,
            session,
            target,
            state,
            streamable,
            subscriber_ends,
            write_path,
            backfill,
            index,
            place,
            jobs_server,
        })
    }

    /// Checks what the job needs of the server, the roles and the table, creates missing columns, and reads the table's
    /// definition. Returns the server of the jobs database, too.
    async fn examine(
        &mut self,
        sessions: Sessions<'_>,
        place: &Place,
        model: &Model,
    ) -> Result<(ServerInstance, Arc<TargetTable>), JobError> {
        let Place {
            names, definition, ..
        } = place;
        // First: a job that is another daemon's must not fail, or the slot of the other would be dropped.
        let jobs_server = self.stand_back_from_copies(sessions.rows).await?;
        let subject = Subject {
            sessions,
            names,
            definition,
            dimensions: Some(model.dimensions()),
            model: Some(model),
            slot: self.subscription.plan(),
            powerful_roles: self.powerful_roles,
        };
        let surveyed = subject.survey().await;
        let found = match surveyed.points.into_advice() {
            Ok(mut advice) => {
                advice.retain(|advice| surveyed.exposure.as_ref() != Some(advice));
                advice.iter().for_each(|advice| tracing::warn!("{advice}"));
                surveyed.table
            }
            Err(JobError::TableMissing(reason)) => {
                return Err(self.missing(sessions.stream, names, reason).await);
            }
            Err(error) => return Err(error),
        };
        self.warn_of_exposure(surveyed.exposure);
        let found = found.ok_or_else(|| JobError::Transient("the table is gone".into()))?;
        if names.passages.is_some() {
            self.look_at_passages(sessions.stream, found.chunk_table)
                .await?;
        }
        if found.destination.is_none() && names.index.is_some() {
            let dimensions = model.dimensions();
            let planned = target_table::planned(
                sessions.stream,
                names,
                definition,
                found.clone(),
                dimensions,
            )
            .await?;
            self.check_index(names, planned.as_ref(), dimensions)?;
        }
        let complete = target_table::complete(sessions, names, definition, found, model);
        let target = Box::pin(complete).await;
        match target {
            Ok(target) => Ok((jobs_server, Arc::new(target))),
            Err(JobError::TableMissing(reason)) => {
                Err(self.missing(sessions.stream, names, reason).await)
            }
            Err(error) => Err(error),
        }
    }

    /// Where the table for passages is another one than the job has filled, or none, every row is looked at again. Written
    /// before the table exists, so that a crash in between does not leave it empty.
    async fn look_at_passages(
        &mut self,
        session: &Session,
        found: Option<u32>,
    ) -> Result<(), JobError> {
        if self.row.progress != InitProgress::Finished {
            return Ok(());
        }
        let filled = self.history.chunk_table;
        let is_new = match found {
            None => true,
            Some(_) if filled.is_some() => filled != found,
            // It may have been replaced while no daemon ran.
            Some(oid) => chunk_table::is_recent(session, oid, self.subscription.slot()).await?,
        };
        if is_new {
            tracing::warn!(
                "the table for passages is another one than the job has filled: every row is looked at again"
            );
            self.start_again().await;
        }
        Ok(())
    }

    async fn read_leaves(
        &self,
        session: &Session,
        target: &TargetTable,
    ) -> Result<Vec<Leaf>, JobError> {
        if !target.partitioned {
            return Ok(Vec::new());
        }
        let (sources, slot) = (target.source.columns(), self.subscription.slot());
        Ok(leaves::read(session, target.oid, &sources, Some(slot)).await?)
    }

    /// What it means that there is no table of the job's name. A job that has run before waits for one, as it waits for its
    /// server: a nightly load may drop and create it. `reason` says so.
    async fn missing(
        &mut self,
        session: &Session,
        names: &TargetNames,
        reason: String,
    ) -> JobError {
        if self.row.progress == InitProgress::New {
            return JobError::TableMissing(reason);
        }
        self.history.gone_at.get_or_insert_with(Instant::now);
        match self.new_name(session).await {
            Ok(None) => JobError::TableGone(format!(
                "{reason}. The job has run before, so it waits for the table"
            )),
            Ok(Some(called)) => JobError::permanent(format!(
                "the table {} is now called {called}; correct schema and \"table\" in the jobs table",
                names.qualified()
            )),
            Err(error) => error.into(),
        }
    }

    /// What the table that the job followed until now is called, if it is still there.
    async fn new_name(&self, session: &Session) -> Result<Option<String>, DatabaseError> {
        session
            .query_opt(
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid = $1",
                &[&self.history.followed],
            )
            .await
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(DatabaseError::during("looking for the table under another name"))
    }

    /// Watches the table while its slot is being created, which waits for every open transaction: its publication exists
    /// already. Returns when the attempt has to end.
    async fn watch_set_up(
        &self,
        rows: &ConnectionString,
        target: &TargetTable,
        state: &TableState,
    ) -> JobError {
        tokio::time::sleep(SET_UP_IS_LONG).await;
        let session = match Session::open(&self.named(rows, "watch")).await {
            Ok(session) => Arc::new(session),
            Err(error) => return error.into(),
        };
        let watched = WatchedTable {
            target,
            publication: None,
            subscription: &self.subscription,
            partitions: &self.partitions,
        };
        watchdog::watch(session, watched, state.clone(), self.databases.clone()).await
    }

    async fn load_model(&mut self, names: &TargetNames) -> Result<Model, JobError> {
        let model = match &self.model {
            Some(loaded) => loaded.clone(),
            None => model::load(&self.engine, names, &self.access).await?,
        };
        let provider = model.provider().map(ToString::to_string);
        self.counters.set_provider(provider);
        self.model = Some(model.clone());
        let (id, served) = (self.row.id.as_str(), &self.served);
        (self.offer).get_or_insert_with(|| served.offer_of_job(id, model.clone()));
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
            return Err(standby_refusal(self.row.progress));
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
        leaves: &[Leaf],
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
            .to_scan(session, target, leaves, coverage)
            .await?;
        if self.row.progress == InitProgress::Finished && !attached.is_empty() {
            // After a crash the list of partitions is lost; then every row is scanned.
            self.start_again().await;
        }
        let scope = BackfillScope::for_start(self.row.progress, continuity, &self.row.definition);
        let has_orphans = target.passages.is_some() && self.partitions.may_have_orphans();
        Ok(match scope {
            Some(scope) => Some(BackfillPlan {
                scope,
                parts: match attached.is_empty() || has_orphans {
                    true => vec![Part::whole(target.clone())],
                    false => attached,
                },
            }),
            // Also with `backfill = false`: nothing is embedded.
            None => has_orphans.then(|| BackfillPlan {
                scope: BackfillScope::Mismatched {
                    trust_unverified: false,
                },
                parts: vec![Part::passages_without_rows(target.clone())],
            }),
        })
    }

    /// Every row has to be looked at again, if the scan is over.
    pub(super) async fn start_again(&mut self) {
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

    /// The write path over a session of its own.
    async fn open_write_path(
        &self,
        session: Session,
        target: &Arc<TargetTable>,
        model: &Model,
    ) -> Result<WritePath, JobError> {
        let options = WriteOptions::from_definition(&self.row.definition);
        let reporter = self.reporter.clone();
        WritePath::open(session, target.clone(), model, options, reporter).await
    }
}
