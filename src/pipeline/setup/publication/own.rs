//! What a job keeps on the target server: one publication and one replication slot, created and replaced together.
//!
//! The publication comes first. A slot decodes each change with the catalogue as it was at that change, and the
//! publication must be in it; on servers before 18 the stream breaks otherwise, later ones leave the changes out.

use tokio_postgres::error::SqlState;

use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::preflight::server::check_free_slot;
use crate::pipeline::setup::publication::catalog as publication;
use crate::pipeline::setup::publication::catalog::Publication;
use crate::pipeline::setup::publication::check::misfit;
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::create as slot_wait;
use crate::pipeline::slot::create::NewSlot;
use crate::pipeline::slot::drop::drop_slot;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// Publications whose names begin so are prepared by a table's owner (`sql/prepare_publication.sql`) and serve every job
/// that they fit. They are used, never created, changed or dropped.
const PREPARED: &str = "lantern_prepared_";

/// The name of the publication that the job can stream from, if it is all intact: the publication fits the table and the
/// slot is usable. `None` means that changes may be missed, or that nothing is there yet.
pub async fn intact(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<Option<String>, JobError> {
    let slot = find_slot(session, name).await?;
    if !slot.is_some_and(|slot| slot.usable) {
        return Ok(None);
    }
    let publication = fitting_publication(session, name, target).await?;
    if let Some(prepared) = &publication
        && prepared.starts_with(PREPARED)
        && !publication::is_older_than_slot(session, prepared, target.oid, name)
            .await
            .map_err(DatabaseError::during("looking for the publication"))?
    {
        tracing::warn!("the publication {prepared} may have been missing for a while");
        return Ok(None);
    }
    Ok(publication)
}

/// Creates publication and slot anew and returns the publication's name. One that the table's owner prepared is used as it
/// is, if it fits.
///
/// # Errors
/// Permanent ones with the statement that a DBA can run instead, and a transient one for a slot that has held back more WAL
/// than it may before it was ready.
pub async fn create(
    session: &Session,
    slot: &NewSlot<'_>,
    target: &TargetTable,
) -> Result<String, JobError> {
    let name = &slot.watched.slot;
    drop_slot(session, name).await?;
    check_free_slot(session).await?;
    let publication = match fitting_publication(session, name, target).await? {
        Some(publication) => publication,
        None => {
            ddl::run(session, &publication::drop_statement(name.as_str()))
                .await
                .map_err(|error| {
                    error.with_remedy(format!(
                        "the publication {name} does not fit the job; let its owner drop it"
                    ))
                })?;
            create_publication(session, name, target)
                .await
                .map_err(meanwhile)?;
            name.to_string()
        }
    };
    failpoint::reach("between-publication-and-slot");
    slot_wait::create(session, slot).await.map_err(meanwhile)?;
    failpoint::reach("slot-created");
    Ok(publication)
}

/// What we were making was made or dropped by somebody else at the same moment: by a person, or by the last statement of a
/// daemon that was killed. The next attempt looks again.
fn meanwhile(error: JobError) -> JobError {
    let moments = [SqlState::UNDEFINED_OBJECT, SqlState::DUPLICATE_OBJECT];
    match &error {
        JobError::Database(cause) if cause.code().is_some_and(|code| moments.contains(code)) => {
            JobError::Transient(error.to_string())
        }
        _ => error,
    }
}

/// Drops the slot and then the publication; true where one of them was there.
pub async fn remove(session: &Session, name: &SlotName) -> Result<bool, JobError> {
    let slot = find_slot(session, name).await?;
    if slot.is_some() {
        drop_slot(session, name).await?;
    }
    let published = publication::exists(session, name.as_str())
        .await
        .map_err(DatabaseError::during("looking for the publication"))?;
    if published {
        match ddl::run(session, &publication::drop_statement(name.as_str())).await {
            Err(error) if error.is_insufficient_privilege() => tracing::warn!(
                "the publication {name} belongs to another role and stays; its owner may run: {}",
                publication::drop_statement(name.as_str())
            ),
            other => other?,
        }
    }
    Ok(slot.is_some() || published)
}

/// The job's own publication, or else a prepared one, as long as it fits.
async fn fitting_publication(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<Option<String>, JobError> {
    let mut candidates = vec![name.to_string()];
    candidates.extend(
        publication::names_with_prefix(session, PREPARED, target.oid)
            .await
            .map_err(DatabaseError::during("looking for prepared publications"))?,
    );
    for candidate in candidates {
        let found = publication::find(session, &candidate, target.oid)
            .await
            .map_err(DatabaseError::during("looking for the publication"))?;
        let Some(found) = found else { continue };
        match defect(&candidate, &found, target) {
            None => return Ok(Some(candidate)),
            Some(defect) => tracing::warn!("the publication {candidate} {defect}; it is not used"),
        }
    }
    Ok(None)
}

/// Why the publication that the job streams from does not serve it any more, as the rest of a sentence.
pub async fn publication_defect(
    session: &Session,
    name: &str,
    target: &TargetTable,
) -> Result<Option<String>, DatabaseError> {
    let found = publication::find(session, name, target.oid)
        .await
        .map_err(DatabaseError::during("looking for the publication"))?;
    Ok(match found {
        Some(publication) => defect(name, &publication, target),
        None => Some("was dropped".into()),
    })
}

/// Why a publication does not serve the job, as the rest of a sentence.
fn defect(name: &str, publication: &Publication, target: &TargetTable) -> Option<String> {
    misfit(publication, target).or_else(|| {
        let altered = !name.starts_with(PREPARED) && !publication.is_sealed();
        altered.then(|| "was altered or made anew by somebody else".into())
    })
}

async fn create_publication(
    session: &Session,
    name: &SlotName,
    target: &TargetTable,
) -> Result<(), JobError> {
    // Column lists came with 15, and must cover the replica identity.
    let columns =
        (session.version() >= 150_000 && !target.identity_full).then(|| target.published_columns());
    let statement = publication::create_statement(
        name.as_str(),
        &target.qualified(),
        target.partitioned,
        columns.as_deref(),
    );
    match ddl::run(session, &statement).await {
        Err(error) if error.is_insufficient_privilege() => {
            let role: String = session
                .query_one("SELECT current_user::text", &[])
                .await
                .map_err(DatabaseError::during("reading the role"))?
                .get(0);
            Err(error.with_remedy(format!(
                "either let the owner of {table} run sql/prepare_publication.sql, or make the daemon's role \
                 {role} own the table and GRANT CREATE ON DATABASE to it",
                table = target.qualified(),
                role = identifier(&role),
            )))
        }
        other => other,
    }?;
    let created = publication::find(session, name.as_str(), target.oid)
        .await
        .map_err(DatabaseError::during("looking for the publication"))?;
    let created = created.ok_or_else(|| {
        JobError::Transient(format!(
            "the publication {name} was dropped as soon as it was created"
        ))
    })?;
    let seal = publication::seal_statement(name.as_str(), &created);
    ddl::run(session, &seal).await
}
