//! The session to the jobs database: opened, watched from a second session, and terminated after a loss.

use std::sync::Arc;
use std::time::Duration;

use crate::jobs::presence;
use crate::jobs::presence::Pid;
use crate::jobs::store::JobStore;
use crate::jobs::table::{JobsTable, JobsTableError};
use crate::pipeline::setup::preflight::users_code::{self, PowerfulRoles};
use crate::pipeline::supervisor::options::{SlotAllocation, SupervisorOptions};
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// After this long without an answer, a second session checks the first one.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(4);

/// Identifies a session on the server. The operating system uses process ids again, so the start time belongs to it.
#[derive(Debug, Clone)]
pub(super) struct SessionId {
    /// The server process.
    pub pid: Pid,
    backend_start: String,
}

/// Opens a session, checks the jobs table, and makes this daemon visible to the others.
pub(super) async fn open(
    options: &SupervisorOptions,
) -> Result<(JobStore, SessionId), JobsTableError> {
    let session = Session::open(&options.database.named("jobs")).await?;
    let (schema, table) = (&options.schema, &options.table);
    let table = JobsTable::discover(&session, schema, table, options.label.as_deref()).await?;
    let (pid, backend_start) = session
        .query_one(
            "SELECT pid, backend_start::text FROM pg_stat_get_activity(pg_backend_pid())",
            &[],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("asking for the session's process"))?;
    let id = SessionId { pid, backend_start };
    let store = JobStore::new(session, table, options.label.clone());
    let store = store.sharing_slots(options.slots == SlotAllocation::PerDatabase);
    presence::join(&store).await?;
    Ok((store, id))
}

/// Says, or fails, where the owner of the jobs table could gain rights of the daemon's role.
pub(super) async fn check_exposure(
    store: &JobStore,
    powerful: PowerfulRoles,
) -> Result<(), JobsTableError> {
    let table = store.table().qualified();
    let Some(exposure) = users_code::find_exposure(store.session(), table).await? else {
        return Ok(());
    };
    let message = format!(
        "{exposure}; let --uri name a role that has no more rights than the daemon needs: lantern-cli sql role prints a \
         script that creates one"
    );
    match powerful {
        PowerfulRoles::Warn => {
            tracing::warn!("{message}");
            Ok(())
        }
        PowerfulRoles::Refuse => Err(JobsTableError::Exposed(format!(
            "{message} (refused because of --refuse-superuser)"
        ))),
    }
}

/// Returns when the session is lost, although its socket is open. That is so if the server waits for the next statement
/// while this daemon waits for an answer, or if the server has no such session. A server that is executing the
/// statement is waited for, and so is one that cannot be reached.
///
/// Cancellation safe.
pub(super) async fn lost(options: Arc<SupervisorOptions>, session: SessionId) -> DatabaseError {
    loop {
        tokio::time::sleep(RESPONSE_TIMEOUT).await;
        match is_idle_or_gone(&options, &session).await {
            Ok(false) => {}
            Ok(true) => {
                return DatabaseError::Silent {
                    database: options.database.to_string(),
                };
            }
            Err(error) => tracing::warn!("the jobs database does not answer: {error}"),
        }
    }
}

async fn is_idle_or_gone(
    options: &SupervisorOptions,
    session: &SessionId,
) -> Result<bool, DatabaseError> {
    let other = Session::open(&options.database.named("looking after the jobs session")).await?;
    let busy: Option<Option<bool>> = other
        .query_opt(
            "SELECT state = 'active' AND wait_event_type IS DISTINCT FROM 'Client' FROM pg_stat_get_activity($1) \
             WHERE backend_start = $2::text::timestamptz",
            &[&session.pid, &session.backend_start],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("checking the session to the jobs database"))?;
    // NULL: this role may not see the state. Then the session counts as busy.
    Ok(!busy.is_some_and(|busy| busy.unwrap_or(true)))
}

/// Terminates the previous session of this daemon. The server may not have noticed that the connection is gone, and
/// would hold the session's locks until it does.
pub(super) async fn terminate_previous(
    store: &JobStore,
    previous: &SessionId,
) -> Result<(), DatabaseError> {
    store
        .session()
        .execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_get_activity($1) \
             WHERE backend_start = $2::text::timestamptz",
            &[&previous.pid, &previous.backend_start],
        )
        .await
        .map_err(DatabaseError::during(
            "terminating the lost session to the jobs database",
        ))?;
    Ok(())
}
