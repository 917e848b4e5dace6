//! The login as a walsender, over which slots are read.

use tokio_postgres::error::SqlState;

use crate::pipeline::error::{JobError, is_transient_replication_error};
use crate::postgres::connector::Opened;
use crate::postgres::{ConnectionString, DatabaseError, connector, remedy, tls};
use crate::replication::{ReplicationConnection, ReplicationError};

/// Logs in as a walsender at the one server of `server`, to which an SQL session is open already. `settings` are those
/// on which the text of values depends.
///
/// # Errors
/// The server's, with a remedy where one is known.
///
/// Cancellation safe: a dropped future closes the connection.
pub async fn connect(
    server: &ConnectionString,
    settings: &[(&str, &str)],
) -> Result<ReplicationConnection, JobError> {
    let tls = tls::connector(server.tls()).await;
    let tls = tls.map_err(DatabaseError::from)?;
    connector::open(server, &tls, async |opened| {
        let Opened {
            socket,
            tls,
            config,
        } = opened;
        ReplicationConnection::connect(socket, tls, &config, settings).await
    })
    .await
    .map_err(|failure| DatabaseError::connect(server, failure))?
    .map_err(refused)
}

/// Adds what a person can do about a server that refuses the login, if that is known.
fn refused(error: ReplicationError) -> JobError {
    let (code, message) = match &error {
        ReplicationError::Server { code, message, .. } => (code, message),
        // An SQL session has just been opened to this server with the same settings.
        ReplicationError::Tls(_) => return JobError::Transient(error.to_string()),
        _ => return error.into(),
    };
    let remedy = remedy::for_refusal(code, message);
    // A pooler that refuses a startup parameter refuses it every time.
    let is_poolers = *code == SqlState::PROTOCOL_VIOLATION && remedy.is_some();
    let text = match remedy {
        Some(remedy) => format!("{error}: {remedy}"),
        None => error.to_string(),
    };
    if is_poolers {
        JobError::Permanent(text)
    } else if is_transient_replication_error(&error) {
        JobError::Transient(text)
    } else {
        JobError::AccessRefused(text)
    }
}
