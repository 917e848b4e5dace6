//! Orphans: slots and publications that belong to no job, because its row was deleted or changed while no daemon ran.
//!
//! A daemon searches for them once, when it starts. It looks in the jobs database and in each target database of the
//! jobs table for names with the table's identity that no row accounts for. The slots are listed first and the rows
//! read afterwards. A slot is created after its row, so a slot whose row is missing then is an orphan.

use std::collections::BTreeMap;

use tokio::time::timeout;

use crate::jobs::definition::JobRow;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::target_database;
use crate::pipeline::slot::catalog::unused_names;
use crate::pipeline::slot::names;
use crate::pipeline::supervisor::teardown::ATTEMPT_TIMEOUT;
use crate::postgres::{AllowedHosts, ConnectionString, DatabaseError, Session};
use crate::replication::SlotName;

/// A slot, or a publication without a slot, that may belong to no job.
pub struct Candidate {
    database: ConnectionString,
    /// Its name.
    pub name: SlotName,
}

/// The databases to search: the jobs database, and the target databases of these jobs.
pub fn databases(
    jobs_database: &ConnectionString,
    rows: &[JobRow],
    allowed: &AllowedHosts,
) -> Vec<ConnectionString> {
    let databases: BTreeMap<String, ConnectionString> = rows
        .iter()
        .filter_map(|row| target_database::from_definition(&row.definition, allowed).ok())
        .chain([jobs_database.clone()])
        .map(|database| (database.to_string(), database.named("leftover slots")))
        .collect();
    databases.into_values().collect()
}

/// Lists the slots with the jobs table's identity that have no reader. Skips databases that cannot be reached.
pub async fn candidates(databases: Vec<ConnectionString>, jobs_table: u32) -> Vec<Candidate> {
    let prefix = names::name_prefix(jobs_table);
    let mut found = Vec::new();
    for database in databases {
        match timeout(ATTEMPT_TIMEOUT, idle_slots(&database, &prefix)).await {
            Ok(Ok(names)) => {
                found.extend(names.into_iter().map(|name| Candidate {
                    database: database.clone(),
                    name,
                }));
            }
            Ok(Err(error)) => tracing::debug!("not searched for orphaned slots: {error}"),
            Err(_) => tracing::debug!("not searched for orphaned slots: no answer of {database}"),
        }
    }
    found
}

async fn idle_slots(
    database: &ConnectionString,
    prefix: &str,
) -> Result<Vec<SlotName>, DatabaseError> {
    let session = Session::open(database).await?;
    unused_names(&session, prefix).await
}

/// Removes the slot and the publication of that name. Logs the reason if that is not possible.
pub async fn remove(candidate: &Candidate) {
    let name = &candidate.name;
    match timeout(ATTEMPT_TIMEOUT, attempt(candidate)).await {
        Ok(Ok(true)) => tracing::info!(
            "removed slot and publication {name}: no row of the jobs table accounts for them"
        ),
        // Two connection strings may lead to the same database.
        Ok(Ok(false)) => {}
        Ok(Err(error)) => {
            tracing::warn!("slot and publication {name} may be left behind: {error}");
        }
        Err(_) => tracing::warn!(
            "slot and publication {name} may be left behind: no answer of {}",
            candidate.database
        ),
    }
}

async fn attempt(candidate: &Candidate) -> Result<bool, JobError> {
    let session = Session::open(&candidate.database).await?;
    drop_slot_and_publication(&session, &candidate.name).await
}
