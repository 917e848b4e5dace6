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

use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::preflight::server::check_free_slot;
use crate::pipeline::setup::publication::catalog::{
    GENERATED_COLUMNS_SINCE, NO_TABLE, PUBLISH_STORED, drop_statement, find_publication,
    related_table,
};
use crate::pipeline::setup::publication::check::{Defect, find_mismatch};
use crate::pipeline::setup::publication::edit::run;
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

/// Creates publication and slot, without members, in place of those that exist.
///
/// # Errors
/// Permanent ones with a remedy, and a transient one for a slot that has retained more WAL than its limit before it
/// was ready.
///
/// Cancellation: as [`create_slot`]. The next call replaces what is half done.
pub async fn create(session: &Session, slot: &NewSlot<'_>) -> Result<(), JobError> {
    let name = &slot.watched.slot;
    // The publication goes first: its records must not outlive the slot that they speak of.
    run(session, &drop_statement(name.as_str())).await?;
    drop_slot(session, name).await?;
    check_free_slot(session, &[]).await?;
    let stored = match session.version() >= GENERATED_COLUMNS_SINCE {
        true => PUBLISH_STORED,
        false => "",
    };
    let statement = format!(
        "CREATE PUBLICATION {} WITH (publish = 'insert, update', publish_via_partition_root = true{stored})",
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

/// Why the member cannot continue from the shared slot; `None` if it has missed nothing.
///
/// # Errors
/// The server's.
pub async fn find_defect(
    session: &Session,
    name: &SlotName,
    id: &MemberId,
    target: &TargetTable,
) -> Result<Option<Defect>, DatabaseError> {
    let Some(found) = find_publication(session, name.as_str(), target.oid).await? else {
        return Ok(Some(Defect::from("was dropped".to_owned())));
    };
    if let Some(mismatch) = find_mismatch(&found, target) {
        return Ok(Some(mismatch));
    }
    let records = MembershipRecords::parse(found.comment.as_deref());
    let is_valid =
        |record: &MembershipRecord| record.table == target.oid && found.is_version(&record.version);
    if !records.get(id).is_some_and(is_valid) {
        return Ok(Some(Defect::from("was altered or recreated".to_owned())));
    }
    let related = related_table(session, name, target).await?;
    Ok(related.map(|other| Defect::from(format!("publishes its rows as those of {other}"))))
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
