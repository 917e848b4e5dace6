//! The second half of an attempt: the concurrent parts of a streaming job, and what their ends mean.
//!
//! ```text
//! slot reader ── rows ──▶ batcher ◀── rows ── backfill        watchdog, retention: ask the server each second or so
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::index::IndexWork;
use super::model_servers;
use super::prepare::{BackfillPlan, Prepared};
use super::state::Job;
use super::watchdog::{self, WatchedTable};
use crate::jobs::InitProgress;
use crate::jobs::reporter::Reporter;
use crate::pipeline::backfill::scan::Backfill;
use crate::pipeline::capture::join::{Stay, SubscriberEnds};
use crate::pipeline::changeover::takeover::Takeover;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::table_state::TableState;
use crate::pipeline::setup::{coverage, ddl};
use crate::pipeline::slot::retention;
use crate::pipeline::write::path::{BackfillEnds, LiveEnds};
use crate::plural::form;
use crate::postgres::{ConnectionString, Session};
use crate::status::JobCounters;
use crate::status::record::Phase;

/// `init_progress` is written at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// A job that has streamed for this long is no longer called interrupted.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// How long a batcher may take to say why it has ended.
const CAUSE_TIMEOUT: Duration = Duration::from_millis(200);

/// A part of the job that runs as a task and ends with the attempt.
type Part = AbortOnDropHandle<Result<(), JobError>>;

/// What is done with rows that exist already.
struct ExistingRows {
    backfill: Option<Part>,
    /// Begins when there is no backfill, or no more.
    index: Option<IndexWork>,
    /// Likewise.
    takeover: Option<Takeover>,
}

impl Job {
    /// Streams until the subscription ends or a part fails. `Ok` when the daemon stops.
    ///
    /// # Errors
    /// Whatever ends the attempt.
    pub(super) async fn stream(&mut self, prepared: Prepared) -> Result<(), JobError> {
        let Prepared {
            database,
            rows: rows_database,
            session: set_up,
            target,
            state,
            streamable,
            subscriber_ends,
            write_path,
            backfill,
            index,
            place,
            jobs_server,
        } = prepared;
        let SubscriberEnds {
            rows,
            acks: finished,
            admission,
            mut stay,
        } = subscriber_ends;
        let session = write_path.session().clone();
        let live = LiveEnds { rows, finished };
        let (batcher, to_batcher) = write_path.start(&self.engine, live, self.counters.clone());

        // The batcher works meanwhile: other jobs of a shared slot wait behind this job's rows.
        let admitted = self
            .subscription
            .admit(&set_up, &target, &streamable, &admission);
        tokio::select! {
            biased;
            ended = stay.ended() => return ended,
            admitted = ddl::telling(self.reporter.clone(), admitted) => admitted?,
        }
        let slots = self.databases.of(&set_up).await?.slots();
        drop(set_up);

        let backfill = self
            .start_backfill(backfill, &rows_database, to_batcher)
            .await?;
        let definition = place.definition.clone();
        let databases_of_roles = (&database, &rows_database);
        let takeover = self.takeover(
            place,
            &target,
            index.as_ref(),
            jobs_server,
            databases_of_roles,
        );
        let index =
            index.map(|task| self.index_work(task, target.clone(), &database, &rows_database));
        let (subscription, partitions) = (self.subscription.clone(), self.partitions.clone());
        let watched_slot = subscription.watched_slot(database);
        let watched_table = WatchedTable {
            target: &target,
            publication: Some(&streamable.publication),
            subscription: &subscription,
            partitions: &partitions,
        };
        let counters = self.counters.clone();
        let (model, reporter) = (self.model.clone(), self.reporter.clone());
        let watched = counters.clone();
        let held_up = async {
            match model {
                Some(model) => model_servers::watch(model, reporter, watched).await,
                None => std::future::pending().await,
            }
        };
        let databases = self.databases.clone();
        let watchers = async {
            tokio::select! {
                error = watchdog::watch(session.clone(), watched_table, state.clone(), databases) => error,
                error = retention::watch_if(watched_slot, slots, session.clone()) => error,
                never = coverage::watch(session.clone(), definition, counters) => match never {},
                never = held_up => match never {},
            }
        };
        let existing = ExistingRows {
            backfill,
            index,
            takeover,
        };
        match Box::pin(self.run_parts(stay, batcher, existing, watchers)).await {
            Err(error) if error.may_be_outdated() => {
                Err(explain(error, &session, watched_table, &state).await)
            }
            ended => ended,
        }
    }

    /// Runs the parts until one ends the attempt. `stay` is dropped last: once a subscription has ended, receipts of its rows
    /// come too late.
    async fn run_parts(
        &mut self,
        mut stay: Stay,
        mut batcher: Part,
        existing: ExistingRows,
        watchers: impl Future<Output = JobError>,
    ) -> Result<(), JobError> {
        let ExistingRows {
            mut backfill,
            index: mut waiting_index,
            takeover: mut waiting_takeover,
        } = existing;
        tokio::pin!(watchers);
        // An index slows write-backs down, so it comes after the scan.
        let mut index = None;
        let mut takeover = None;
        self.has_run = true;
        let steady = tokio::time::sleep(STEADY_AFTER);
        tokio::pin!(steady);
        let mut is_steady = false;
        loop {
            if backfill.is_none() && !self.stop.is_cancelled() {
                index = waiting_index.take().map(start).or(index);
                takeover = waiting_takeover.take().map(take_over).or(takeover);
            }
            tokio::select! {
                biased;
                () = &mut steady, if !is_steady => {
                    is_steady = true;
                    self.interruption.end();
                }
                // Without an error of its own the batcher has ended with the stream, which says why.
                ended = &mut batcher => return match flatten(ended) {
                    Ok(()) => stay.ended().await,
                    Err(error) => Err(error),
                },
                ended = stay.ended() => return ended,
                error = &mut watchers => return Err(error),
                ended = finished(&mut backfill) => {
                    backfill = None;
                    match flatten(ended) {
                        Ok(()) => {
                            self.row.progress = InitProgress::Finished;
                            self.counters.set_phase(Phase::Streaming);
                            self.partitions.scanned();
                        }
                        Err(error) => return Err(cause(error, &mut batcher).await),
                    }
                }
                // It has ended because the index is there, or by a panic, which must not end the job.
                _ = finished(&mut index) => index = None,
                ended = finished(&mut takeover) => return flatten(ended),
                () = self.stop.cancelled(), if backfill.is_some() || index.is_some() || takeover.is_some() => {
                    (backfill, index, waiting_index, takeover, waiting_takeover) = (None, None, None, None, None);
                }
            }
        }
    }

    /// Starts the scan, where there is something to scan.
    async fn start_backfill(
        &mut self,
        plan: Option<BackfillPlan>,
        database: &ConnectionString,
        to_batcher: BackfillEnds,
    ) -> Result<Option<Part>, JobError> {
        let Some(BackfillPlan { scope, parts }) = plan else {
            self.counters.set_phase(Phase::Streaming);
            if self.row.progress != InitProgress::Finished {
                self.reporter.finished().await;
                self.row.progress = InitProgress::Finished;
            }
            return Ok(None);
        };
        let database = self.named(database, "backfill");
        let scan = Backfill::open(
            &database,
            parts,
            scope,
            to_batcher.rows,
            to_batcher.finished,
        )
        .await?;
        let (reporter, counters) = (self.reporter.clone(), self.counters.clone());
        counters.set_phase(Phase::Backfilling);
        Ok(Some(spawn(backfill(scan, reporter, counters))))
    }
}

/// A statement failed because of what its objects are. If the table has changed since the attempt began, that is the cause,
/// although the watchdog has not seen it yet.
async fn explain(
    error: JobError,
    session: &Session,
    watched: WatchedTable<'_>,
    state: &TableState,
) -> JobError {
    let looked = watchdog::find_fault(session, watched, state).await;
    // A session that cannot answer explains nothing.
    let fault = looked
        .err()
        .filter(|fault| !matches!(fault, JobError::Database(_)));
    fault.unwrap_or(error)
}

/// Scans, and reports progress and the end.
async fn backfill(
    scan: Backfill,
    reporter: Reporter,
    counters: Arc<JobCounters>,
) -> Result<(), JobError> {
    let began = Instant::now();
    let mut reported = None::<Instant>;
    let progress = scan
        .run(|progress| {
            counters.note_scan(progress.done, progress.total);
            if reported.is_none() {
                tracing::info!(
                    "{} existing {} to embed",
                    progress.total,
                    form(progress.total, "row", "rows")
                );
            }
            if reported.is_none_or(|reported| reported.elapsed() >= PROGRESS_INTERVAL) {
                reported = Some(Instant::now());
                reporter.progressed(progress.percent());
            }
        })
        .await?;
    tracing::info!(
        "{} existing {} done in {:.1} s; listening for changes",
        progress.done,
        form(progress.done, "row", "rows"),
        began.elapsed().as_secs_f64()
    );
    reporter.finished().await;
    Ok(())
}

fn start(work: IndexWork) -> Part {
    spawn(async {
        work.await;
        Ok(())
    })
}

/// Ends the attempt once the columns are swapped: the session that writes knows the old names.
fn take_over(takeover: Takeover) -> Part {
    spawn(async {
        takeover.run().await;
        Err(JobError::Swapped(
            "the job goes on with the column under its new name".into(),
        ))
    })
}

fn spawn(work: impl Future<Output = Result<(), JobError>> + Send + 'static) -> Part {
    AbortOnDropHandle::new(tokio::spawn(work.in_current_span()))
}

/// Pends forever without a task. Cancellation safe.
async fn finished(part: &mut Option<Part>) -> Result<Result<(), JobError>, JoinError> {
    match part {
        Some(part) => part.await,
        None => std::future::pending().await,
    }
}

/// A panic of a part ends the attempt like any transient error.
fn flatten(ended: Result<Result<(), JobError>, JoinError>) -> Result<(), JobError> {
    ended.unwrap_or_else(|error| Err(error.into()))
}

/// A backfill ends when the batcher does; then the batcher's error is the one to report.
async fn cause(error: JobError, batcher: &mut Part) -> JobError {
    match tokio::time::timeout(CAUSE_TIMEOUT, batcher).await {
        Ok(ended) => flatten(ended).err().unwrap_or(error),
        Err(_) => error,
    }
}
