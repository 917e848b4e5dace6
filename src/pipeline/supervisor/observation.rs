//! What watchers see of the jobs. Once a second the supervisor puts the state of each together and publishes it on the
//! [`StatusBoard`](crate::status::StatusBoard). Every few seconds it writes what has changed into the column `stats` of the jobs table, in one
//! statement for all jobs.
//!
//! None of this may disturb the jobs: of errors, only that the session is lost is passed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::observed::Moment;
use super::state::{Running, Supervisor};
use crate::jobs::definition::{JobId, JobRow};
use crate::postgres::DatabaseError;
use crate::status::JobStatus;
use crate::status::board::{FailedRow, Snapshot};
use crate::status::daemon_status::{self, DaemonStatus};
use crate::status::job_status::JobFacts;
use crate::status::record::JobRecord;

/// How often the state is published.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is written to the jobs table, and the failures table read.
const RECORD_INTERVAL: Duration = Duration::from_secs(2);
/// Newest rows of the failures table that are published.
const MAX_FAILURES: i64 = 50;

impl Supervisor {
    /// Publishes the state of all jobs, if that is due, and records it.
    ///
    /// # Errors
    /// That the session with the jobs database is lost.
    pub(super) async fn observe(&mut self, rows: &Arc<[JobRow]>) -> Result<(), DatabaseError> {
        if !is_due(self.observation.published, PUBLISH_INTERVAL) {
            return Ok(());
        }
        self.observation.published = Some(Instant::now());
        // Who waits for a job to begin or to catch up hears of it at once.
        let has_moved_on = |running: &Running| running.observed.has_moved_on();
        let records = is_due(self.observation.recorded, RECORD_INTERVAL)
            || self.running.values().any(has_moved_on);
        if records {
            self.observation.recorded = Some(Instant::now());
            let looked = self.look_at_records().await;
            self.unless_lost(looked)?;
        }
        self.observation.rows = rows.clone();
        self.observation.jobs_database_error = None;
        let current = self.current_records();
        self.publish(&current);
        if records {
            let written = self.write_records(current).await;
            self.unless_lost(written)?;
        }
        Ok(())
    }

    /// Publishes the state of all jobs while the jobs database is away, if that is due: those that run go on. Without a
    /// reason, the last one stays.
    pub(super) fn observe_outage(&mut self, reason: Option<String>) {
        if reason.is_some() {
            self.observation.jobs_database_error = reason;
        }
        if is_due(self.observation.published, PUBLISH_INTERVAL) {
            self.observation.published = Some(Instant::now());
            let current = self.current_records();
            self.publish(&current);
        }
    }

    /// Reads what changes rarely: the failures table, and what daemons have recorded of jobs that do not run here, or have
    /// only just begun to.
    async fn look_at_records(&mut self) -> Result<(), DatabaseError> {
        let failures = &mut self.observation.failures;
        if let Err(error) = self.store.summarize_failures(failures, MAX_FAILURES).await {
            match error.into_transient() {
                Ok(error) => return Err(error),
                Err(error) => tracing::debug!("the failures table cannot be read: {error}"),
            }
        }
        let is_new = |running: &Running| running.observed.is_new();
        let runs_all = self.observation.rows.len() <= self.running.len();
        if runs_all && !self.running.values().any(is_new) {
            return Ok(());
        }
        let remarks = self.store.all_remarks().await?;
        self.observation.recorded_facts = remarks
            .into_iter()
            .map(|(id, remarks)| (id, remarks.into()))
            .collect();
        for (id, running) in &mut self.running {
            if running.observed.is_new() {
                let earlier = self.observation.recorded_facts.get(id);
                let earlier = earlier.and_then(|facts: &JobFacts| facts.record.clone());
                running.observed.continue_from(earlier);
            }
        }
        Ok(())
    }

    fn current_records(&mut self) -> BTreeMap<JobId, JobRecord> {
        let observation = &self.observation;
        let provider = self.engine.provider().to_string();
        let moment = Moment::now(&observation.daemon, &provider);
        let running = self.running.iter_mut();
        running
            .map(|(id, running)| {
                let quarantined = observation.failures.count(id);
                (id.clone(), running.observed.record(&moment, quarantined))
            })
            .collect()
    }

    fn publish(&self, records: &BTreeMap<JobId, JobRecord>) {
        let rows = self.observation.rows.iter();
        let jobs = rows.map(|row| self.job_status(row, records.get(&row.id)));
        let failures = self.observation.failures.newest.iter();
        self.observation.board.publish(Snapshot {
            daemon: self.daemon_status(),
            jobs: jobs.collect(),
            failures: failures
                .map(|failure| FailedRow {
                    job: failure.job.to_string(),
                    key: failure.key.clone(),
                    error: failure.error.clone(),
                    attempts: failure.attempts,
                    failed_at: failure.failed_at.clone(),
                })
                .collect(),
        });
    }

    fn job_status(&self, row: &JobRow, record: Option<&JobRecord>) -> JobStatus {
        let running = self.running.get(&row.id).zip(record);
        let facts = match running {
            Some((running, record)) => running.observed.facts(record.clone()),
            None => JobFacts {
                runs: self.claims.elsewhere.contains_key(&row.id),
                quarantined_rows: Some(self.observation.failures.count(&row.id)),
                ..self.recorded_facts(&row.id)
            },
        };
        let is_to_replace = row.is_to_replace_one_of(&self.observation.rows);
        JobStatus::assemble(
            row,
            JobFacts {
                is_to_replace,
                ..facts
            },
        )
    }

    /// What the jobs table says of a job that does not run here.
    fn recorded_facts(&self, id: &JobId) -> JobFacts {
        let facts = self.observation.recorded_facts.get(id);
        facts.cloned().unwrap_or_default()
    }

    fn daemon_status(&self) -> DaemonStatus {
        let (engine, observation) = (&self.engine, &self.observation);
        let inference = engine.inference();
        DaemonStatus {
            name: observation.daemon.clone(),
            jobs_table: self.store.table().qualified().to_owned(),
            uptime_seconds: observation.started.elapsed().as_secs_f64(),
            memory_bytes: daemon_status::resident_memory(),
            running_jobs: self.running.len(),
            jobs_database_error: observation.jobs_database_error.clone(),
            inference_threads: inference.threads,
            inference_share: inference.share,
            texts: engine.embedded_texts(),
            computed_texts: engine.computed_texts(),
        }
    }

    /// Writes the records that say something new.
    async fn write_records(
        &mut self,
        records: BTreeMap<JobId, JobRecord>,
    ) -> Result<(), DatabaseError> {
        if !self.store.records_stats() {
            return Ok(());
        }
        let is_news = |id: &JobId, record: &JobRecord| {
            let running = self.running.get(id);
            running.is_some_and(|running| running.observed.is_news(record))
        };
        let news: Vec<(JobId, JobRecord)> = records
            .into_iter()
            .filter(|(id, record)| is_news(id, record))
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let stats: Vec<(JobId, String)> = news
            .iter()
            .map(|(id, record)| (id.clone(), record.to_json()))
            .collect();
        self.store.write_stats(&stats).await?;
        for (id, record) in news {
            if let Some(running) = self.running.get_mut(&id) {
                running.observed.note_recorded(record);
            }
        }
        Ok(())
    }

    /// Records what a job has done that has ended here, while its lock is still ours.
    ///
    /// # Errors
    /// That the session with the jobs database is lost.
    pub(super) async fn record_end(
        &mut self,
        id: &JobId,
        mut running: Running,
    ) -> Result<Running, DatabaseError> {
        let quarantined = self.observation.failures.count(id);
        let provider = self.engine.provider().to_string();
        let moment = Moment::now(&self.observation.daemon, &provider);
        let record = running.observed.record(&moment, quarantined);
        if self.store.records_stats() && running.observed.is_news(&record) {
            let stats = [(id.clone(), record.to_json())];
            let written = self.store.write_stats(&stats).await;
            self.unless_lost(written)?;
        }
        Ok(running)
    }

    /// Passes on an error only if the session is lost by it.
    fn unless_lost(&self, result: Result<(), DatabaseError>) -> Result<(), DatabaseError> {
        match result {
            Err(error) if self.store.session().is_closed() => Err(error),
            Err(error) => {
                tracing::debug!("the state of the jobs is not recorded: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

fn is_due(last: Option<Instant>, interval: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= interval)
}
