//! `status`: the state of jobs, from SQL alone. So it also works while no daemon runs, and says so.
//!
//! ```text
//! jobs database     rows and what the daemon has recorded in them, the failures table, who holds the locks of jobs
//! target databases  slots, and how many rows have a vector: one session for each database, all at the same time
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::jobs::failures_summary::{FailureRow, FailuresSummary};
use crate::jobs::presence;
use crate::jobs::stats::JobRemarks;
use crate::jobs::{JobId, JobRow, JobStore};
use crate::pipeline::changeover::place::written_definition;
use crate::pipeline::setup::coverage::{self, Counting};
use crate::pipeline::setup::target_database;
use crate::pipeline::slot::catalog::{SlotState, slot_states};
use crate::pipeline::slot::names;
use crate::postgres::{ConnectionString, DatabaseError, JobAccess, Session};
use crate::replication::SlotName;
use crate::status::JobStatus;
use crate::status::job_status::{JobFacts, SlotNow};
use crate::status::record::{Coverage, DaemonName, JobRecord, SlotRecord};

/// How long a target database may take. One that is away must not keep the state of all others from being shown.
const TARGET_TIMEOUT: Duration = Duration::from_secs(5);
/// Newest rows of the failures table that are read.
const MAX_FAILURES: i64 = 20;

/// Looks at jobs.
pub struct Observer {
    /// The jobs table.
    pub store: JobStore,
    /// Where jobs may lead.
    pub access: JobAccess,
    /// The target database of all jobs, in place of what their rows say.
    pub target: Option<ConnectionString>,
}

/// The state of jobs at one moment.
pub struct Observed {
    /// Their states, in the order of the table.
    pub jobs: Vec<JobStatus>,
    /// What else their rows say, by id.
    pub remarks: BTreeMap<String, JobRemarks>,
    /// Daemons that have this jobs table.
    pub daemons: usize,
    /// Those of them that have recorded something.
    pub named_daemons: Vec<DaemonName>,
    /// The newest rows of the failures table.
    pub failures: Vec<FailureRow>,
    /// Rows without an id, which are no jobs.
    pub nameless: usize,
    /// What could not be asked, for a person.
    pub problems: Vec<String>,
}

/// What a target database shows of a job.
#[derive(Default)]
struct TargetFacts {
    slot: SlotNow,
    coverage: Option<Coverage>,
}

impl Observer {
    /// The state of all jobs, or of the one with this id. Without a `counting` no target database is asked.
    ///
    /// # Errors
    /// Those of the jobs database. What a target database does not tell is a problem in the result.
    pub async fn look(
        &self,
        only: Option<&JobId>,
        counting: Option<Counting>,
    ) -> Result<Observed, DatabaseError> {
        let mut nameless = 0;
        let rows = match only {
            Some(id) => self.store.rows_with_id(id).await?,
            None => {
                let found = self.store.rows().await?;
                nameless = found.nameless;
                found.rows
            }
        };
        let mut rows = rows;
        // As numbers, where they are.
        rows.sort_by_key(|row| row.id.as_str().parse::<i64>().unwrap_or(i64::MAX));
        let ids: Vec<JobId> = rows.iter().map(|row| row.id.clone()).collect();
        let fleet = presence::look(&self.store, &ids, BTreeSet::new()).await?;
        let mut remarks: BTreeMap<JobId, JobRemarks> =
            self.store.all_remarks().await?.into_iter().collect();
        let records: BTreeMap<JobId, JobRecord> = remarks
            .iter()
            .filter_map(|(id, remarks)| {
                let record = JobRecord::from_json(remarks.stats.as_deref()?)?;
                Some((id.clone(), record))
            })
            .collect();
        let held = self.held_jobs(&records).await?;
        let mut problems = Vec::new();
        let failures = self.failures(&mut problems).await?;
        let mut targets = match counting {
            Some(counting) => {
                self.ask_targets(&rows, &records, counting, &mut problems)
                    .await
            }
            None => BTreeMap::new(),
        };
        let replaced = self.replaced(&rows).await?;
        let jobs = rows.iter().map(|row| {
            let remark = remarks.get(&row.id).cloned().unwrap_or_default();
            let target = targets.remove(&row.id).unwrap_or_default();
            let facts = JobFacts {
                runs: fleet.holders.contains_key(&row.id) || held.contains(&row.id),
                slot: target.slot,
                quarantined_rows: failures.as_ref().map(|failures| failures.count(&row.id)),
                coverage: target.coverage,
                is_to_replace: row.is_to_replace_one_of(&replaced),
                ..JobFacts::from(remark)
            };
            JobStatus::assemble(row, facts)
        });
        let jobs: Vec<JobStatus> = jobs.collect();
        let mut named_daemons: Vec<DaemonName> = Vec::new();
        for daemon in jobs.iter().filter_map(|job| job.daemon.as_ref()) {
            if !named_daemons.contains(daemon) {
                named_daemons.push(daemon.clone());
            }
        }
        remarks.retain(|id, _| ids.contains(id));
        let newest = failures.map(|failures| failures.newest).unwrap_or_default();
        Ok(Observed {
            jobs,
            remarks: remarks
                .into_iter()
                .map(|(id, remarks)| (id.to_string(), remarks))
                .collect(),
            daemons: fleet.peers.len().max(named_daemons.len()),
            named_daemons,
            failures: newest
                .into_iter()
                .filter(|failure| ids.contains(&failure.job))
                .collect(),
            nameless,
            problems,
        })
    }

    /// The jobs that these are to replace, or have replaced.
    async fn replaced(&self, rows: &[JobRow]) -> Result<Vec<JobRow>, DatabaseError> {
        let mut replaced = Vec::new();
        for id in rows
            .iter()
            .filter_map(|row| row.definition.replaces.as_ref())
        {
            replaced.extend(self.store.rows_with_id(id).await?);
        }
        Ok(replaced)
    }

    /// Jobs whose recorded locks are held. Through a view the keys of locks cannot be told, because they are those of its
    /// table.
    async fn held_jobs(
        &self,
        records: &BTreeMap<JobId, JobRecord>,
    ) -> Result<BTreeSet<JobId>, DatabaseError> {
        let keys: Vec<i64> = records.values().map(|record| record.lock_key).collect();
        let held = presence::held_keys(self.store.session(), &keys).await?;
        let jobs = records.iter();
        let jobs = jobs.filter(|(_, record)| held.contains(&record.lock_key));
        Ok(jobs.map(|(id, _)| id.clone()).collect())
    }

    async fn failures(
        &self,
        problems: &mut Vec<String>,
    ) -> Result<Option<FailuresSummary>, DatabaseError> {
        let mut summary = FailuresSummary::default();
        match self
            .store
            .summarize_failures(&mut summary, MAX_FAILURES)
            .await
        {
            Ok(()) => Ok(Some(summary)),
            Err(error) => match error.into_transient() {
                Ok(error) => Err(error),
                Err(error) => {
                    problems.push(format!("the failures table is not shown: {error}"));
                    Ok(None)
                }
            },
        }
    }

    /// Asks each target database once, for all of its jobs.
    async fn ask_targets(
        &self,
        rows: &[JobRow],
        records: &BTreeMap<JobId, JobRecord>,
        counting: Counting,
        problems: &mut Vec<String>,
    ) -> BTreeMap<JobId, TargetFacts> {
        let mut by_database: BTreeMap<String, (ConnectionString, Vec<&JobRow>)> = BTreeMap::new();
        for row in rows.iter().filter(|row| !row.canceled) {
            match self.target(row) {
                Ok(Some(database)) => {
                    let entry = by_database.entry(database.to_string());
                    entry.or_insert((database, Vec::new())).1.push(row);
                }
                Ok(None) => {}
                Err(error) => problems.push(format!("job {}: {error}", row.id)),
            }
        }
        let asked = by_database
            .into_values()
            .map(|(database, rows)| async move {
                let facts = self.ask_target(&database, &rows, records, counting);
                match timeout(TARGET_TIMEOUT, facts).await {
                    Ok(Ok(facts)) => Ok(facts),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!(
                        "{database} has not answered within {} s",
                        TARGET_TIMEOUT.as_secs()
                    )),
                }
            });
        let mut all = BTreeMap::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(facts) => all.extend(facts),
                Err(problem) => problems.push(problem),
            }
        }
        all
    }

    /// Where the rows of the job are; `None` if its row does not show it to this role.
    fn target(&self, row: &JobRow) -> Result<Option<ConnectionString>, String> {
        if self.target.is_some() {
            return Ok(self.target.clone());
        }
        if !self.store.table().may_read_connections() || row.definition.db_connection.is_empty() {
            return Ok(None);
        }
        let database = target_database::from_definition(&row.definition, &self.access);
        database.map(Some).map_err(|error| error.to_string())
    }

    async fn ask_target(
        &self,
        database: &ConnectionString,
        rows: &[&JobRow],
        records: &BTreeMap<JobId, JobRecord>,
        counting: Counting,
    ) -> Result<Vec<(JobId, TargetFacts)>, DatabaseError> {
        let session = Session::open(&database.named("status")).await?;
        let states = slot_states(&session).await?;
        let mut all = Vec::new();
        for row in rows {
            let recorded = records.get(&row.id).and_then(|record| record.slot.as_ref());
            let definition = written_definition(&session, row).await?;
            let facts = TargetFacts {
                slot: SlotNow::Shown(self.slot(&states, row, recorded)),
                coverage: coverage::of_job(&session, &definition, counting).await?,
            };
            all.push((row.id.clone(), facts));
        }
        Ok(all)
    }

    /// The slot that the job reads: the one that its daemon has recorded, or else its own, or the shared one.
    fn slot(
        &self,
        states: &BTreeMap<String, SlotState>,
        row: &JobRow,
        recorded: Option<&SlotRecord>,
    ) -> Option<SlotRecord> {
        let identity = self.store.table().identity();
        let recorded = recorded.and_then(|slot| slot.name.parse::<SlotName>().ok());
        let mut names = recorded.into_iter().chain([
            names::own_slot(identity, row),
            names::shared_slot(identity, None, &row.definition),
        ]);
        let found = names.find_map(|name| {
            let state = states.get(name.as_str())?;
            Some((name, state))
        });
        let (name, state) = found?;
        Some(SlotRecord {
            name: name.to_string(),
            wal_status: state.wal_status,
            retained_bytes: state.retained.bytes,
            lag_bytes: state.retained.unconfirmed,
            confirmed_lsn: state.confirmed.to_string(),
        })
    }
}
