//! Dropping what a job has on the target server.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::publication::catalog::{drop_statement, publication_exists};
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::drop::drop_slot;
use crate::postgres::quote::literal;
use crate::postgres::{DatabaseError, Session};
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
    match drop_between_writes(session, name).await {
        Err(error) if error.is_insufficient_privilege() => {
            tracing::warn!(
                "the publication {name} belongs to another role and is not dropped; its owner may run: {};",
                drop_statement(name.as_str())
            );
            Ok(())
        }
        other => other,
    }
}

/// Drops a publication if it exists, between the statements that write to its table.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it is one statement.
pub(super) async fn drop_between_writes(
    session: &Session,
    name: &SlotName,
) -> Result<(), JobError> {
    let body = format!("BEGIN {} END", drop_script(session, name).await?);
    let script = format!("DO {}", literal(&body));
    ddl::run_described(session, &script, &drop_statement(name.as_str())).await
}

/// The statements of PL/pgSQL that do so. A user's statement that looks up the publications of its table at this moment finds
/// one that is gone as soon as it is read, and fails with "cache lookup failed for publication"
/// (`RelationBuildPublicationDesc` in `relcache.c`). Under the lock there is no such statement. Where a transaction stays
/// open, or the role may not lock the table, the publication is dropped all the same.
///
/// # Errors
/// The server's.
pub(super) async fn drop_script(
    session: &Session,
    name: &SlotName,
) -> Result<String, DatabaseError> {
    let tables: Vec<String> = session
        .query(PUBLISHED, &[&name.as_str()])
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during(
            "looking for the tables of a publication",
        ))?;
    let drop = drop_statement(name.as_str());
    // Locks of several tables, one after the other, could be in the way of users who take them in another order.
    Ok(match &tables[..] {
        [table] => format!(
            "BEGIN LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE; \
             EXCEPTION WHEN lock_not_available OR insufficient_privilege OR undefined_table THEN NULL; END; {drop};"
        ),
        _ => format!("{drop};"),
    })
}

const PUBLISHED: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_publication p \
     JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1::text";
