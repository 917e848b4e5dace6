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

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::embedding::{Engine, Model, ModelName};
use crate::jobs::reporter::Reporter;
use crate::jobs::{InitProgress, JobRow};
use crate::pipeline::backfill::partitions::Partitions;
use crate::pipeline::backfill::scan::Backfill;
use crate::pipeline::backfill::scope::{BackfillScope, Continuity};
use crate::pipeline::backfill::{scan as backfill, scope};
use crate::pipeline::capture::reader::MOST_ROWS as MOST_LIVE_ROWS;
use crate::pipeline::capture::slot_reader::Membership;
use crate::pipeline::capture::subscription::{Provided, Subscription};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition;
use crate::pipeline::setup::{preflight, target_database};
use crate::pipeline::slot::retention;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::batcher::{Batcher, DEFAULT_BATCH, Ports};
use crate::pipeline::write::quarantine::Quarantine;
use crate::pipeline::write::writer::Writer;
use crate::pipeline::write::{fence, triggers};
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
            if self.row.progress == InitProgress::Finished {
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
        if let Some(reason) = scope::why_again(&self.row, standing, &session, &target).await? {
            tracing::warn!("{reason}: {}", scope::again(definition));
            self.reporter.started_again().await;
            self.row.progress = InitProgress::StartedAgain;
        } else {
            self.reporter.started().await;
        }
        let unbroken = standing == Continuity::Unbroken
            && (self.row.progress == InitProgress::Finished || self.partitions.are_pending());
        let attached = self
            .partitions
            .to_look_through(&session, &target, self.subscription.slot(), unbroken)
            .await?;
        if self.row.progress == InitProgress::Finished && !attached.is_empty() {
            // After a crash nobody knows which ones they were: then every row is looked through.
            self.reporter.started_again().await;
            self.row.progress = InitProgress::StartedAgain;
        }
        let scope = scope::of(self.row.progress, standing, &self.row.definition);
        let set_up = self.named(&database, "set-up");
        let provided = self
            .subscription
            .provide(&session, &set_up, &target, intact)
            .await?;
        if self.row.progress == InitProgress::New {
            self.row.progress = InitProgress::Started;
        }
        let aside = Quarantine::open(self.reporter.clone(), target.clone()).await;
        let write_back = self.named(&database, "write-back");
        let writer = Writer::open(&write_back, target.clone(), model.dimensions()).await?;
        fence::raise(writer.session(), self.subscription.name()).await?;
        if self.row.definition.skip_triggers {
            triggers::skip(writer.session()).await?;
        }
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
            model,
            aside,
            writer,
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
            model,
            aside,
            writer,
            membership,
            scope,
        } = prepared;
        let (backfill_in, backfill) = mpsc::channel(backfill::MOST_ROWS);
        let (backfill_finished, backfill_back) = mpsc::channel(backfill::MOST_ROWS);
        let batch_rows = self
            .row
            .definition
            .batch_size
            .and_then(|size| usize::try_from(size).ok())
            .map_or(DEFAULT_BATCH, |size| size.clamp(1, 4096));

        let session = writer.session().clone();
        let Membership {
            live,
            finished: live_finished,
            start,
            mut stay,
        } = membership;
        let ports = Ports {
            live,
            backfill,
            live_finished,
            backfill_finished,
        };
        let queue = self
            .engine
            .queue(&model, MOST_LIVE_ROWS + backfill::MOST_ROWS);
        let batcher = Batcher::new(ports, queue, batch_rows, target.qualified(), aside);
        let mut batcher = Task::spawn(batcher.run(writer));
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
                    Backfill::open(&named, tables, scope, backfill_in, backfill_back).await?;
                Some(Task::spawn(self.backfill(scan)))
            }
            None => {
                if self.row.progress != InitProgress::Finished {
                    self.reporter.finished().await;
                    self.row.progress = InitProgress::Finished;
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
                ended = &mut batcher.0 => return match join(ended) {
                    Ok(()) => stay.ended().await,
                    Err(error) => Err(error),
                },
                ended = stay.ended() => return ended,
                error = &mut watchdog => return Err(error),
                error = &mut retention => return Err(error),
                ended = finished(&mut backfill) => {
                    backfill = None;
                    match join(ended) {
                        Ok(()) => {
                            self.row.progress = InitProgress::Finished;
                            self.partitions.finished();
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
fn on_standby(progress: InitProgress) -> JobError {
    let sentence = "the target server is a standby; vectors can only be written to the primary";
    match progress {
        InitProgress::New => JobError::permanent(format!(
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
    model: Model,
    aside: Quarantine,
    writer: Writer,
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
async fn cause(error: JobError, batcher: &mut Task) -> JobError {
    match tokio::time::timeout(Duration::from_millis(200), &mut batcher.0).await {
        Ok(ended) => join(ended).err().unwrap_or(error),
        Err(_) => error,
    }
}

async fn finished(task: &mut Option<Task>) -> Result<Result<(), JobError>, tokio::task::JoinError> {
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
        assert!(on_standby(InitProgress::Finished).is_transient());
        assert!(on_standby(InitProgress::StartedAgain).is_transient());
        assert!(!on_standby(InitProgress::New).is_transient());
    }
}
