//! The publication and the slot that all jobs of a database share, as the server has them.
//!
//! The publication comes first and is empty, then the slot; tables are added to it and taken out again while the slot is
//! read. Which jobs have missed nothing is written into its comment ([`MembershipRecords`]). Every change is one statement that goes by
//! what was read before and does nothing when that has changed meanwhile, so that daemons and tasks need not know of each
//! other, and a daemon that hangs holds nobody up.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use xxhash_rust::xxh3::xxh3_64;

use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::preflight::server::check_free_slot;
use crate::pipeline::setup::publication::catalog::Publication;
use crate::pipeline::setup::publication::check::misfit;
use crate::pipeline::setup::publication::members::{MembershipRecord, MembershipRecords};
use crate::pipeline::setup::publication::{catalog as publication, own as provision};
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::create as slot_wait;
use crate::pipeline::slot::create::NewSlot;
use crate::pipeline::slot::drop::drop_slot;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};
use crate::replication::pgoutput::RelationId;
use crate::replication::{Lsn, SlotName};

/// How often a change is tried again that somebody else was faster with.
const ATTEMPTS: u32 = 200;
/// Stands in an edit for the transaction that makes it.
const THIS_TRANSACTION: &str = "{xid}";
/// Stands in an edit for the end of the log.
const NOW: Lsn = Lsn(u64::MAX);

/// Makes slot and publication anew, without any members.
///
/// # Errors
/// As [`provision::create`] has them.
pub async fn set_up(session: &Session, slot: &NewSlot<'_>) -> Result<(), JobError> {
    let name = &slot.watched.slot;
    // In this order: without its publication nothing vouches for the slot.
    run(session, &publication::drop_statement(name.as_str())).await?;
    drop_slot(session, name).await?;
    check_free_slot(session).await?;
    let create = format!(
        "CREATE PUBLICATION {} WITH (publish = 'insert, update', publish_via_partition_root = true)",
        identifier(name.as_str())
    );
    run(session, &create).await?;
    failpoint::reach("between-publication-and-slot");
    slot_wait::create(session, slot).await?;
    failpoint::reach("slot-created");
    Ok(())
}

/// Forgets members that are none of `known`: their rows were deleted while no daemon ran.
pub async fn prune(
    session: &Session,
    name: &SlotName,
    known: &BTreeSet<MemberId>,
) -> Result<(), JobError> {
    for id in marks(session, name).await?.0.keys() {
        if !known.contains(id) {
            tracing::info!("nothing is kept any more for {id}, which no row asks for");
            take_out(session, name, id).await?;
        }
    }
    Ok(())
}

/// Why the member cannot go on from the shared slot, as the rest of a sentence; `None` where it has missed nothing.
pub async fn defect(
    session: &Session,
    name: &SlotName,
    id: &MemberId,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    let Some(found) = find(session, name, target.oid).await? else {
        return Ok(Some("was dropped".into()));
    };
    if let Some(defect) = misfit(&found, target) {
        return Ok(Some(defect));
    }
    let marks = MembershipRecords::parse(found.comment.as_deref());
    let holds = |mark: &MembershipRecord| mark.table == target.oid && mark.version == found.version;
    if !marks.0.get(id).is_some_and(holds) {
        return Ok(Some("was altered or made anew".into()));
    }
    let related = relative(session, name, target).await?;
    Ok(related.map(|other| format!("publishes its rows as those of {other}")))
}

/// Whether the slot is there and can be read from, and the publication publishes what members need.
pub async fn is_usable(session: &Session, name: &SlotName) -> Result<bool, DatabaseError> {
    let slot = find_slot(session, name).await?;
    let publication = find(session, name, 0).await?;
    Ok(slot.is_some_and(|slot| slot.usable)
        && publication.is_some_and(|found| found.inserts && found.updates && found.via_root))
}

/// Publishes the member's table, if it is not published yet, and vouches for the member from the position on that comes back.
///
/// Everybody who writes the table has come to an end when this is done, and whoever writes it later is in the stream. So a
/// scan that begins afterwards sees everything that the stream does not bring. That needs a lock that keeps writers out for a
/// moment; with a lesser one, servers before 14.18, 15.13, 16.9 and 17.5 would also leave out changes of transactions that
/// were under way.
///
/// # Errors
/// Permanent ones with the remedy, and a transient one where the lock is not to be had.
pub async fn put_in(
    session: &Session,
    name: &SlotName,
    id: &MemberId,
    target: &TargetTable,
) -> Result<Lsn, JobError> {
    if let Some(other) = relative(session, name, target).await? {
        return Err(JobError::permanent(format!(
            "{} is a partition of {other} or the other way round, and both have jobs; with one slot for all (--slots database) \
             changes come as those of the upper one alone: let one job do, or run the daemon with --slots job",
            target.qualified()
        )));
    }
    for _ in 0..ATTEMPTS {
        let Some(found) = find(session, name, target.oid).await? else {
            return Err(JobError::Transient(format!(
                "the publication {name} was dropped"
            )));
        };
        let mut marks = MembershipRecords::parse(found.comment.as_deref());
        // MembershipRecords of another version would vouch for what nobody knows.
        marks
            .0
            .retain(|_, mark| mark.table != target.oid || mark.version == found.version);
        let columns = columns(session, &found, &marks, target);
        let (table, only) = (target.qualified(), only(target));
        let mut changes = format!("LOCK TABLE {only}{table} IN SHARE ROW EXCLUSIVE MODE;");
        let mut version = found.version.clone();
        if !found.has_table || columns != found.columns {
            if found.has_table {
                changes += &format!(
                    "ALTER PUBLICATION {} DROP TABLE {only}{table};",
                    identifier(name.as_str())
                );
            }
            changes += &format!(
                "ALTER PUBLICATION {} ADD TABLE {only}{table}{};",
                identifier(name.as_str()),
                publication::column_list(columns.as_deref())
            );
            let own = version.split('/').next().unwrap_or_default();
            version = format!("{own}/{THIS_TRANSACTION}");
        }
        for mark in marks.0.values_mut().filter(|mark| mark.table == target.oid) {
            mark.version.clone_from(&version);
        }
        let mark = MembershipRecord {
            table: target.oid,
            version,
            since: NOW,
        };
        marks.0.insert(id.clone(), mark);
        changes += &comment_statement(name, &marks);
        if edit(session, name, target.oid, &found, &changes).await? {
            return since(session, name, id).await;
        }
    }
    Err(busy(name))
}

/// From which position on the member is vouched for.
pub async fn since(session: &Session, name: &SlotName, id: &MemberId) -> Result<Lsn, JobError> {
    let marks = marks(session, name).await?;
    let mark = marks.0.get(id);
    mark.map(|mark| mark.since).ok_or_else(|| {
        JobError::Transient(format!("the publication {name} was altered or made anew"))
    })
}

/// Ends a membership: the table goes if it was the last one on it, and with the last member of all publication and slot.
/// True where there was something to remove.
///
/// # Errors
/// The server's.
pub async fn take_out(session: &Session, name: &SlotName, id: &MemberId) -> Result<bool, JobError> {
    for _ in 0..ATTEMPTS {
        let Some(found) = find(session, name, 0).await? else {
            // Nothing vouches for a slot without its publication.
            return provision::remove(session, name).await;
        };
        let mut marks = MembershipRecords::parse(found.comment.as_deref());
        let mark = marks.0.remove(id);
        if marks.0.is_empty() {
            let drop = format!("{};", publication::drop_statement(name.as_str()));
            if edit(session, name, 0, &found, &drop).await? {
                provision::remove(session, name).await?;
                return Ok(true);
            }
            continue;
        }
        let Some(mark) = mark else { return Ok(false) };
        let mut changes = String::new();
        if !marks.any_on(mark.table)
            && let Some(table) = published_table(session, name, mark.table).await?
        {
            changes = format!(
                "ALTER PUBLICATION {} DROP TABLE {table};",
                identifier(name.as_str())
            );
        }
        changes += &comment_statement(name, &marks);
        if edit(session, name, 0, &found, &changes).await? {
            return Ok(true);
        }
    }
    Err(busy(name))
}

/// All members, with their tables.
pub async fn members(
    session: &Session,
    name: &SlotName,
) -> Result<Vec<(MemberId, RelationId)>, DatabaseError> {
    let marks = marks(session, name).await?.0.into_iter();
    Ok(marks
        .map(|(id, mark)| (id, RelationId(mark.table)))
        .collect())
}

/// What the comment says now; nothing where there is no publication.
pub async fn marks(session: &Session, name: &SlotName) -> Result<MembershipRecords, DatabaseError> {
    let found = find(session, name, 0).await?;
    Ok(MembershipRecords::parse(
        found.and_then(|found| found.comment).as_deref(),
    ))
}

async fn find(
    session: &Session,
    name: &SlotName,
    table: u32,
) -> Result<Option<Publication>, DatabaseError> {
    publication::find(session, name.as_str(), table)
        .await
        .map_err(DatabaseError::during("looking for the publication"))
}

/// The columns to publish: what this job needs besides those that others on the table may need. `None` for all of them.
fn columns(
    session: &Session,
    found: &Publication,
    marks: &MembershipRecords,
    target: &TargetTable,
) -> Option<Vec<String>> {
    // Column lists came with 15, and must cover the replica identity.
    if session.version() < 150_000 || target.identity_full {
        return None;
    }
    let shared = found.has_table && marks.any_on(target.oid);
    if shared && found.columns.is_none() {
        return None;
    }
    let mut columns = found.columns.clone().filter(|_| shared).unwrap_or_default();
    for column in target.published_columns() {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    Some(columns)
}

/// Another published table that is a partition of this one, or that this one is a partition of.
async fn relative(
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

/// A plain table is published without tables that inherit from it.
fn only(target: &TargetTable) -> &'static str {
    if target.partitioned { "" } else { "ONLY " }
}

/// Writes the marks down. Where they ask for it, with the number of the transaction that does so, which rows that it makes in
/// the catalogue have for their `xmin`, and with where the log ends.
fn comment_statement(name: &SlotName, marks: &MembershipRecords) -> String {
    format!(
        "EXECUTE format('COMMENT ON PUBLICATION %I IS %L', {}, \
         replace(replace({}, '{THIS_TRANSACTION}', pg_current_xact_id()::xid::text), '{NOW}', pg_current_wal_insert_lsn()::text));",
        literal(name.as_str()),
        literal(&marks.to_string())
    )
}

/// Makes the changes in one transaction, if publication and membership of `table` are still as they were found. False where
/// they are not.
async fn edit(
    session: &Session,
    name: &SlotName,
    table: u32,
    found: &Publication,
    changes: &str,
) -> Result<bool, JobError> {
    let turn = xxh3_64(format!("lantern publication {name}").as_bytes()).cast_signed();
    let seen = format!(
        "{} {}",
        found.version,
        found.comment.as_deref().unwrap_or_default()
    );
    let body = format!(
        "BEGIN PERFORM pg_advisory_xact_lock({turn}); \
         IF (SELECT format('%s/%s %s', p.xmin, r.xmin, obj_description(p.oid, 'pg_publication')) \
             FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = {table} \
             WHERE p.pubname = {}) IS DISTINCT FROM {} THEN \
           RAISE serialization_failure USING MESSAGE = 'the publication has changed meanwhile'; \
         END IF; {changes} END",
        literal(name.as_str()),
        literal(&seen)
    );
    match run(session, &format!("DO {}", literal(&body))).await {
        Ok(()) => Ok(true),
        Err(JobError::Database(error))
            if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) =>
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// One statement of ours, with what a person can do where the role may not run it.
async fn run(session: &Session, statement: &str) -> Result<(), JobError> {
    let doing = "changing the publication that all jobs of the database share";
    match ddl::run_described(session, statement, doing).await {
        Err(error) if error.is_insufficient_privilege() => {
            let role: String = session
                .query_one("SELECT current_user::text", &[])
                .await
                .map_err(DatabaseError::during("reading the role"))?
                .get(0);
            Err(error.with_remedy(format!(
                "with --slots database the daemon's role {role} needs a publication of its own (those that \
                 sql/prepare_publication.sql makes serve one job each): make it own the tables of its jobs, as by GRANT of the \
                 owning role, and GRANT CREATE ON DATABASE to it; or run the daemon with --slots job",
                role = identifier(&role),
            )))
        }
        other => other,
    }
}

fn busy(name: &SlotName) -> JobError {
    JobError::Transient(format!(
        "the publication {name} is being changed by others all the time"
    ))
}
