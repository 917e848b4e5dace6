//! One job from its row in the jobs table to its end.
//!
//! ```text
//! Pending ─▶ Preparing ─▶ Backfilling ─▶ Streaming ─▶ Canceled
//!                ▲            │              │
//!                └─ Retrying ◀┴──────────────┤
//!                                            └─▶ Failed (until a person acts)
//! ```
//!
//! Streaming starts with the slot, beside the backfill. [`Job::run`] holds the transitions; [`Job::attempt`] is one way
//! from preparing to whatever ends it.

mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::embedding::{Engine, Model, ModelName};
use crate::jobs::reporter::Reporter;
use crate::jobs::{JobRow, Progress};
use crate::pipeline::backfill::partitions::{Coverage, Partitions};
use crate::pipeline::backfill::scan::Backfill;
use crate::pipeline::backfill::scope;
use crate::pipeline::backfill::scope::{BackfillScope, Continuity};
use crate::pipeline::capture::slot_reader::Membership;
use crate::pipeline::capture::subscription::{Provided, Subscription};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition;
use crate::pipeline::setup::{preflight, target_database};
use crate::pipeline::slot::retention;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::fence;
use crate::pipeline::write::path::{LiveEnds, WriteOptions, WritePath};
use crate::postgres::{AllowedHosts, ConnectionString, Session};

/// The longest pause between two attempts; short enough to stream again within ten seconds of a server's return.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// An attempt that held this long was a success: the next pause is short again.
const STEADY: Duration = Duration::from_secs(20);
/// At most this often is `init_progress` written.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The daemon stops; the job goes on at the next start.
    Stopped,
    /// The job was cancelled while it ran; slot and publication are still there.
    Canceled,
    /// A person has to act first.
    Failed(String),
}

/// What a job needs to run.
pub struct Job {
    pub row: JobRow,
    pub subscription: Subscription,
    pub engine: Engine,
    /// Held from the first attempt on: an outage of the server must not have it loaded anew each time.
    pub model: Option<Model>,
    pub reporter: Reporter,
    /// Where the job may connect.
    pub allowed_hosts: AllowedHosts,
    pub partitions: Partitions,
    /// The daemon stops: finish what is under way.
    pub stop: CancellationToken,
    /// The job is cancelled: drop everything.
    pub cancel: CancellationToken,
}

impl Job {
    /// Runs the job to its end, through as many attempts as it takes.
    pub async fn run(self) -> Ended {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Ended::Canceled,
            ended = self.attempts() => ended,
        }
    }

    async fn attempts(mut self) -> Ended {
        let mut pause = SHORTEST_PAUSE;
        let mut not_caught_up = 0;
        loop {
            let began = Instant::now();
            let stop = self.stop.clone();
            let result = self.attempt().await;
            let error = match result {
                Ok(()) => return Ended::Stopped,
                Err(_) if stop.is_cancelled() => return Ended::Stopped,
                Err(error) => error,
            };
            if !error.is_transient() {
                return Ended::Failed(error.to_string());
            }
            if began.elapsed() > STEADY {
                pause = SHORTEST_PAUSE;
            }
            if self.row.progress == Progress::Finished {
                not_caught_up = 0;
            } else if error.requires_new_slot() {
                not_caught_up += 1;
                pause = retention::pause(not_caught_up);
            }
            tracing::warn!(
                "interrupted, trying again in {} ms: {error}",
                pause.as_millis()
            );
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One attempt. Where it ends because the slot is of no use any more, the slot goes: its absence is what tells the next
    /// attempt, also that of another daemon, that changes were missed.
    async fn attempt(&mut self) -> Result<(), JobError> {
        let result = self.prepare_and_stream().await;
        if let Err(error) = &result
            && error.requires_new_slot()
        {
            let database: ConnectionString = self.row.definition.db_connection.parse()?;
            self.subscription.give_up(&database).await?;
        }
        result
    }

    /// One way from preparing to the end of the stream. `Ok` when the daemon stops.
    async fn prepare_and_stream(&mut self) -> Result<(), JobError> {
        let stop = self.stop.clone();
        let prepared = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            prepared = self.prepare() => prepared?,
        };
        self.stream(prepared).await
    }

    async fn prepare(&mut self) -> Result<Prepared, JobError> {
        let definition = &self.row.definition;
        let names = definition::names(definition)?;
        let model: ModelName = names.model.parse()?;
        let database = target_database::of(definition, &self.allowed_hosts)?;
        let model = match &self.model {
            Some(held) => held.clone(),
            None => self.engine.model(&model).await?,
        };
        self.model = Some(model.clone());
        let session = Session::open(&self.named(&database, "set-up")).await?;
        // Everything else of this attempt goes to the same server.
        let database = session.server().clone();
        if preflight::is_standby(&session).await? {
            return Err(on_standby(self.row.progress));
        }
        preflight::check_server(&session).await?;
        let target = preflight::target_table(&session, &names, definition, &model).await?;
        let target = Arc::new(target);

        let intact = self.subscription.intact(&session, &target).await?;
        let standing = Continuity::from_check(intact.is_some());
        // Noted before the slot exists: a crash from here on must not make the new slot look like an unbroken one.
        if let Some(reason) =
            scope::unverified_because(&self.row, standing, &session, &target).await?
        {
            tracing::warn!("{reason}: {}", scope::effect_on_unverified(definition));
            self.reporter.started_again().await;
            self.row.progress = Progress::StartedAgain;
        } else {
            self.reporter.started().await;
        }
        let caught_up = standing == Continuity::Unbroken
            && (self.row.progress == Progress::Finished || self.partitions.are_pending());
        let coverage = match caught_up {
            true => Coverage::NewPartitions,
            false => Coverage::WholeTable,
        };
        let attached = self
            .partitions
            .to_scan(&session, &target, self.subscription.slot(), coverage)
            .await?;
        if self.row.progress == Progress::Finished && !attached.is_empty() {
            // After a crash nobody knows which ones they were: then every row is looked through.
            self.reporter.started_again().await;
            self.row.progress = Progress::StartedAgain;
        }
        let scope = BackfillScope::for_start(self.row.progress, standing, &self.row.definition);
        let set_up = self.named(&database, "set-up");
        let provided = self
            .subscription
            .provide(&session, &set_up, &target, intact)
            .await?;
        if self.row.progress == Progress::New {
            self.row.progress = Progress::Started;
        }
        let write_back = self.named(&database, "write-back");
        let options = WriteOptions::from_definition(&self.row.definition);
        let reporter = self.reporter.clone();
        let write_path =
            WritePath::open(&write_back, target.clone(), &model, options, reporter).await?;
        fence::acquire(write_path.session(), self.subscription.name()).await?;
        let membership = self
            .subscription
            .begin(&session, &database, &target, &provided, self.stop.clone())
            .await?;
        Ok(Prepared {
            database,
            target,
            attached,
            provided,
            session,
            write_path,
            membership,
            scope,
        })
    }

    async fn stream(&mut self, prepared: Prepared) -> Result<(), JobError> {
        let Prepared {
            database,
            target,
            attached,
            provided,
            session: set_up,
            write_path,
            membership,
            scope,
        } = prepared;
        let session = write_path.session().clone();
        let Membership {
            live: rows,
            finished,
            start,
            mut stay,
        } = membership;
        let (mut batcher, to_batcher) = write_path.start(&self.engine, LiveEnds { rows, finished });
        tracing::info!("streaming from {start}");
        let admission = self.subscription.admit(&set_up, &target, &provided);
        tokio::select! {
            biased;
            ended = stay.ended() => return ended,
            admitted = admission => admitted?,
        }
        drop(set_up);

        let mut backfill = match scope {
            Some(scope) => {
                let tables = match attached.is_empty() {
                    true => vec![target.clone()],
                    false => attached,
                };
                let named = self.named(&database, "backfill");
                let scan =
                    Backfill::open(&named, tables, scope, to_batcher.rows, to_batcher.finished)
                        .await?;
                Some(Task::spawn(self.backfill(scan)))
            }
            None => {
                if self.row.progress != Progress::Finished {
                    self.reporter.finished().await;
                    self.row.progress = Progress::Finished;
                }
                None
            }
        };
        let to_watch = self.subscription.to_watch(database);
        let retention = retention::watch_if(to_watch, session.clone());
        let (subscription, partitions) = (self.subscription.clone(), self.partitions.clone());
        let watchdog = watchdog::watch(
            session,
            watchdog::Watched {
                target: &target,
                publication: &provided.publication,
                subscription: &subscription,
                partitions: &partitions,
            },
        );
        tokio::pin!(watchdog, retention);
        loop {
            tokio::select! {
                biased;
                // Without an error of its own it has ended with the stream, which says why.
                ended = &mut batcher => return match join(ended) {
                    Ok(()) => stay.ended().await,
                    Err(error) => Err(error),
                },
                ended = stay.ended() => return ended,
                error = &mut watchdog => return Err(error),
                error = &mut retention => return Err(error),
                ended = scanned(&mut backfill) => {
                    backfill = None;
                    match join(ended) {
                        Ok(()) => {
                            self.row.progress = Progress::Finished;
                            self.partitions.scanned();
                        }
                        Err(error) => return Err(cause(error, &mut batcher).await),
                    }
                }
                () = self.stop.cancelled(), if backfill.is_some() => backfill = None,
            }
        }
    }

    /// The target database for a session whose name says what it is for.
    fn named(&self, database: &ConnectionString, purpose: &str) -> ConnectionString {
        // Names are cut after 63 bytes; those of ids are short but for the strangest tables.
        let id: String = self.row.id.as_str().chars().take(36).collect();
        database.named(&format!("job {id} {purpose}"))
    }

    fn backfill(
        &self,
        scan: Backfill,
    ) -> impl Future<Output = Result<(), JobError>> + Send + 'static {
        let reporter = self.reporter.clone();
        async move {
            let began = Instant::now();
            let mut said = None::<Instant>;
            let progress = {
                let reporter = reporter.clone();
                scan.run(move |progress| {
                    if said.is_none_or(|said| said.elapsed() >= PROGRESS_EVERY) {
                        if said.is_none() {
                            tracing::info!("{} existing rows to embed", progress.total);
                        }
                        said = Some(Instant::now());
                        reporter.progressed(progress.percent());
                    }
                })
                .await?
            };
            tracing::info!(
                "{} existing rows done in {:.1} s; listening for changes",
                progress.done,
                began.elapsed().as_secs_f64()
            );
            reporter.finished().await;
            Ok(())
        }
    }
}

/// A job that has run before meets a standby while its cluster fails over; one that has not was given the wrong address.
fn on_standby(progress: Progress) -> JobError {
    let sentence = "the target server is a standby; vectors can only be written to the primary";
    match progress {
        Progress::New => JobError::permanent(format!(
            "{sentence}: name it in db_connection, or all servers with target_session_attrs=read-write"
        )),
        _ => JobError::Transient(sentence.into()),
    }
}

/// Everything that is there once a job may stream.
struct Prepared {
    database: ConnectionString,
    target: Arc<TargetTable>,
    /// Partitions that alone have to be looked through.
    attached: Vec<Arc<TargetTable>>,
    provided: Provided,
    /// For what is left to do before the scan.
    session: Session,
    write_path: WritePath,
    membership: Membership,
    scope: Option<BackfillScope>,
}

/// A task that ends with its owner.
struct Task(JoinHandle<Result<(), JobError>>);

impl Task {
    fn spawn(work: impl Future<Output = Result<(), JobError>> + Send + 'static) -> Self {
        use tracing::Instrument;
        Task(tokio::spawn(work.in_current_span()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn join(ended: Result<Result<(), JobError>, tokio::task::JoinError>) -> Result<(), JobError> {
    ended.unwrap_or_else(|error| {
        Err(JobError::Transient(format!(
            "a task of the job ended early: {error}"
        )))
    })
}

/// A backfill ends when the batcher does; then its error is the one to tell.
async fn cause(error: JobError, batcher: &mut AbortOnDropHandle<Result<(), JobError>>) -> JobError {
    match tokio::time::timeout(Duration::from_millis(200), batcher).await {
        Ok(ended) => join(ended).err().unwrap_or(error),
        Err(_) => error,
    }
}

async fn scanned(task: &mut Option<Task>) -> Result<Result<(), JobError>, tokio::task::JoinError> {
    match task {
        Some(task) => (&mut task.0).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_does_not_fail_a_job_that_has_run_before() {
        assert!(on_standby(Progress::Finished).is_transient());
        assert!(on_standby(Progress::StartedAgain).is_transient());
        assert!(!on_standby(Progress::New).is_transient());
    }
}
