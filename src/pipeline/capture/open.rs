//! Where a slot reader streams from, and how the stream is opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::shared;
use crate::pipeline::slot::catalog::find_slot;
use crate::pipeline::slot::drop::free_slot;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::pipeline::slot::walsender;
use crate::postgres::session::{TEXT_FORM, newer_settings};
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::pgoutput::RelationId;
use crate::replication::{Lsn, ReplicationStream, SlotName};
use crate::status::lag::StreamLag;

/// Status updates go out at least this often, to a patient server too.
const MAX_FEEDBACK_INTERVAL: Duration = Duration::from_secs(10);
/// How long an earlier connection may hold the slot after it was terminated.
const FREE_SLOT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile.
const FREE_SLOT_INTERVAL: Duration = Duration::from_millis(50);

/// A slot and the publication that is streamed from it.
#[derive(Debug, Clone)]
pub struct SlotSource {
    /// The server that has them.
    pub database: ConnectionString,
    /// Whose sessions these are, for their names: `job` or `all jobs`.
    pub purpose: String,
    /// The slot to read.
    pub slot: SlotName,
    /// The publication to stream.
    pub publication: String,
    /// Whose slot it is.
    pub sharing: Sharing,
    /// Told how far the stream is behind.
    pub lag: Arc<StreamLag>,
}

/// Whose a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One job's. The job itself watches how much WAL the slot retains.
    Own,
    /// That of all jobs of the database, with the most WAL that the slot may retain.
    Shared(RetentionLimit),
}

/// A stream that has been opened.
pub(super) struct OpenedStream {
    pub stream: ReplicationStream,
    /// Where it starts.
    pub start: Lsn,
    /// Where the WAL ended then.
    pub wal_end: Lsn,
    /// The longest time between two status updates.
    pub feedback_interval: Duration,
    /// All members of a shared publication, with their tables.
    pub members: Vec<(MemberId, RelationId)>,
}

impl SlotSource {
    /// The connection string for a session with this task.
    pub(super) fn named(&self, task: &str) -> ConnectionString {
        self.database.named(&format!("{} {task}", self.purpose))
    }

    /// Opens the stream at the slot's own position.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn open(&self) -> Result<OpenedStream, JobError> {
        let session = Session::open(&self.named("positions")).await?;
        let stream = self.start_replication(&session).await?;
        // Read after the start: the server silently advances a slot to the position that was confirmed last, whatever the
        // client asks for (manual, "Streaming Replication Protocol", START_REPLICATION).
        let start = confirmed_flush(&session, &self.slot).await?;
        tracing::info!("streaming from {start}");
        let members = match self.sharing {
            Sharing::Own => Vec::new(),
            Sharing::Shared(_) => shared::members(&session, &self.slot).await?,
        };
        Ok(OpenedStream {
            stream,
            start,
            wal_end: wal_end(&session).await?,
            feedback_interval: feedback_interval(&session).await?,
            members,
        })
    }

    /// Starts the stream, and terminates an earlier walsender that still holds the slot: the lock of the job is ours, so no
    /// living daemon is behind it.
    async fn start_replication(&self, session: &Session) -> Result<ReplicationStream, JobError> {
        let deadline = Instant::now() + FREE_SLOT_TIMEOUT;
        let server = self.named("stream");
        let settings = [TEXT_FORM, newer_settings(session.version())].concat();
        loop {
            let connection = walsender::connect(&server, &settings).await?;
            // 0/0 stands for the slot's own position. Any position ahead of it would lose what lies between.
            let started = connection
                .start_replication(&self.slot, Lsn::ZERO, &[&self.publication])
                .await;
            match started {
                Err(error)
                    if error.code() == Some(&SqlState::OBJECT_IN_USE)
                        && Instant::now() < deadline =>
                {
                    tracing::info!(
                        "an earlier connection still holds the slot {}; terminating it",
                        self.slot
                    );
                    free_slot(session, &self.slot).await?;
                    tokio::time::sleep(FREE_SLOT_INTERVAL).await;
                }
                other => return Ok(other?),
            }
        }
    }
}

async fn confirmed_flush(session: &Session, slot: &SlotName) -> Result<Lsn, JobError> {
    let slot = find_slot(session, slot).await?;
    let position = slot.and_then(|slot| slot.confirmed_flush);
    Ok(position.unwrap_or(Lsn::ZERO))
}

/// The longest time between two status updates: the server ends a connection that it has not heard from for
/// `wal_sender_timeout` (manual, "Sending Servers").
async fn feedback_interval(session: &Session) -> Result<Duration, JobError> {
    let timeout: i64 = session
        .query_one(
            "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'",
            &[],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("reading wal_sender_timeout"))?;
    let timeout = Duration::from_millis(timeout.unsigned_abs());
    Ok(match timeout.is_zero() {
        true => MAX_FEEDBACK_INTERVAL,
        false => MAX_FEEDBACK_INTERVAL.min(timeout / 3),
    })
}

async fn wal_end(session: &Session) -> Result<Lsn, JobError> {
    let end: String = session
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("reading the end of the WAL"))?;
    Ok(end.parse().unwrap_or(Lsn::ZERO))
}
