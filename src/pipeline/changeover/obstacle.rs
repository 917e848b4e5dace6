//! What keeps a swap from happening until a person acts. Said when the job starts, by `check` and `change-model`, and
//! again when all else is ready.

use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::changeover::{dependents, statements};
use crate::pipeline::error::JobError;
use crate::pipeline::index::look::is_owner;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::row_access::Sessions;
use crate::postgres::{DatabaseError, Session};

/// What is in the way of the swap on this table, with what to do; `None` where nothing is. `names` are those of the
/// table. Whether the role of the session may do it is a question of its own: [`may_swap`].
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn find(
    session: &Session,
    names: &TargetNames,
    table: u32,
    columns: &ColumnNames,
) -> Result<Option<String>, JobError> {
    if let Some(column) = unsuitable(session, table, columns).await? {
        return Ok(Some(format!("{}: {column}", names.qualified())));
    }
    dependents::refusal(session, table, &columns.names()).await
}

/// A column that cannot be renamed, or that must not be left without values, with the reason.
async fn unsuitable(
    session: &Session,
    table: u32,
    columns: &ColumnNames,
) -> Result<Option<String>, DatabaseError> {
    session
        .query_opt(
            "SELECT CASE WHEN a.attinhcount > 0 \
               THEN format('the column %I is inherited, so only that of the parent table can be exchanged; let \
                            \"table\" of both jobs name the parent', a.attname) \
               ELSE format('the column %I has the domain %s, which is NOT NULL, and would get no values after the swap; \
                            run: ALTER DOMAIN %2$s DROP NOT NULL;', a.attname, format_type(a.atttypid, NULL)) END \
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = $1 AND a.attname = ANY ($2::text[]) AND NOT a.attisdropped \
               AND (a.attinhcount > 0 OR t.typnotnull) LIMIT 1",
            &[&table, &columns.names()],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking at the column to replace"))
}

/// What is in the way, of the table and of the roles of the job.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn of_roles(
    sessions: Sessions<'_>,
    names: &TargetNames,
    table: u32,
    columns: &ColumnNames,
) -> Result<Vec<String>, JobError> {
    let mut reasons = Vec::new();
    if let Some(reason) = may_swap(sessions.stream, names, table, columns).await?
        && may_swap(sessions.rows, names, table, columns)
            .await?
            .is_some()
    {
        reasons.push(reason);
    }
    reasons.extend(find(sessions.stream, names, table, columns).await?);
    Ok(reasons)
}

/// Why the role of this session cannot swap, with what its owner can run instead; `None` where it can.
///
/// # Errors
/// The server's.
pub async fn may_swap(
    session: &Session,
    names: &TargetNames,
    table: u32,
    columns: &ColumnNames,
) -> Result<Option<String>, DatabaseError> {
    Ok(match is_owner(session, table).await? {
        true => None,
        false => Some(for_the_owner(session, names, table, columns).await?),
    })
}

/// What the job waits for because of such a reason.
pub fn waits_for_a_person(reason: &str) -> JobError {
    JobError::StandsBack(format!("a change by a person: {reason}"))
}

/// What the owner of the table runs in place of the job, as things are now.
///
/// # Errors
/// The server's.
pub async fn for_the_owner(
    session: &Session,
    names: &TargetNames,
    table: u32,
    columns: &ColumnNames,
) -> Result<String, DatabaseError> {
    let statements = statements::read(session, names, table, columns).await?;
    Ok(format!(
        "only the owner of {} can exchange its columns: once everything has its vector, cancel the job that is \
         replaced, wait until its slot is gone, and let the owner run: BEGIN; {}; COMMIT;",
        names.qualified(),
        statements.join("; ")
    ))
}
