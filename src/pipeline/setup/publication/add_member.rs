//! Adding a job to a shared publication.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::catalog::{
    Publication, column_list, find_publication, is_redefined_since_published, related_table,
};
use crate::pipeline::setup::publication::check::listed_columns;
use crate::pipeline::setup::publication::edit::{
    END_OF_WAL, Retries, THIS_TRANSACTION, comment_statement, edit,
};
use crate::pipeline::setup::publication::members::{MembershipRecord, MembershipRecords};
use crate::pipeline::setup::publication::shared::member_since;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::Session;
use crate::postgres::quote::identifier;
use crate::replication::{Lsn, SlotName};

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
        return Err(related_refusal(target, &other));
    }
    let mut retries = Retries::default();
    loop {
        let found = find_publication(session, name.as_str(), target.oid).await?;
        let found = found
            .ok_or_else(|| JobError::Transient(format!("the publication {name} was dropped")))?;
        let listed = listed_columns(session, target);
        let columns = columns_to_publish(&found, target, listed.clone());
        let listed = listed.unwrap_or_default();
        let redefined = found.has_table
            && is_redefined_since_published(session, name.as_str(), target, &listed).await?;
        let addition = Addition {
            target,
            found: &found,
            columns,
            redefined,
        };
        let changes = addition.statements(name, id);
        if edit(session, name, target.oid, &found, &changes).await? {
            return member_since(session, name, id).await;
        }
        retries.wait(name).await?;
    }
}

/// The error where `other`, a partition of the table or one that it is a partition of, is published already.
pub fn related_refusal(target: &TargetTable, other: &str) -> JobError {
    JobError::permanent(format!(
        "one of {table} and {other} is a partition of the other, and both have jobs; with one slot for all \
         (--slots database) changes come as those of the upper one alone: cancel one of the jobs, or run the daemon \
         with --slots job",
        table = target.qualified()
    ))
}

/// A member to be added to a publication as it was found.
struct Addition<'a> {
    target: &'a TargetTable,
    found: &'a Publication,
    /// What to publish of the table; `None` for all columns.
    columns: Option<Vec<String>>,
    /// The source or the key was redefined since the table was published. Then it is published once more, because the
    /// publication's entry for the table is what tells that its members have scanned it since.
    redefined: bool,
}

impl Addition<'_> {
    /// The statements that add the member.
    fn statements(&self, name: &SlotName, id: &MemberId) -> String {
        let Addition {
            target,
            found,
            columns,
            redefined,
        } = self;
        let table = target.from_clause();
        let mut changes = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;");
        let mut version = found.version.clone();
        let mut records = valid_records(found, target);
        if target.identity_full && !found.publishes_stored {
            changes += &format!(
                "ALTER PUBLICATION {} SET (publish_generated_columns = stored);",
                identifier(name.as_str())
            );
            version = records.publication_replaced(&version, THIS_TRANSACTION);
        }
        if !found.has_table || *columns != found.columns || *redefined {
            changes += &publish_table(name, &table, found.has_table, columns.as_deref());
            version = version_with_this_table(&version);
        }
        if !redefined {
            // The other members with this table stay valid: the lock keeps writers out while its entry is replaced.
            records.set_version(target.oid, &version);
        }
        let record = MembershipRecord {
            table: target.oid,
            version,
            since: END_OF_WAL,
        };
        records.insert(id.clone(), record);
        changes + &comment_statement(name, &records)
    }
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

/// The version that a publication of this version has for a table that this transaction adds. The row of the publication
/// itself stays.
fn version_with_this_table(version: &str) -> String {
    let publication = version.split('/').next().unwrap_or_default();
    format!("{publication}/{THIS_TRANSACTION}")
}

/// The records, without those of the table that prove nothing. Another version must not make them valid again.
fn valid_records(found: &Publication, target: &TargetTable) -> MembershipRecords {
    let mut records = MembershipRecords::parse(found.comment.as_deref());
    records.retain(|record| record.table != target.oid || found.is_version(&record.version));
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
