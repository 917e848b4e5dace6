//! Drops what a build left that will not go on, because its job has ended.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::backoff::Backoff;
use crate::pipeline::error::JobError;
use crate::pipeline::index::parts::{self, TablePart};
use crate::pipeline::index::session::cancel;
use crate::pipeline::index::wanted::index_name;
use crate::pipeline::setup::ddl;
use crate::pipeline::slot::session_locks;
use crate::pipeline::table::distance::Distance;
use crate::postgres::answer::all;
use crate::postgres::user_settings::set_defaults;
use crate::postgres::{DatabaseError, Session};

/// DROP INDEX CONCURRENTLY waits for transactions that have used the table, and may be repeated.
const LOCK_TIMEOUT_MS: u32 = 1000;
const MAX_ATTEMPTS: u32 = 10;
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Whether the column of a table has an index whose build was interrupted.
///
/// # Errors
/// The server's.
pub async fn exists(session: &Session, table: u32, column: &str) -> Result<bool, DatabaseError> {
    let parts = parts::read(session, table).await?;
    Ok(!find(session, &parts, column).await?.is_empty())
}

/// Ends the builds on the column of a table, and drops what they left. Complete indexes stay.
///
/// `session` keeps the defaults of its role as its settings, so use it for nothing else afterwards.
///
/// # Errors
/// The server's. What this role may not drop is no error: the log names it.
///
/// Cancellation safe: each step can be repeated.
pub async fn drop_unfinished(
    session: &Session,
    schema: &str,
    table: &str,
    column: &str,
) -> Result<(), JobError> {
    let Some(root) = find_table(session, schema, table).await? else {
        return Ok(());
    };
    let own_name = |distance| session_locks::index(root, &index_name(table, column, distance));
    end_builds(session, &Distance::ALL.map(own_name)).await?;
    let parts = parts::read(session, root).await?;
    let unfinished = find(session, &parts, column).await?;
    if unfinished.is_empty() {
        return Ok(());
    }
    let settings = format!("{}SET lock_timeout = {LOCK_TIMEOUT_MS}", set_defaults());
    session
        .batch_execute(&settings)
        .await
        .map_err(DatabaseError::during("preparing to drop an index"))?;
    for index in unfinished {
        drop_index(session, &index).await?;
    }
    Ok(())
}

/// Ends the statements of the sessions that hold one of these locks, and waits until they have ended themselves: their
/// clients are gone.
async fn end_builds(session: &Session, keys: &[i64]) -> Result<(), DatabaseError> {
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    for _ in 0..MAX_ATTEMPTS {
        let builders = session_locks::holders(session, keys).await?;
        if builders.is_empty() {
            break;
        }
        for builder in builders {
            // A process of another role is not this one's to end.
            if let Err(error) = cancel(session, builder.pid).await {
                tracing::debug!("{error}");
            }
        }
        backoff.wait().await;
    }
    Ok(())
}

async fn find_table(
    session: &Session,
    schema: &str,
    table: &str,
) -> Result<Option<u32>, DatabaseError> {
    session
        .query_opt(
            "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
            &[&schema, &table],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking for the target table"))
}

/// An index whose build was interrupted.
pub(super) struct Unfinished {
    /// Schema and name, quoted.
    pub index: String,
    /// Its table.
    pub table: u32,
    /// Not quoted.
    pub name: String,
    /// It is that of a partitioned table, and holds those of the partitions.
    pub is_partitioned: bool,
    /// Another session works on the table, perhaps at this very index: a person may have started the build again.
    pub is_in_use: bool,
}

/// The indexes of these tables that are not valid and have the name of one that is built for this column. Those of
/// partitioned tables come first.
///
/// # Errors
/// The server's.
pub(super) async fn find(
    session: &Session,
    parts: &[TablePart],
    column: &str,
) -> Result<Vec<Unfinished>, DatabaseError> {
    let names = |part: &TablePart| {
        Distance::ALL.map(|distance| (part.oid, index_name(&part.name, column, distance)))
    };
    let (tables, names): (Vec<u32>, Vec<String>) = parts.iter().flat_map(names).unzip();
    let found: Vec<(String, u32, String, bool, bool)> = session
        .query(
            "SELECT format('%I.%I', n.nspname, c.relname), i.indrelid, c.relname::text, c.relkind = 'I', \
                    EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = i.indrelid \
                              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                              AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()) \
             FROM unnest($1::oid[], $2::text[]) AS ours (relid, name) JOIN pg_index i ON i.indrelid = ours.relid \
             JOIN pg_class c ON c.oid = i.indexrelid AND c.relname = ours.name \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) ORDER BY c.relkind = 'I' DESC, c.relname",
            &[&tables, &names],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during("looking for unfinished indexes"))?;
    let unfinished = |(index, table, name, is_partitioned, is_in_use)| Unfinished {
        index,
        table,
        name,
        is_partitioned,
        is_in_use,
    };
    Ok(found.into_iter().map(unfinished).collect())
}

async fn drop_index(session: &Session, unfinished: &Unfinished) -> Result<(), JobError> {
    let index = &unfinished.index;
    if unfinished.is_in_use {
        tracing::warn!(
            "the unfinished index {index} is not dropped, because another session works on its table; where that does \
             not finish it, run: DROP INDEX CONCURRENTLY {index};"
        );
        return Ok(());
    }
    let dropped = match unfinished.is_partitioned {
        true => ddl::run(session, &format!("DROP INDEX IF EXISTS {index}")).await,
        false => drop_concurrently(session, index).await,
    };
    match dropped {
        Ok(()) => {
            tracing::info!("dropped the unfinished index {index}");
            Ok(())
        }
        Err(error) if error.is_insufficient_privilege() => {
            tracing::warn!(
                "the unfinished index {index} belongs to another role and is not dropped; its owner may run: \
                 DROP INDEX CONCURRENTLY {index};"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn drop_concurrently(session: &Session, index: &str) -> Result<(), JobError> {
    let statement = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    for _ in 0..MAX_ATTEMPTS {
        match session.batch_execute(&statement).await {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                backoff.wait().await;
            }
            Err(error) => return Err(DatabaseError::during(statement)(error).into()),
        }
    }
    Err(JobError::Transient(format!(
        "{statement} did not get its lock in {MAX_ATTEMPTS} attempts: a long transaction uses the table (see pg_locks)"
    )))
}
