//! A job's own publication and slot.
//!
//! A table's owner may prepare the publication instead (`sql/prepare_publication.sql`), for a role that may not create
//! one.

use tokio_postgres::error::SqlState;

use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::preflight::publishing::{PREPARE, own_remedy};
use crate::pipeline::setup::preflight::server::check_free_slot;
use crate::pipeline::setup::publication::catalog::{
    Publication, create_statement, find_publication, is_older_than_slot,
    is_redefined_since_published, is_redefined_since_slot, publications_with_prefix,
    version_comment_statement,
};
use crate::pipeline::setup::publication::check::{Defect, find_mismatch, listed_columns};
use crate::pipeline::setup::publication::drop::drop_between_writes;
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::create::{NewSlot, create_slot};
use crate::pipeline::slot::drop::drop_slot;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// The names of prepared publications begin so. They serve every job that they fit. We use them, and never create,
/// change or drop them.
const PREPARED: &str = "lantern_prepared_";

/// The name of the publication from which the job can continue without having missed a change: the slot is usable, and
/// the publication serves the job and is the one that the slot began with. `None` if changes may have been missed, or
/// if nothing exists yet.
///
/// # Errors
/// The server's.
pub async fn find_unbroken(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<Option<String>, JobError> {
    let slot = find_slot(session, name).await?;
    if !slot.is_some_and(|slot| slot.usable) {
        return Ok(None);
    }
    let Some(publication) = usable_publication(session, name, target).await? else {
        return Ok(None);
    };
    // A prepared publication has no comment of ours, so its age decides.
    if is_prepared(&publication) {
        if !is_older_than_slot(session, &publication, target.oid, name).await? {
            tracing::warn!(
                "the publication {publication} is younger than the slot, so changes may be missing"
            );
            return Ok(None);
        }
        // Rights on the columns are granted after the publication is prepared, so they must not count.
        let texts = target.source.columns().into_iter().map(str::to_owned);
        let texts: Vec<String> = texts.collect();
        if is_redefined_since_slot(session, name, target, &texts).await? {
            tracing::warn!("{}", target.redefined());
            return Ok(None);
        }
    }
    Ok(Some(publication))
}

/// Creates publication and slot, in this order, in place of those that exist. Returns the name of the publication. A
/// prepared one that serves the job is used instead.
///
/// # Errors
/// Permanent ones with the statement that a DBA can run, and a transient one for a slot that has retained more WAL
/// than its limit before it was ready.
///
/// Cancellation: as [`create_slot`]. The next call replaces what is half done.
pub async fn create(
    session: &Session,
    slot: &NewSlot<'_>,
    target: &TargetTable,
) -> Result<String, JobError> {
    let name = &slot.watched.slot;
    drop_slot(session, name).await?;
    check_free_slot(session, &[]).await?;
    let publication = match usable_publication(session, name, target).await? {
        Some(publication) => publication,
        None => replace_publication(session, name, target).await?,
    };
    failpoint::reach("between-publication-and-slot");
    create_slot(session, slot).await.map_err(retry_after_race)?;
    failpoint::reach("slot-created");
    Ok(publication)
}

async fn replace_publication(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<String, JobError> {
    drop_between_writes(session, name).await.map_err(|error| {
        error.with_remedy(format!(
            "the publication {name} does not serve the job; let its owner drop it"
        ))
    })?;
    create_publication(session, name, target)
        .await
        .map_err(retry_after_race)?;
    Ok(name.to_string())
}

/// Makes an error transient that says that another session has created or dropped the same object at the same moment: a
/// person, or the last statement of a daemon that was killed. The next attempt looks again.
fn retry_after_race(error: JobError) -> JobError {
    let of_a_race = [SqlState::UNDEFINED_OBJECT, SqlState::DUPLICATE_OBJECT];
    if error.code().is_some_and(|code| of_a_race.contains(code)) {
        return JobError::Transient(error.to_string());
    }
    error
}

/// The job's own publication, or else a prepared one, if it serves the job.
async fn usable_publication(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    let mut candidates = vec![name.to_string()];
    candidates.extend(publications_with_prefix(session, PREPARED, target.oid).await?);
    first_usable(session, candidates, target).await
}

/// A prepared publication that serves the job.
///
/// # Errors
/// The server's.
pub async fn find_prepared(
    session: &Session,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    let candidates = publications_with_prefix(session, PREPARED, target.oid).await?;
    first_usable(session, candidates, target).await
}

/// A prepared publication that would serve the job if it published deletes and truncates.
///
/// # Errors
/// The server's.
pub async fn find_prepared_without_deletes(
    session: &Session,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    for candidate in publications_with_prefix(session, PREPARED, target.oid).await? {
        let found = find_publication(session, &candidate, target.oid).await?;
        let completed = found.map(|found| Publication {
            deletes: true,
            truncates: true,
            ..found
        });
        if completed.is_some_and(|publication| find_mismatch(&publication, target).is_none()) {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

async fn first_usable(
    session: &Session,
    candidates: Vec<String>,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    let mut defects = Vec::new();
    let listed = listed_columns(session, target).unwrap_or_default();
    for candidate in candidates {
        let Some(found) = find_publication(session, &candidate, target.oid).await? else {
            continue;
        };
        if let Some(Defect { reason, .. }) = defect_of(&candidate, &found, target) {
            defects.push((candidate, reason));
        } else if !is_prepared(&candidate)
            && is_redefined_since_published(session, &candidate, target, &listed).await?
        {
            tracing::warn!("{}", target.redefined());
        } else {
            return Ok(Some(candidate));
        }
    }
    // A table may have prepared publications for other jobs, too.
    for (candidate, defect) in defects {
        tracing::warn!("the publication {candidate} {defect}; it is not used");
    }
    Ok(None)
}

/// Why the job can no longer stream from the publication.
///
/// # Errors
/// The server's.
pub async fn find_defect(
    session: &Session,
    name: &str,
    target: &TargetTable,
) -> Result<Option<Defect>, DatabaseError> {
    let found = find_publication(session, name, target.oid).await?;
    Ok(match found {
        Some(publication) => defect_of(name, &publication, target),
        None => Some(Defect::from("was dropped".to_owned())),
    })
}

fn defect_of(name: &str, publication: &Publication, target: &TargetTable) -> Option<Defect> {
    if let Some(mismatch) = find_mismatch(publication, target) {
        return Some(mismatch);
    }
    let altered = !is_prepared(name) && !publication.is_unaltered();
    altered.then(|| Defect::from("was altered or recreated by another session".to_owned()))
}

fn is_prepared(name: &str) -> bool {
    name.starts_with(PREPARED)
}

async fn create_publication(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<(), JobError> {
    let columns = listed_columns(session, target);
    let version = session.version();
    let statement = create_statement(name.as_str(), target, columns.as_deref(), version);
    if let Err(error) = ddl::run(session, &statement).await {
        return Err(match error.is_insufficient_privilege() {
            true => error.with_remedy(publication_remedy(session, target).await?),
            false => error,
        });
    }
    let created = find_publication(session, name.as_str(), target.oid).await?;
    let created = created.ok_or_else(|| {
        JobError::Transient(format!(
            "the publication {name} was dropped as soon as it was created"
        ))
    })?;
    ddl::run(session, &version_comment_statement(name.as_str(), &created)).await
}

/// CREATE PUBLICATION needs the CREATE privilege on the database and ownership of the table.
async fn publication_remedy(
    session: &Session,
    target: &TargetTable,
) -> Result<String, DatabaseError> {
    let role = session.role().await?;
    Ok(own_remedy(&role, &target.qualified(), PREPARE))
}
