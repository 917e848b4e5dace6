//! Who holds up a new slot: the server makes it only when every transaction that was open has ended.

use std::time::Duration;

use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::drop::drop_slot;
use crate::pipeline::slot::retention::Watched;
use crate::pipeline::slot::{catalog as slot_lifecycle, retention};
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// How long a slot may take before somebody is told, and how often it is said again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A slot that is to be made.
pub struct NewSlot<'a> {
    pub watched: &'a Watched,
    /// Who is told what it waits for.
    pub reporter: &'a Reporter,
}

/// Creates the slot. While that takes, the log and the job's row say which transactions it waits for.
///
/// # Errors
/// The server's; transient ones where the slot holds back more WAL than it may before it is ready.
///
/// Cancellation: as [`slot_lifecycle::create`].
pub async fn create(session: &Session, slot: &NewSlot<'_>) -> Result<(), JobError> {
    let name = &slot.watched.slot;
    let failed = || DatabaseError::during(format!("creating the replication slot {name}"));
    let creator: i32 = session
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .map_err(failed())?
        .get(0);
    let _told = Told(slot.reporter);
    let creation = slot_lifecycle::create(session, name);
    let wait = tell_of_the_wait(slot, creator);
    tokio::select! {
        biased;
        created = creation => Ok(created.map_err(failed())?),
        error = wait => Err(error),
    }
}

/// The wait is over, also where the job is cancelled meanwhile: its row no longer says whom it waits for.
struct Told<'a>(&'a Reporter);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.waits_for(None);
    }
}

/// Returns when the slot must not go on waiting.
async fn tell_of_the_wait(slot: &NewSlot<'_>, creator: i32) -> JobError {
    let name = &slot.watched.slot;
    loop {
        tokio::time::sleep(PATIENCE).await;
        let blockers = match blockers(&slot.watched.database, creator).await {
            Ok(blockers) => blockers,
            Err(error) => format!("it cannot be seen which: {error}"),
        };
        tracing::warn!(
            "the replication slot {name} waits for transactions that are open to end: {blockers}"
        );
        slot.reporter.waits_for(Some(blockers));
        if let Err(error) = give_up_if_outgrown(slot.watched).await {
            return error;
        }
    }
}

async fn give_up_if_outgrown(watched: &Watched) -> Result<(), JobError> {
    let Some(reason) = retention::outgrown(watched).await? else {
        return Ok(());
    };
    // Dropping the future would leave the server waiting for those transactions, and the WAL with it.
    let other = Session::open(&watched.database).await?;
    drop_slot(&other, &watched.slot).await?;
    Err(JobError::Transient(reason))
}

/// The server waits for one transaction after the other (`SnapBuildWaitSnapshot` in `snapbuild.c`); all that are older
/// than the slot count. What they do is not told: statements hold other people's data. Who may see it is told where.
async fn blockers(database: &ConnectionString, creator: i32) -> Result<String, DatabaseError> {
    let session = Session::open(database).await?;
    let rows = session
        .query(
            "SELECT format('process %s of %s%s, %s, open for %s s%s', a.pid, COALESCE(a.usename, '?'), \
                      CASE WHEN a.application_name <> '' THEN ' (' || left(a.application_name, 60) || ')' ELSE '' END, \
                      COALESCE(a.state, 'in a state that this role may not see'), \
                      COALESCE(floor(EXTRACT(EPOCH FROM clock_timestamp() - a.xact_start))::text, '?'), \
                      ', its last statement begun ' || floor(EXTRACT(EPOCH FROM clock_timestamp() - a.query_start)) || ' s ago') \
             FROM pg_stat_activity a \
             WHERE a.pid <> $1 AND (a.pid = ANY(pg_blocking_pids($1)) OR a.backend_xid IS NOT NULL) \
             ORDER BY a.xact_start LIMIT 5",
            &[&creator],
        )
        .await
        .map_err(DatabaseError::during("looking for open transactions"))?;
    let told: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(if told.is_empty() {
        "none that this role can see; look into pg_prepared_xacts too".into()
    } else {
        format!(
            "{} (their statements: SELECT pid, query FROM pg_stat_activity)",
            told.join("; ")
        )
    })
}
