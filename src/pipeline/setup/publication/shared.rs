//! The publication and the slot that all jobs of a database share.
//!
//! The publication is created empty, and then the slot. Tables are added and removed while the slot is read. Which jobs
//! have missed nothing is in the publication's comment ([`members`](super::members)); every change of it goes through
//! [`edit`](super::edit).
//!
//! ```text
//! create          CREATE PUBLICATION (no tables) ─▶ slot
//! add_member      LOCK TABLE ─▶ ALTER PUBLICATION ADD TABLE ─▶ record with `since`      one transaction
//! remove_member   ALTER PUBLICATION DROP TABLE ─▶ records without it                    one transaction
//!                 the last member: DROP PUBLICATION ─▶ drop the slot
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::preflight::server::check_free_slot;
use crate::pipeline::setup::publication::catalog::{
    NO_TABLE, Publication, column_list, drop_statement, find_publication,
};
use crate::pipeline::setup::publication::check::{find_mismatch, listed_columns};
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::edit::{
    END_OF_WAL, THIS_TRANSACTION, comment_statement, edit, run,
};
use crate::pipeline::setup::publication::members::{MembershipRecord, MembershipRecords};
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::create::{NewSlot, create_slot};
use crate::pipeline::slot::drop::drop_slot;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::replication::pgoutput::RelationId;
use crate::replication::{Lsn, SlotName};

/// How often an edit is tried that other sessions were faster with.
const MAX_ATTEMPTS: u32 = 200;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);

/// Creates publication and slot, without members, in place of those that exist.
///
/// # Errors
/// Permanent ones with a remedy, and a transient one for a slot that has held back more WAL than its limit before it
/// was ready.
///
/// Cancellation: as [`create_slot`]. The next call replaces what is half done.
pub async fn create(session: &Session, slot: &NewSlot<'_>) -> Result<(), JobError> {
    let name = &slot.watched.slot;
    // The publication goes first: its records must not outlive the slot that they speak of.
    run(session, &drop_statement(name.as_str())).await?;
    drop_slot(session, name).await?;
    check_free_slot(session).await?;
    let statement = format!(
        "CREATE PUBLICATION {} WITH (publish = 'insert, update', publish_via_partition_root = true)",
        identifier(name.as_str())
    );
    run(session, &statement).await?;
    failpoint::reach("between-publication-and-slot");
    create_slot(session, slot).await?;
    failpoint::reach("slot-created");
    Ok(())
}

/// Whether the slot can be read from, and the publication publishes what members need.
///
/// # Errors
/// The server's.
pub async fn is_usable(session: &Session, name: &SlotName) -> Result<bool, DatabaseError> {
    let slot = find_slot(session, name).await?;
    let publication = find_publication(session, name.as_str(), NO_TABLE).await?;
    Ok(slot.is_some_and(|slot| slot.usable)
        && publication.is_some_and(|found| found.inserts && found.updates && found.via_root))
}

/// Why the member cannot continue from the shared slot, as the rest of a sentence; `None` if it has missed nothing.
///
/// # Errors
/// The server's.
pub async fn find_defect(
    session: &Session,
    name: &SlotName,
    id: &MemberId,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    let Some(found) = find_publication(session, name.as_str(), target.oid).await? else {
        return Ok(Some("was dropped".into()));
    };
    if let Some(mismatch) = find_mismatch(&found, target) {
        return Ok(Some(mismatch));
    }
    let records = MembershipRecords::parse(found.comment.as_deref());
    let is_valid =
        |record: &MembershipRecord| record.table == target.oid && record.version == found.version;
    if !records.get(id).is_some_and(is_valid) {
        return Ok(Some("was altered or recreated".into()));
    }
    let related = related_table(session, name, target).await?;
    Ok(related.map(|other| format!("publishes its rows as those of {other}")))
}

/// Publishes the member's table, if it is not published yet, and records the membership. Returns the position from
/// which on the stream has every change of the table.
///
/// When this is done, every transaction that wrote the table has ended, and the changes of every later one are in the
/// stream. So a scan that begins afterwards sees everything that the stream does not have. That needs SHARE ROW
/// EXCLUSIVE, which keeps writers out for a moment (PostgreSQL manual, "Explicit Locking"). ALTER PUBLICATION itself
/// takes a weaker lock, and with that, servers before 14.18, 15.13, 16.9 and 17.5 also leave out changes of
/// transactions that are open at that moment (fixed in `SnapBuildDistributeSnapshotAndInval`, `snapbuild.c`).
///
/// # Errors
/// Permanent ones with the remedy, and a transient one if the lock is not available.
///
/// Cancellation safe: the member is added completely, or not at all.
pub async fn add_member(
    session: &Session,
    name: &SlotName,
    id: &MemberId,
    target: &TargetTable,
) -> Result<Lsn, JobError> {
    if let Some(other) = related_table(session, name, target).await? {
        return Err(JobError::permanent(format!(
            "one of {table} and {other} is a partition of the other, and both have jobs; with one slot for all \
             (--slots database) changes come as those of the upper one alone: cancel one of the jobs, or run the daemon with \
             --slots job",
            table = target.qualified()
        )));
    }
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_BACKOFF);
    for _ in 0..MAX_ATTEMPTS {
        let found = find_publication(session, name.as_str(), target.oid).await?;
        let found = found
            .ok_or_else(|| JobError::Transient(format!("the publication {name} was dropped")))?;
        let columns = columns_to_publish(&found, target, listed_columns(session, target));
        let changes = addition(name, id, target, &found, columns);
        if edit(session, name, target.oid, &found, &changes).await? {
            return member_since(session, name, id).await;
        }
        backoff.wait().await;
    }
    Err(too_many_edits(name))
}

/// The statements that add a member.
fn addition(
    name: &SlotName,
    id: &MemberId,
    target: &TargetTable,
    found: &Publication,
    columns: Option<Vec<String>>,
) -> String {
    let table = target.from_clause();
    let mut changes = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;");
    let mut version = found.version.clone();
    if !found.has_table || columns != found.columns {
        changes += &publish_table(name, &table, found.has_table, columns.as_deref());
        version = version_with_this_table(found);
    }
    let mut records = valid_records(found, target);
    // The other members with this table stay valid: the lock keeps writers out while its entry is replaced.
    records.set_version(target.oid, &version);
    let record = MembershipRecord {
        table: target.oid,
        version,
        since: END_OF_WAL,
    };
    records.insert(id.clone(), record);
    changes + &comment_statement(name, &records)
}

/// The statements that publish these columns of a table. A column list cannot be changed in place.
fn publish_table(
    name: &SlotName,
    table: &str,
    published: bool,
    columns: Option<&[String]>,
) -> String {
    let publication = identifier(name.as_str());
    let add = format!(
        "ALTER PUBLICATION {publication} ADD TABLE {table}{};",
        column_list(columns)
    );
    if published {
        format!("ALTER PUBLICATION {publication} DROP TABLE {table};{add}")
    } else {
        add
    }
}

/// The version that the publication has for a table that this transaction adds. The row of the publication itself
/// stays.
fn version_with_this_table(found: &Publication) -> String {
    let publication = found.version.split('/').next().unwrap_or_default();
    format!("{publication}/{THIS_TRANSACTION}")
}

/// The records, without those of the table that prove nothing. Another version must not make them valid again.
fn valid_records(found: &Publication, target: &TargetTable) -> MembershipRecords {
    let mut records = MembershipRecords::parse(found.comment.as_deref());
    records.retain_version(target.oid, &found.version);
    records
}

/// The columns to publish: `listed` for this job, and those that other members with the table may need. `None` for all
/// of them.
fn columns_to_publish(
    found: &Publication,
    target: &TargetTable,
    listed: Option<Vec<String>>,
) -> Option<Vec<String>> {
    let listed = listed?;
    if !found.has_table || !valid_records(found, target).any_on(target.oid) {
        return Some(listed);
    }
    let mut columns = found.columns.clone()?;
    for column in listed {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    Some(columns)
}

/// The position from which on the stream has every change of the member's table.
///
/// # Errors
/// A transient one if there is no record of the member, and the server's.
pub async fn member_since(
    session: &Session,
    name: &SlotName,
    id: &MemberId,
) -> Result<Lsn, JobError> {
    let records = membership_records(session, name).await?;
    records.get(id).map(|record| record.since).ok_or_else(|| {
        JobError::Transient(format!("the publication {name} was altered or recreated"))
    })
}

/// Removes a member. The table goes too if no other member has it, and with the last member the publication and the
/// slot. Returns whether there was something to remove.
///
/// # Errors
/// The server's, and a transient one if other sessions are always faster.
///
/// Cancellation safe: each step can be repeated.
pub async fn remove_member(
    session: &Session,
    name: &SlotName,
    id: &MemberId,
) -> Result<bool, JobError> {
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_BACKOFF);
    for _ in 0..MAX_ATTEMPTS {
        let Some(found) = find_publication(session, name.as_str(), NO_TABLE).await? else {
            // A slot without its publication serves no member.
            return drop_slot_and_publication(session, name).await;
        };
        let mut records = MembershipRecords::parse(found.comment.as_deref());
        let removed = records.remove(id);
        if records.is_empty() {
            let drop = format!("{};", drop_statement(name.as_str()));
            if edit(session, name, NO_TABLE, &found, &drop).await? {
                drop_slot_and_publication(session, name).await?;
                return Ok(true);
            }
        } else {
            let Some(record) = removed else {
                return Ok(false);
            };
            let changes = removal(session, name, record.table, &records).await?;
            if edit(session, name, NO_TABLE, &found, &changes).await? {
                return Ok(true);
            }
        }
        backoff.wait().await;
    }
    Err(too_many_edits(name))
}

/// The statements that leave these records, after the one of a member with this table was removed.
async fn removal(
    session: &Session,
    name: &SlotName,
    table: u32,
    records: &MembershipRecords,
) -> Result<String, DatabaseError> {
    let comment = comment_statement(name, records);
    if records.any_on(table) {
        return Ok(comment);
    }
    Ok(match published_table(session, name, table).await? {
        Some(table) => {
            let publication = identifier(name.as_str());
            format!("ALTER PUBLICATION {publication} DROP TABLE {table};{comment}")
        }
        None => comment,
    })
}

/// Removes the members that are not in `known`: their rows were deleted from the jobs table while no daemon ran.
///
/// # Errors
/// As [`remove_member`].
pub async fn remove_deleted_members(
    session: &Session,
    name: &SlotName,
    known: &BTreeSet<MemberId>,
) -> Result<(), JobError> {
    let records = membership_records(session, name).await?;
    for (id, _) in records.iter().filter(|(id, _)| !known.contains(id)) {
        tracing::info!("removing the member {id} of the publication {name}: its job was deleted");
        remove_member(session, name, id).await?;
    }
    Ok(())
}

/// All members, with their tables.
///
/// # Errors
/// The server's.
pub async fn members(
    session: &Session,
    name: &SlotName,
) -> Result<Vec<(MemberId, RelationId)>, DatabaseError> {
    let records = membership_records(session, name).await?;
    let members = records.iter();
    Ok(members
        .map(|(id, record)| (id.clone(), RelationId(record.table)))
        .collect())
}

/// The records in the publication's comment; none where there is no publication.
///
/// # Errors
/// The server's.
pub async fn membership_records(
    session: &Session,
    name: &SlotName,
) -> Result<MembershipRecords, DatabaseError> {
    let found = find_publication(session, name.as_str(), NO_TABLE).await?;
    let comment = found.and_then(|found| found.comment);
    Ok(MembershipRecords::parse(comment.as_deref()))
}

/// Another published table that is a partition of this one, or that this one is a partition of. With
/// `publish_via_partition_root` the changes of both come as those of the upper one.
async fn related_table(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    let row = session
        .query_opt(
            "SELECT r.prrelid::regclass::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
             WHERE p.pubname = $1 AND r.prrelid <> $2 \
               AND (r.prrelid IN (SELECT relid::oid FROM pg_partition_ancestors($2::oid::regclass) AS a(relid)) \
                 OR $2 IN (SELECT relid::oid FROM pg_partition_ancestors(r.prrelid::regclass) AS a(relid))) LIMIT 1",
            &[&name.as_str(), &target.oid],
        )
        .await
        .map_err(DatabaseError::during("looking for partitions"))?;
    Ok(row.map(|row| row.get(0)))
}

/// The name of a published table, quoted.
async fn published_table(
    session: &Session,
    name: &SlotName,
    oid: u32,
) -> Result<Option<String>, DatabaseError> {
    let row = session
        .query_opt(
            "SELECT r.prrelid::regclass::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
             WHERE p.pubname = $1 AND r.prrelid = $2",
            &[&name.as_str(), &oid],
        )
        .await
        .map_err(DatabaseError::during("looking for a published table"))?;
    Ok(row.map(|row| row.get(0)))
}

fn too_many_edits(name: &SlotName) -> JobError {
    JobError::Transient(format!(
        "the publication {name} could not be changed: other sessions changed it first, {MAX_ATTEMPTS} times"
    ))
}
