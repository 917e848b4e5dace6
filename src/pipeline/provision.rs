//! What a job keeps on the target server: one publication and one replication slot, created and replaced together.
//!
//! The publication comes first. A slot decodes each change with the catalogue as it was at that change, and the
//! publication must be in it; on servers before 18 the stream breaks otherwise, later ones leave the changes out.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::failpoint;
use crate::jobs::JobRow;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::replication::publication::{self, Publication};
use crate::replication::{SlotName, slot_lifecycle};

use super::error::JobError;
use super::slot_wait::{self, NewSlot};
use super::target::TargetTable;
use super::{ddl, preflight};

/// The name that publication and slot of a job share: `lantern_<jobs table>_<job>_<definition>`.
///
/// Two daemons with different jobs tables may meet in one target database. And a job that was changed while no daemon ran
/// must not go on from the slot of what it was before.
pub fn name(jobs_table: u32, row: &JobRow) -> SlotName {
    let text = row.id.as_str();
    let mut id: String = text
        .chars()
        .filter(|c| *c != '-')
        .collect::<String>()
        .to_ascii_lowercase();
    let plain = id.len() <= 36 && !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric());
    if !plain || text.starts_with('-') {
        id = format!("x{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    }
    let name = format!(
        "{}{id}_{:08x}",
        name_prefix(jobs_table),
        row.definition.fingerprint()
    );
    SlotName::try_from(name).expect("letters, digits and underscores, and not too long")
}

/// What the names of all jobs of a jobs table begin with.
pub fn name_prefix(jobs_table: u32) -> String {
    format!("lantern_{jobs_table:08x}_")
}

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
    let slot = slot_lifecycle::find(session, name)
        .await
        .map_err(DatabaseError::during("looking for the slot"))?;
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
/// Definite ones with the statement that a DBA can run instead, and a transient one for a slot that has held back more WAL
/// than it may before it was ready.
pub async fn create(
    session: &Session,
    slot: &NewSlot<'_>,
    target: &TargetTable,
) -> Result<String, JobError> {
    let name = &slot.watched.slot;
    drop_slot(session, name).await?;
    preflight::check_free_slot(session).await?;
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
    let slot = slot_lifecycle::find(session, name)
        .await
        .map_err(DatabaseError::during("looking for the slot"))?;
    if slot.is_some() {
        drop_slot(session, name).await?;
    }
    let published = publication::exists(session, name.as_str())
        .await
        .map_err(DatabaseError::during("looking for the publication"))?;
    if published {
        match ddl::run(session, &publication::drop_statement(name.as_str())).await {
            Err(error) if error.is_privilege() => tracing::warn!(
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

/// Why a publication does not publish what the job needs, as the rest of a sentence.
pub fn misfit(publication: &Publication, target: &TargetTable) -> Option<String> {
    if !publication.has_table {
        return Some(format!("does not contain {}", target.qualified()));
    }
    if !(publication.inserts && publication.updates) {
        return Some("does not publish both insert and update".into());
    }
    if publication.filtered {
        return Some("has a row filter, which hides rows from the job".into());
    }
    if target.partitioned && !publication.via_root {
        return Some("lacks publish_via_partition_root = true".into());
    }
    let columns = publication.columns.as_ref()?;
    if target.identity_full {
        return Some("has a column list, which REPLICA IDENTITY FULL does not allow".into());
    }
    let missing: Vec<String> = target
        .required_columns()
        .into_iter()
        .filter(|column| !columns.contains(column))
        .collect();
    (!missing.is_empty()).then(|| format!("does not publish the column {}", missing.join(", ")))
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
        Err(error) if error.is_privilege() => {
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

pub async fn drop_slot(session: &Session, name: &SlotName) -> Result<(), JobError> {
    for _ in 0..100 {
        match slot_lifecycle::drop(session, name).await {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {
                free_slot(session, name).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => {
                return Err(
                    DatabaseError::during(format!("dropping the replication slot {name}"))(error)
                        .into(),
                );
            }
        }
    }
    Err(JobError::Transient(format!(
        "the replication slot {name} stays in use"
    )))
}

/// Ends whoever reads from the slot. The job's lock is ours, so it can only be a connection that nobody is behind any more.
pub async fn free_slot(session: &Session, name: &SlotName) -> Result<(), JobError> {
    slot_lifecycle::free(session, name).await.map_err(|error| {
        DatabaseError::during(format!("freeing the replication slot {name}"))(error).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_id_makes_a_slot_name_of_its_own() {
        let named = |id: &str| name(0xab, &JobRow::example(id)).to_string();
        assert!(named("17").starts_with("lantern_000000ab_17_"));
        let uuid = named("0b7e0c1e-7b2e-4a53-9c6e-2f2b1f6f3c11");
        assert!(
            uuid.starts_with("lantern_000000ab_0b7e0c1e7b2e4a539c6e2f2b1f6f3c11_"),
            "{uuid}"
        );
        assert_ne!(named("-17"), named("17"));
        assert!(named("a b; drop").starts_with("lantern_000000ab_x"));
        assert!(named(&"9".repeat(300)).len() <= 63);
        assert!(named(&"9".repeat(36)).len() <= 63);
    }

    #[test]
    fn another_definition_makes_another_name_and_another_password_does_not() {
        let before = JobRow::example("1");
        let mut after = JobRow::example("1");
        after.definition.db_connection = "postgresql://localhost/d?connect_timeout=9".into();
        after.definition.batch_size = Some(3);
        assert_eq!(name(1, &before), name(1, &after));
        after.definition.embedding_model = Some("n".into());
        assert_ne!(name(1, &before), name(1, &after));
    }
}
