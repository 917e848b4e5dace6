//! Replication slots over an SQL session: looking them up, creating, freeing and dropping them.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::lsn::Lsn;
use super::slot::SlotName;

/// A slot as `pg_replication_slots` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The walsender that reads from it now.
    pub active_pid: Option<i32>,
    pub confirmed_flush: Option<Lsn>,
    /// False where the server gave up the WAL that the slot needs, or the slot is not ours to use (other plugin or
    /// database).
    pub usable: bool,
}

/// Looks a slot up.
pub async fn find(client: &Client, name: &SlotName) -> Result<Option<Slot>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "SELECT active_pid, confirmed_flush_lsn::text, \
                    slot_type = 'logical' AND plugin = 'pgoutput' AND database = current_database() \
                    AND COALESCE(wal_status, 'reserved') <> 'lost' AND confirmed_flush_lsn IS NOT NULL \
             FROM pg_replication_slots WHERE slot_name = $1",
            &[&name.as_str()],
        )
        .await?;
    Ok(row.map(|row| Slot {
        active_pid: row.get(0),
        confirmed_flush: row
            .get::<_, Option<String>>(1)
            .and_then(|lsn| lsn.parse().ok()),
        usable: row.get(2),
    }))
}

/// The WAL that a slot keeps on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack {
    /// From `restart_lsn` to now, in bytes: what the server may not remove.
    pub bytes: u64,
    /// From `confirmed_flush_lsn` to now, in bytes: the reader's share. All of it for a slot that is still being made.
    pub unconfirmed: u64,
    pub restart: Lsn,
}

/// How much WAL the slot holds back; `None` where it does not exist or the server has given it up. Cheap: reads shared
/// memory only.
///
/// # Errors
/// The server's, such as that it is a standby.
pub async fn held_back(
    client: &Client,
    name: &SlotName,
) -> Result<Option<HeldBack>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "SELECT pg_wal_lsn_diff(now, restart_lsn)::bigint, \
                    pg_wal_lsn_diff(now, COALESCE(confirmed_flush_lsn, restart_lsn))::bigint, restart_lsn::text \
             FROM pg_replication_slots, pg_current_wal_lsn() AS now \
             WHERE slot_name = $1 AND restart_lsn IS NOT NULL AND COALESCE(wal_status, 'reserved') <> 'lost'",
            &[&name.as_str()],
        )
        .await?;
    // A confirmed position may lie ahead of what is written out: nothing is held back then.
    let bytes = |distance: i64| u64::try_from(distance).unwrap_or(0);
    Ok(row.and_then(|row| {
        Some(HeldBack {
            bytes: bytes(row.get(0)),
            unconfirmed: bytes(row.get(1)),
            restart: row.get::<_, String>(2).parse().ok()?,
        })
    }))
}

/// What begins with `prefix` in this database and nobody uses: slots that nobody reads from, and publications without a slot.
///
/// # Errors
/// The server's.
pub async fn idle_with_prefix(
    client: &Client,
    prefix: &str,
) -> Result<Vec<SlotName>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT slot_name::text FROM pg_replication_slots \
             WHERE starts_with(slot_name::text, $1) AND database = current_database() AND active_pid IS NULL \
             UNION SELECT pubname::text FROM pg_publication \
             WHERE starts_with(pubname::text, $1) AND pubname NOT IN (SELECT slot_name FROM pg_replication_slots)",
            &[&prefix],
        )
        .await?;
    Ok(rows
        .iter()
        .filter_map(|row| row.get::<_, &str>(0).parse().ok())
        .collect())
}

/// Creates a logical slot for pgoutput. The server waits until every transaction that is open now has ended.
///
/// Cancellation: a dropped future leaves the statement running on the server until its session closes, and the server
/// then removes the unfinished slot; close the session.
pub async fn create(client: &Client, name: &SlotName) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "SELECT pg_create_logical_replication_slot($1, 'pgoutput')",
            &[&name.as_str()],
        )
        .await
        .map(|_| ())
}

/// Ends the walsender that still holds the slot, such as one whose client vanished behind a network cut.
pub async fn free(client: &Client, name: &SlotName) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL",
            &[&name.as_str()],
        )
        .await
        .map(|_| ())
}

/// Drops the slot if it exists.
///
/// # Errors
/// `object_in_use` while a walsender still reads from it (see [`free`]), and the server's others.
pub async fn drop(client: &Client, name: &SlotName) -> Result<(), tokio_postgres::Error> {
    let dropped = client
        .execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            &[&name.as_str()],
        )
        .await;
    match dropped {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
        other => other.map(|_| ()),
    }
}
