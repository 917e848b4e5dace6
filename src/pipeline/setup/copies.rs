//! Copies of a jobs database: the same jobs, under the same names, with a daemon of their own.
//!
//! A physical copy of a server (a base backup, a snapshot of its disk) has the identity of the original's jobs table,
//! so its daemon asks for the very slots that the original's daemon reads, on the server that the copied rows still
//! name. The daemon of the copy stands back, and touches nothing: neither when a job starts nor when it is canceled.
//!
//! What a copy does not share is the moment at which its server was started:
//!
//! ```text
//! target server                                  verdict
//! ─────────────────────────────────────────────  ─────────────────────────────────────────────────────────────
//! it is the server of our jobs table             we are the original: what is there is ours
//! it is a physical copy of that server, or that  our jobs table is the copy, if the target has a slot or a
//! server is one of it                            publication of the job's name
//! any other one                                  ours is the copy, if a session that is alive holds the job's
//!                                                fence for a daemon with another server for its jobs table
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::error::JobError;
use crate::pipeline::slot::names::JobNames;
use crate::pipeline::slot::session_locks;
use crate::pipeline::slot::session_locks::Holder;
use crate::postgres::{DatabaseError, ServerInstance, Session};

/// For so long a session is observed before it counts as that of another copy. After a restart of the jobs server, a
/// session of our own, or of a daemon beside us, looks the same until it has ended or counts as dead.
const OBSERVATION_TIME: Duration = Duration::from_secs(5);
const OBSERVATION_INTERVAL: Duration = Duration::from_millis(250);

/// Fails where the daemon of another copy of the jobs database works for the job. `jobs_server` is the server that has
/// this daemon's jobs table now.
///
/// # Errors
/// [`JobError::StandsBack`], and the server's.
///
/// Cancellation safe: it only reads.
pub async fn stand_back(
    session: &Session,
    names: &JobNames,
    jobs_server: ServerInstance,
) -> Result<(), JobError> {
    let target = ServerInstance::of(session).await?;
    if target == jobs_server {
        return Ok(());
    }
    if target.is_copy_of(jobs_server) && is_taken(session, names).await? {
        return Err(JobError::StandsBack(format!(
            "the server of the jobs database and the target server {} are physical copies of each other, and the \
             target has the slot or the publication {} of a job that is in both: {REMEDY}",
            session.server(),
            names.own
        )));
    }
    let deadline = Instant::now() + OBSERVATION_TIME;
    while let Some(holder) = writer_of_another(session, names, jobs_server).await? {
        if Instant::now() > deadline {
            return Err(JobError::StandsBack(format!(
                "a daemon with another copy of this jobs table runs the job (process {} of the target server, {:?}): \
                 {REMEDY}",
                holder.pid, holder.application
            )));
        }
        tokio::time::sleep(OBSERVATION_INTERVAL).await;
    }
    Ok(())
}

/// The living session that writes for the job and belongs to a daemon with another server for its jobs table.
async fn writer_of_another(
    session: &Session,
    names: &JobNames,
    jobs_server: ServerInstance,
) -> Result<Option<Holder>, DatabaseError> {
    let fence = [session_locks::fence(&names.own)];
    let holders = session_locks::holders(session, &fence).await?;
    Ok(holders.into_iter().find(|holder| {
        let server = holder.identity.map(|identity| identity.jobs_server);
        holder.is_alive && server.is_some_and(|server| server != jobs_server.number())
    }))
}

const REMEDY: &str = "this daemon leaves them alone. To make the copy a database of its own, let db_connection name \
the \
                      copy's own server, or cancel the job there; where this is the original, stop the daemon of the \
                      copy";

/// Whether the target server has a slot or a publication of the job, its own or the shared one.
async fn is_taken(session: &Session, names: &JobNames) -> Result<bool, DatabaseError> {
    let names = [names.own.as_str(), names.shared.as_str()];
    session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = ANY ($1::text[])) \
                 OR EXISTS (SELECT FROM pg_publication WHERE pubname = ANY ($1::text[]))",
            &[&names.as_slice()],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during(
            "looking for slots of a copy of this jobs table",
        ))
}
