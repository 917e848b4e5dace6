//! Keeps a publication from harming its table's owner.
//!
//! A table that is published with its updates must have a replica identity, or each UPDATE of it fails. Nothing stops a
//! user from dropping the key while a job runs, so it is looked at again and again; once it is gone, the job ends and its
//! publication with it.
//!
//! The publication itself is watched too. Servers from 18 on leave out what a missing one would have published, without an
//! error; then the job starts over and embeds every row again.
//!
//! So are the partitions: one that is attached brings rows that no change has brought.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::pipeline::backfill::partitions::Partitions;
use crate::pipeline::capture::subscription::Subscription;
use crate::pipeline::error::JobError;
use crate::pipeline::table::target::KeyColumn;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};

const EVERY: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Clone, Copy)]
pub struct Watched<'a> {
    pub target: &'a TargetTable,
    pub publication: &'a str,
    pub subscription: &'a Subscription,
    pub partitions: &'a Partitions,
}

/// Returns when the table cannot or is not published any more, or has got a partition with rows in it, or its database cannot be asked. Shares the session of the
/// write-backs: a question that falls into an aborted transaction is asked again the next time.
///
/// Cancellation safe.
pub async fn watch(session: Arc<Session>, watched: Watched<'_>) -> JobError {
    loop {
        tokio::time::sleep(EVERY).await;
        match look(&session, watched).await {
            Ok(None) => {}
            Ok(Some(error)) => return error,
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
    }
}

async fn look(session: &Session, watched: Watched<'_>) -> Result<Option<JobError>, DatabaseError> {
    let Watched {
        target,
        publication,
        subscription,
        partitions,
    } = watched;
    match table_state(session, target).await? {
        TableState::Intact => {}
        TableState::Lost => return Ok(Some(JobError::permanent(target.lost_identity()))),
        TableState::Retyped => {
            return Ok(Some(JobError::Transient(format!(
                "key or destination of {} have other types now; the table is looked at anew",
                target.qualified()
            ))));
        }
    }
    if let Some(defect) = subscription.defect(session, publication, target).await? {
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

/// What has become of a table while a job streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableState {
    Intact,
    /// Columns of the key or the destination have other types now, to which write-backs have to cast.
    Retyped,
    /// The key is not the replica identity any more: the user's own updates of the published table may fail.
    Lost,
}

/// Whether the table can still be published without harm, and be written; asked again and again while a job streams.
pub async fn table_state(
    session: &Session,
    table: &TargetTable,
) -> Result<TableState, DatabaseError> {
    let failed = || DatabaseError::during("checking the replica identity");
    let question = session
        .repeated(
            "SELECT c.relreplident, k.names, k.types, \
                    (SELECT format_type(d.atttypid, d.atttypmod) FROM pg_attribute d WHERE d.attrelid = c.oid AND d.attname = $2) \
             FROM pg_class c CROSS JOIN LATERAL ( \
               SELECT COALESCE(array_agg(a.attname::text ORDER BY a.attname), '{}') AS names, \
                      COALESCE(array_agg(format_type(a.atttypid, -1) ORDER BY a.attname), '{}') AS types \
               FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, position) \
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
               WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.position <= i.indnkeyatts \
                 AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END) k \
             WHERE c.oid = $1",
        )
        .await
        .map_err(failed())?;
    let row = session
        .query_opt(&question, &[&table.oid, &table.destination.name])
        .await
        .map_err(failed())?;
    // A dropped table or destination harms nobody; the stream or the next write-back reports it.
    let Some(row) = row else {
        return Ok(TableState::Intact);
    };
    let (names, types): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
    let destination: Option<String> = row.get(3);
    let mut expected: Vec<&KeyColumn> = table.key.iter().collect();
    expected.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let published_without_harm = match row.get::<_, i8>(0) as u8 {
        // Such a table was published without a column list, with which its updates would fail.
        b'f' => table.identity_full,
        b'd' | b'i' => true,
        _ => false,
    };
    let key_is_there = names.iter().eq(expected.iter().map(|column| &column.name));
    if !published_without_harm || !key_is_there {
        return Ok(TableState::Lost);
    }
    let key_types = expected.iter().map(|column| &column.type_name);
    let retyped = !types.iter().eq(key_types)
        || destination.is_some_and(|declared| declared != table.destination.type_name);
    Ok(match retyped {
        true => TableState::Retyped,
        false => TableState::Intact,
    })
}
