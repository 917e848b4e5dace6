//! Removing jobs from a shared publication.

use std::collections::BTreeSet;

use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::catalog::{NO_TABLE, find_publication, published_table};
use crate::pipeline::setup::publication::drop::{drop_script, drop_slot_and_publication};
use crate::pipeline::setup::publication::edit::{Retries, comment_statement, edit};
use crate::pipeline::setup::publication::members::MembershipRecords;
use crate::pipeline::setup::publication::shared::membership_records;
use crate::pipeline::slot::names::MemberId;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

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
    let mut retries = Retries::default();
    loop {
        let Some(found) = find_publication(session, name.as_str(), NO_TABLE).await? else {
            // A slot without its publication serves no member.
            return drop_slot_and_publication(session, name).await;
        };
        let mut records = MembershipRecords::parse(found.comment.as_deref());
        let removed = records.remove(id);
        if records.is_empty() {
            let drop = drop_script(session, name).await?;
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
        retries.wait(name).await?;
    }
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
