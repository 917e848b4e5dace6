//! Orphans: slots and publications that belong to no job, because its row was deleted or changed while no daemon ran.
//!
//! Slots of another identity are reported and left alone: they may be those of another jobs table, or of this one
//! before it was renamed or moved.
//!
//! A daemon searches for them once, when it starts. It looks in the jobs database and in each target database of the
//! jobs table for names with the table's identity that no row accounts for. The slots are listed first and the rows
//! read afterwards. A slot is created after its row, so a slot whose row is missing then is an orphan.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::timeout;

use crate::jobs::definition::JobRow;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::target_database;
use crate::pipeline::slot::catalog::{IdleSlot, idle_slots_of_others, unused_names};
use crate::pipeline::slot::names;
use crate::pipeline::supervisor::teardown::ATTEMPT_TIMEOUT;
use crate::postgres::quote::identifier;
use crate::postgres::{ConnectionString, DatabaseError, JobAccess, ServerInstance, Session};
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
    access: &JobAccess,
) -> Vec<ConnectionString> {
    let databases: BTreeMap<String, ConnectionString> = rows
        .iter()
        .filter_map(|row| target_database::from_definition(&row.definition, access).ok())
        .chain([jobs_database.clone()])
        .map(|database| (database.to_string(), database.named("leftover slots")))
        .collect();
    databases.into_values().collect()
}

/// Whose slots are searched for.
pub struct Search {
    /// The jobs table, quoted.
    pub table: String,
    /// Its identity.
    pub identity: u32,
    /// The server that has it.
    pub jobs_server: ServerInstance,
}

/// Lists the slots with the jobs table's identity that have no reader. Skips databases that cannot be reached.
pub async fn candidates(databases: Vec<ConnectionString>, search: Search) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut strangers = BTreeSet::new();
    for database in databases {
        match timeout(ATTEMPT_TIMEOUT, idle_slots(&database, &search)).await {
            Ok(Ok(Idle { names, others })) => {
                for stranger in others {
                    // Two connection strings may lead to the same database.
                    if strangers.insert(stranger.clone()) {
                        report_stranger(&stranger, &search.table);
                    }
                }
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

/// Slots that no daemon reads.
struct Idle {
    /// Slots and publications with the identity of the jobs table.
    names: Vec<SlotName>,
    /// Slots of another identity.
    others: Vec<IdleSlot>,
}

async fn idle_slots(database: &ConnectionString, search: &Search) -> Result<Idle, DatabaseError> {
    let session = Session::open(database).await?;
    let prefix = names::name_prefix(search.identity);
    // In a physical copy of the jobs database the original's slots seem to be ours.
    let is_copy = ServerInstance::of(&session)
        .await?
        .is_copy_of(search.jobs_server);
    let names = match is_copy {
        true => Vec::new(),
        false => unused_names(&session, &prefix).await?,
    };
    Ok(Idle {
        names,
        others: idle_slots_of_others(&session, &prefix).await?,
    })
}

fn report_stranger(slot: &IdleSlot, table: &str) {
    let IdleSlot {
        name,
        database,
        retained,
    } = slot;
    tracing::warn!(
        "the replication slot {name} in the database {database} is of no job in {table}, no daemon reads it, and it \
         retains {retained} of WAL. Where another daemon of lantern-cli uses it, start that one. Where this jobs table \
         had another name, schema or database before, the slot was left behind: drop it with SELECT \
         pg_drop_replication_slot('{name}'); and, in that database, DROP PUBLICATION IF EXISTS {}; or name the table \
         back to keep it",
        identifier(name)
    );
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
