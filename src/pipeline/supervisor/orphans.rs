//! Slots of jobs whose rows were deleted, or made into other jobs, while no daemon ran.
//!
//! Nobody saw that, so the slots are looked for when a daemon starts: in the jobs database and in each target database that
//! its table names, those that carry the table's identity and belong to no row. The slots are listed first and the rows read
//! after that: a slot is younger than its row, so a row that is missing then was deleted.

use std::collections::BTreeMap;

use crate::jobs::JobRow;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::target_database;
use crate::pipeline::slot::catalog::unused_names;
use crate::pipeline::slot::names;
use crate::postgres::{AllowedHosts, ConnectionString, DatabaseError, Session};
use crate::replication::SlotName;

/// A slot in a target database that may belong to nobody.
pub struct Candidate {
    database: ConnectionString,
    pub name: SlotName,
}

/// The slots with the jobs table's identity that nobody reads from, in the jobs database and all the databases of these jobs.
/// A database that is out of reach is passed over.
pub async fn candidates(
    jobs_database: ConnectionString,
    jobs_table: u32,
    rows: Vec<JobRow>,
    allowed: &AllowedHosts,
) -> Vec<Candidate> {
    let databases: BTreeMap<String, ConnectionString> = rows
        .iter()
        .filter_map(|row| target_database::from_definition(&row.definition, allowed).ok())
        .chain([jobs_database])
        .map(|database| (database.to_string(), database.named("leftover slots")))
        .collect();
    let mut found = Vec::new();
    for database in databases.into_values() {
        match idle_slots(&database, &names::name_prefix(jobs_table)).await {
            Ok(names) => {
                found.extend(names.into_iter().map(|name| Candidate {
                    database: database.clone(),
                    name,
                }));
            }
            Err(error) => tracing::debug!("not looked for leftover slots: {error}"),
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

/// Removes the slot and the publication of that name, or says why not.
pub async fn remove(candidate: &Candidate) {
    let name = &candidate.name;
    match attempt(candidate).await {
        Ok(true) => tracing::info!(
            "removed slot and publication {name}, which no row of the jobs table asks for"
        ),
        // Two connection strings may lead to the same database.
        Ok(false) => {}
        Err(error) => tracing::warn!("slot and publication {name} may be left behind: {error}"),
    }
}

async fn attempt(candidate: &Candidate) -> Result<bool, JobError> {
    let session = Session::open(&candidate.database).await?;
    drop_slot_and_publication(&session, &candidate.name).await
}
