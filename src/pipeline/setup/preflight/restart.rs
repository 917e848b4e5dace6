//! Settings that take effect with a restart of the server, and may have been changed without one.

use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// What to do for a setting of the server that takes a restart: only that, where a value that is enough was set before
/// (PostgreSQL manual, "pg_settings", `pending_restart`; "pg_file_settings"), or else `remedy`.
///
/// # Errors
/// The server's.
pub async fn restart_or(
    session: &Session,
    name: &str,
    is_enough: impl Fn(&str) -> bool,
    remedy: String,
) -> Result<String, DatabaseError> {
    let failed = || DatabaseError::during(format!("asking whether {name} waits for a restart"));
    let (is_pending, may_read_files): (bool, bool) = session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_settings WHERE name = $1 AND pending_restart), \
                    has_table_privilege('pg_catalog.pg_file_settings', 'SELECT') \
                    AND has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')",
            &[&name],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(failed())?;
    if !may_read_files {
        return Ok(match is_pending {
            true => {
                format!("a restart of the server, where another value of {name} is set already")
            }
            false => remedy,
        });
    }
    // The last entry counts; ALTER SYSTEM writes it.
    let set: Option<String> = session
        .query_opt(
            "SELECT setting FROM pg_catalog.pg_file_settings WHERE name = $1 AND setting IS NOT NULL \
             ORDER BY seqno DESC LIMIT 1",
            &[&name],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(failed())?;
    Ok(match set.filter(|value| is_enough(value)) {
        Some(value) => format!("a restart of the server, where {name} = {value} is set already"),
        None => remedy,
    })
}

/// As [`restart_or`], for a setting of which a larger number than `current` is enough.
///
/// # Errors
/// The server's.
pub async fn restart_or_raise(
    session: &Session,
    name: &str,
    current: i32,
    remedy: String,
) -> Result<String, DatabaseError> {
    let is_larger = |value: &str| value.parse::<i32>().is_ok_and(|value| value > current);
    restart_or(session, name, is_larger, remedy).await
}
