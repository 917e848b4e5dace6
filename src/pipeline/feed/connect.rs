//! Where a feed streams from, and how the stream is begun.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::pipeline::error::{JobError, is_transient_replication_error};
use crate::pipeline::provision;
use crate::pipeline::retention::RetentionLimit;
use crate::postgres::session::{TEXT_FORM, newer_settings};
use crate::postgres::{ConnectionString, DatabaseError, Session, connector, remedy, tls};
use crate::replication::pgoutput::RelationId;
use crate::replication::{
    Lsn, ReplicationConnection, ReplicationError, ReplicationStream, SlotName, slot_lifecycle,
};

use super::capture::FEEDBACK;
use super::{MemberId, publication};

/// A slot and the publication that is streamed from it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The server that has them.
    pub database: ConnectionString,
    /// What sessions are for, in their names.
    pub purpose: String,
    pub slot: SlotName,
    pub publication: String,
    pub sharing: Sharing,
}

/// Whose a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One job's, which watches it itself.
    Own,
    /// That of all jobs of the database; the most WAL that its slot may hold back.
    Shared(RetentionLimit),
}

/// A stream that has begun.
pub(super) struct Opened {
    pub stream: ReplicationStream,
    pub start: Lsn,
    /// Where the log ended then.
    pub log_end: Lsn,
    /// The longest time between two status updates.
    pub feedback: Duration,
    /// All members of the publication, with their tables.
    pub members: Vec<(MemberId, RelationId)>,
}

impl Source {
    pub(super) fn named(&self, what: &str) -> ConnectionString {
        self.database.named(&format!("{} {what}", self.purpose))
    }

    /// Begins to stream from the slot's own position.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn open(&self) -> Result<Opened, JobError> {
        let session = Session::open(&self.named("positions")).await?;
        let stream = self.start_replication(&session).await?;
        // The server may have moved ahead of the position that we asked for.
        let slot = slot_lifecycle::find(&session, &self.slot)
            .await
            .map_err(DatabaseError::during("reading the position of the slot"))?;
        let start = slot
            .and_then(|slot| slot.confirmed_flush)
            .unwrap_or(Lsn::ZERO);
        let members = match self.sharing {
            Sharing::Own => Vec::new(),
            Sharing::Shared(_) => publication::members(&session, &self.slot).await?,
        };
        Ok(Opened {
            stream,
            start,
            log_end: end_of_log(&session).await?,
            feedback: feedback_interval(&session).await?,
            members,
        })
    }

    async fn start_replication(&self, session: &Session) -> Result<ReplicationStream, JobError> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let server = self.named("stream");
        let settings = [TEXT_FORM, newer_settings(session.version())].concat();
        loop {
            let connection = connect_walsender(&server, &settings).await?;
            // 0/0: from the slot's own position. Starting anywhere ahead of it would lose what lies between.
            match connection
                .start_replication(&self.slot, Lsn::ZERO, &[&self.publication])
                .await
            {
                Err(error)
                    if error.code() == Some(&SqlState::OBJECT_IN_USE)
                        && Instant::now() < deadline =>
                {
                    tracing::info!(
                        "an earlier connection still holds the slot {}; ending it",
                        self.slot
                    );
                    provision::free_slot(session, &self.slot).await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return Ok(other?),
            }
        }
    }
}

/// Logs in for replication at the one server of `server`, at which an SQL session is open already.
async fn connect_walsender(
    server: &ConnectionString,
    settings: &[(&str, &str)],
) -> Result<ReplicationConnection, JobError> {
    let tls = tls::connector(server.tls()).map_err(DatabaseError::from)?;
    let config = server.config();
    connector::open(server, &tls, async |socket, tls| {
        ReplicationConnection::connect(socket, tls, &config, settings).await
    })
    .await
    .map_err(|failure| DatabaseError::connect(server, failure))?
    .map_err(refused)
}

/// Adds what to do about a server that refuses the login, if that is known.
fn refused(error: ReplicationError) -> JobError {
    let remedy = match &error {
        ReplicationError::Server { code, message, .. } => remedy::for_refusal(code, message),
        _ => None,
    };
    match remedy {
        Some(remedy) if is_transient_replication_error(&error) => {
            JobError::Transient(format!("{error}: {remedy}"))
        }
        Some(remedy) => JobError::definite(format!("{error}: {remedy}")),
        None => error.into(),
    }
}

/// How often the server wants to hear from us: it hangs up after `wal_sender_timeout`, however busy we are.
async fn feedback_interval(session: &Session) -> Result<Duration, JobError> {
    let row = session
        .query_one(
            "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'",
            &[],
        )
        .await
        .map_err(DatabaseError::during("reading wal_sender_timeout"))?;
    let timeout = Duration::from_millis(row.get::<_, i64>(0).unsigned_abs());
    Ok(if timeout.is_zero() {
        FEEDBACK
    } else {
        FEEDBACK.min(timeout / 3)
    })
}

async fn end_of_log(session: &Session) -> Result<Lsn, JobError> {
    let row = session
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .await
        .map_err(DatabaseError::during("reading the end of the log"))?;
    Ok(row.get::<_, &str>(0).parse().unwrap_or(Lsn::ZERO))
}
