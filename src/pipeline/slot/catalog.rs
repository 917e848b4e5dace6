//! SQL over `pg_replication_slots` (PostgreSQL manual, "System Views").

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::postgres::answer::{all, columns};
use crate::postgres::{DatabaseError, Session};
use crate::replication::{Lsn, SlotName};
use crate::status::lag::WalStatus;

/// A slot as `pg_replication_slots` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The process of the walsender that reads from it.
    pub active_pid: Option<i32>,
    /// Where the stream continues: everything before was confirmed.
    pub confirmed_flush: Option<Lsn>,
    /// Whether this database can be streamed from it with pgoutput. False for a slot whose WAL the server has removed
    /// (`wal_status` is `lost`) or whose creation has not finished (`confirmed_flush_lsn` is NULL).
    pub usable: bool,
}

/// Reads a slot; `None` if there is none of this name.
///
/// # Errors
/// The server's.
pub async fn find_slot(client: &Client, name: &SlotName) -> Result<Option<Slot>, DatabaseError> {
    let slot: Option<(_, Option<String>, _)> = client
        .query_opt(
            "SELECT active_pid, confirmed_flush_lsn::text, \
                    slot_type = 'logical' AND plugin = 'pgoutput' AND database = current_database() \
                    AND COALESCE(wal_status, 'reserved') <> 'lost' AND confirmed_flush_lsn IS NOT NULL \
             FROM pg_replication_slots WHERE slot_name = $1",
            &[&name.as_str()],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during(format!("looking for the replication slot {name}")))?;
    Ok(slot.map(|(active_pid, confirmed, usable)| Slot {
        active_pid,
        confirmed_flush: confirmed.and_then(|lsn| lsn.parse().ok()),
        usable,
    }))
}

/// How much WAL a slot retains on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedWal {
    /// From `restart_lsn` to the end of the WAL, in bytes: what the server may not remove.
    pub bytes: u64,
    /// From `confirmed_flush_lsn` to the end of the WAL, in bytes: what the reader has yet to confirm. Equal to `bytes`
    /// while the slot is being created.
    pub unconfirmed: u64,
    /// `restart_lsn`.
    pub restart: Lsn,
}

/// The WAL of a slot, and where its stream continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// How much WAL it retains.
    pub retained: RetainedWal,
    /// `wal_status`.
    pub wal_status: WalStatus,
    /// `confirmed_flush_lsn`; `restart_lsn` while the slot is being created.
    pub confirmed: Lsn,
    /// What time it is on the server.
    pub server_time: SystemTime,
}

/// The server looks at all slots, whichever of them is asked for.
const SLOT_STATES: &str = "SELECT pg_wal_lsn_diff(now, restart_lsn)::bigint, \
                    pg_wal_lsn_diff(now, COALESCE(confirmed_flush_lsn, restart_lsn))::bigint, restart_lsn::text, \
                    COALESCE(confirmed_flush_lsn, restart_lsn)::text, COALESCE(wal_status, 'reserved'), \
                    clock_timestamp(), slot_name::text \
             FROM pg_replication_slots, pg_current_wal_lsn() AS now \
             WHERE slot_type = 'logical' AND restart_lsn IS NOT NULL AND COALESCE(wal_status, 'reserved') <> 'lost'";

/// The columns of [`SLOT_STATES`].
type SlotStateRow = (i64, i64, String, String, String, SystemTime, String);

/// The states of the server's logical slots by name, without those whose WAL is lost. Cheap: the server reads shared memory
/// only.
///
/// # Errors
/// The server's, such as that it is a standby.
pub async fn slot_states(session: &Session) -> Result<BTreeMap<String, SlotState>, DatabaseError> {
    let failed = || DatabaseError::during("reading how much WAL the replication slots retain");
    let question = session.repeated(SLOT_STATES).await.map_err(failed())?;
    let found: Vec<SlotStateRow> = session
        .query(&question, &[])
        .await
        .and_then(|rows| all(&rows))
        .map_err(failed())?;
    Ok(found.into_iter().filter_map(slot_state).collect())
}

fn slot_state(row: SlotStateRow) -> Option<(String, SlotState)> {
    let (retained, unconfirmed, restart, confirmed, status, server_time, name) = row;
    // A confirmed position may be ahead of what the server has written out. Nothing is retained then.
    let bytes = |distance: i64| u64::try_from(distance).unwrap_or(0);
    let state = SlotState {
        retained: RetainedWal {
            bytes: bytes(retained),
            unconfirmed: bytes(unconfirmed),
            restart: restart.parse().ok()?,
        },
        // A server of the future may know further ones.
        wal_status: WalStatus::from_name(&status).unwrap_or(WalStatus::Extended),
        confirmed: confirmed.parse().ok()?,
        server_time,
    };
    Some((name, state))
}

/// Names in this database that begin with `prefix` and are not in use: slots without a reader, and publications without
/// a slot.
///
/// # Errors
/// The server's.
pub async fn unused_names(client: &Client, prefix: &str) -> Result<Vec<SlotName>, DatabaseError> {
    let names: Vec<String> = client
        .query(
            "SELECT slot_name::text FROM pg_replication_slots \
             WHERE starts_with(slot_name::text, $1) AND database = current_database() AND active_pid IS NULL \
             UNION SELECT pubname::text FROM pg_publication \
             WHERE starts_with(pubname::text, $1) AND pubname NOT IN (SELECT slot_name FROM pg_replication_slots)",
            &[&prefix],
        )
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during("looking for leftover slots and publications"))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// A slot of a daemon with another jobs table that nothing reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleSlot {
    /// Its name.
    pub name: String,
    /// Its database.
    pub database: String,
    /// The WAL that it retains, for a person.
    pub retained: String,
}

/// The slots in this database of jobs tables other than that of `prefix` that have no reader.
///
/// # Errors
/// The server's, such as that it is a standby.
pub async fn idle_slots_of_others(
    client: &Client,
    prefix: &str,
) -> Result<Vec<IdleSlot>, DatabaseError> {
    let found = client
        .query(
            "SELECT slot_name::text, database::text, \
                    COALESCE(pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 'an unknown amount') \
             FROM pg_replication_slots \
             WHERE slot_name ~ '^lantern_[0-9a-f]{8}_' AND NOT starts_with(slot_name::text, $1) \
               AND database = current_database() AND active_pid IS NULL ORDER BY slot_name",
            &[&prefix],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during("looking for slots of other jobs tables"))?;
    let slots = found
        .into_iter()
        .map(|(name, database, retained)| IdleSlot {
            name,
            database,
            retained,
        });
    Ok(slots.collect())
}

/// Creates a logical slot for pgoutput. The server waits until every transaction that is open now has ended
/// (`SnapBuildFindSnapshot` in `snapbuild.c`: only then has it seen all changes of each transaction that it will
/// decode).
///
/// Cancellation: a dropped future leaves the statement running on the server until its session closes. The server then
/// removes the unfinished slot. So close the session.
///
/// # Errors
/// The server's.
pub async fn create_logical_slot(client: &Client, name: &SlotName) -> Result<(), DatabaseError> {
    client
        .execute(
            "SELECT pg_create_logical_replication_slot($1, 'pgoutput')",
            &[&name.as_str()],
        )
        .await
        .map_err(DatabaseError::during(format!(
            "creating the replication slot {name}"
        )))?;
    Ok(())
}

/// Ends the walsender that reads from the slot, if there is one.
///
/// # Errors
/// The server's.
pub async fn terminate_reader(client: &Client, name: &SlotName) -> Result<(), DatabaseError> {
    client
        .execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
             WHERE slot_name = $1 AND active_pid IS NOT NULL",
            &[&name.as_str()],
        )
        .await
        .map_err(DatabaseError::during(format!(
            "ending the connection that reads the replication slot {name}"
        )))?;
    Ok(())
}

/// Drops the slot if it exists.
///
/// # Errors
/// `object_in_use` while a walsender reads from it (see [`terminate_reader`]), and the server's others.
pub async fn try_drop_slot(client: &Client, name: &SlotName) -> Result<(), DatabaseError> {
    let dropped = client
        .execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            &[&name.as_str()],
        )
        .await;
    match dropped {
        Ok(_) => Ok(()),
        // Another session has dropped it between the view and the function.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
        Err(error) => Err(DatabaseError::during(format!(
            "dropping the replication slot {name}"
        ))(error)),
    }
}
