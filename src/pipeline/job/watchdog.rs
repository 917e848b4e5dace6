//! The questions about a table that are asked each second while its job streams.
//!
//! - **Does the publication harm the table's users?** UPDATE of a table that is published with its updates fails where it has
//!   no replica identity (PostgreSQL manual, "Publication"). A user may drop the key at any time; then the job fails, and
//!   its publication is dropped.
//! - **Does the publication still serve the job?** Servers from 18 on leave out what a missing publication would have
//!   published, without an error. Then the job starts again and scans.
//! - **Do write-backs still fit?** They cast to the types of the key and the destination.
//! - **Has a partition been attached with rows in it?** No change brings those rows.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::pipeline::backfill::partitions::Partitions;
use crate::pipeline::capture::subscription::Subscription;
use crate::pipeline::error::JobError;
use crate::pipeline::table::target::{KeyColumn, TargetTable};
use crate::postgres::{DatabaseError, Session};

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A table and what belongs to it.
#[derive(Clone, Copy)]
pub struct WatchedTable<'a> {
    /// The table as it was when the attempt began.
    pub target: &'a TargetTable,
    /// The publication that the job streams from.
    pub publication: &'a str,
    /// Knows what the publication must be like.
    pub subscription: &'a Subscription,
    /// The partitions that the job knows.
    pub partitions: &'a Partitions,
}

/// Returns when the attempt has to end: see the head of this file, or when the database cannot be asked.
///
/// Shares the session of the write-backs. A question that falls into an aborted transaction is asked again the next time.
///
/// Cancellation safe.
pub async fn watch(session: Arc<Session>, watched: WatchedTable<'_>) -> JobError {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        match find_fault(&session, watched).await {
            Ok(None) => {}
            Ok(Some(error)) => return error,
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
    }
}

async fn find_fault(
    session: &Session,
    watched: WatchedTable<'_>,
) -> Result<Option<JobError>, DatabaseError> {
    let WatchedTable {
        target,
        publication,
        subscription,
        partitions,
    } = watched;
    match table_state(session, target).await? {
        TableState::Unchanged => {}
        TableState::IdentityLost => return Ok(Some(JobError::permanent(target.lost_identity()))),
        TableState::Retyped => {
            return Ok(Some(JobError::Transient(format!(
                "the key or the destination of {} has another type now; the job reads the table's definition again",
                target.qualified()
            ))));
        }
    }
    let defect = subscription
        .find_defect(session, publication, target)
        .await?;
    if let Some(defect) = defect {
        let reason = format!("the publication {publication} {defect}");
        return Ok(Some(JobError::Transient(reason)));
    }
    let attached = partitions
        .attached_with_rows(session, target, subscription.slot())
        .await?;
    Ok(attached.map(|name| {
        JobError::Transient(format!("the partition {name} was attached with rows in it"))
    }))
}

/// What has become of a table since the attempt began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableState {
    Unchanged,
    /// Columns of the key or the destination have other types.
    Retyped,
    /// The key is no longer the replica identity: UPDATE of the published table may fail.
    IdentityLost,
}

async fn table_state(session: &Session, table: &TargetTable) -> Result<TableState, DatabaseError> {
    let failed = || DatabaseError::during("checking the replica identity");
    let question = session.repeated(TABLE_STATE).await.map_err(failed())?;
    let row = session
        .query_opt(&question, &[&table.oid, &table.destination.name])
        .await
        .map_err(failed())?;
    // A dropped table or destination harms no user; the stream or the next write-back reports it.
    let Some(row) = row else {
        return Ok(TableState::Unchanged);
    };
    let identity = row.get::<_, i8>(0).cast_unsigned();
    let (names, types): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
    let destination: Option<String> = row.get(3);

    let mut key: Vec<&KeyColumn> = table.key.iter().collect();
    key.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let can_be_published = match identity {
        // A table that was not FULL is published with a column list, which FULL does not allow.
        b'f' => table.identity_full,
        b'd' | b'i' => true,
        _ => false,
    };
    if !can_be_published || !names.iter().eq(key.iter().map(|column| &column.name)) {
        return Ok(TableState::IdentityLost);
    }
    let is_retyped = !types.iter().eq(key.iter().map(|column| &column.type_name))
        || destination.is_some_and(|declared| declared != table.destination.type_name);
    Ok(match is_retyped {
        true => TableState::Retyped,
        false => TableState::Unchanged,
    })
}

/// The replica identity of a table, the names and types of its columns in the order of their names, and the type of the
/// destination. `relreplident` and `indisreplident` are those of `pg_class` and `pg_index`.
const TABLE_STATE: &str = "SELECT c.relreplident, k.names, k.types, \
            (SELECT format_type(d.atttypid, d.atttypmod) FROM pg_attribute d WHERE d.attrelid = c.oid AND d.attname = $2) \
     FROM pg_class c CROSS JOIN LATERAL ( \
       SELECT COALESCE(array_agg(a.attname::text ORDER BY a.attname), '{}') AS names, \
              COALESCE(array_agg(format_type(a.atttypid, -1) ORDER BY a.attname), '{}') AS types \
       FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, position) \
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
       WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.position <= i.indnkeyatts \
         AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END) k \
     WHERE c.oid = $1";
