//! Dropping what a job has on the target server.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::publication::catalog::{drop_statement, publication_exists};
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::drop::drop_slot;
use crate::postgres::Session;
use crate::replication::SlotName;

/// Drops the slot and the publication of that name. Returns whether one of them existed.
///
/// The slot goes first: it is what retains WAL. A publication of another role stays, with a warning.
///
/// # Errors
/// The server's, and transient ones where the slot stays in use or a lock is not available.
///
/// Cancellation safe: each step can be repeated.
pub async fn drop_slot_and_publication(
    session: &Session,
    name: &SlotName,
) -> Result<bool, JobError> {
    let had_slot = find_slot(session, name).await?.is_some();
    if had_slot {
        drop_slot(session, name).await?;
    }
    let had_publication = publication_exists(session, name.as_str()).await?;
    if had_publication {
        drop_publication(session, name).await?;
    }
    Ok(had_slot || had_publication)
}

async fn drop_publication(session: &Session, name: &SlotName) -> Result<(), JobError> {
    let statement = drop_statement(name.as_str());
    match ddl::run(session, &statement).await {
        Err(error) if error.is_insufficient_privilege() => {
            tracing::warn!(
                "the publication {name} belongs to another role and is not dropped; its owner may run: {statement};"
            );
            Ok(())
        }
        other => other,
    }
}
