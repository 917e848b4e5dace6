//! A replication connection while it takes commands: before, or instead of, streaming.

use std::collections::HashMap;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;

use super::socket::Endpoint;
use super::startup::{Login, Session};
use super::wire::{Wire, message_length};
use super::{Lsn, ReplicationError, ReplicationStream, SlotName, Socket};
use crate::postgres::quote;

/// How long one host may take until it takes commands, where the settings do not say.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The tag of CopyBothResponse, which only replication uses and `postgres_protocol` does not know.
const COPY_BOTH_RESPONSE: u8 = b'W';

/// A row of a query's answer: each value in text format, or `None` for NULL.
pub type TextRow = Vec<Option<String>>;

/// A session with a walsender of one database.
///
/// Takes SQL and replication commands, one at a time, and turns into a [`ReplicationStream`].
pub struct ReplicationConnection {
    wire: Wire,
    process_id: i32,
    secret_key: i32,
    parameters: HashMap<String, String>,
    /// A command was sent whose answer was not read to its end.
    is_answering: bool,
}

/// The answer to IDENTIFY_SYSTEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's own number, from when it was made. A restored copy has the same.
    pub system_id: String,
    /// Rises with every failover.
    pub timeline: u32,
    /// Where the log had been flushed to.
    pub flushed: Lsn,
    pub database: Option<String>,
}

impl ReplicationConnection {
    /// Connects to the first host of `config` that is there, and logs in with
    /// `replication=database`.
    ///
    /// Takes from `config` what libpq would: hosts with their ports, user, password, database,
    /// options, TLS mode and negotiation, channel binding, `connect_timeout` (for all of one host's
    /// login; 30 s if unset), keepalives (after 30 s if unset), `tcp_user_timeout` (30 s if unset),
    /// `application_name` (`lantern-cli` if unset) and `target_session_attrs`. `parameters` are
    /// settings for the session, such as `("DateStyle", "ISO")`, that no default of the role or the
    /// database overrides.
    ///
    /// As in libpq, `sslmode=prefer` goes without TLS when the handshake fails, a Unix socket
    /// always does, and the next host is tried when one is not there, but not when it refuses the
    /// login.
    ///
    /// Cancellation safe: nothing is left behind but a login that the server gives up.
    ///
    /// # Errors
    /// That of the last host tried.
    pub async fn connect<T>(
        config: &Config,
        mut tls: T,
        parameters: &[(&str, &str)],
    ) -> Result<ReplicationConnection, ReplicationError>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        if config.get_ssl_negotiation() == SslNegotiation::Direct
            && config.get_ssl_mode() != SslMode::Require
        {
            return Err(ReplicationError::Config(
                "sslnegotiation=direct needs sslmode=require".to_owned(),
            ));
        }
        let login = Login { config, parameters };
        let mut failure = ReplicationError::Config("no host is given".to_owned());
        for endpoint in Endpoint::all(config)? {
            match connect_to(&endpoint, &login, &mut tls).await {
                Ok(connection) => return Ok(connection),
                Err(error) if !may_try_next(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(host = endpoint.name(), %error, "no connection");
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    /// Logs in over a transport that is open already and has no TLS of ours, as a tunnel or, in tests, a recording.
    /// Hosts, TLS and time limits of `config` mean nothing here.
    ///
    /// # Errors
    /// That of the login.
    pub async fn over(
        transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: &Config,
        parameters: &[(&str, &str)],
    ) -> Result<ReplicationConnection, ReplicationError> {
        let login = Login { config, parameters };
        let session = login.log_in(Box::new(transport), None).await?;
        Ok(ReplicationConnection::from(session))
    }

    /// The server process of this session: what `pg_replication_slots.active_pid` shows while it
    /// streams.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// With the process id, what a cancel request has to name.
    pub fn secret_key(&self) -> i32 {
        self.secret_key
    }

    /// What the server reported about itself at login, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Runs SQL or a replication command and returns the rows of the answer.
    ///
    /// If the future is dropped, the command goes on in the server; the next command waits for its
    /// end and drops its answer.
    ///
    /// # Errors
    /// [`ReplicationError::Server`] leaves the connection usable, others do not.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<TextRow>, ReplicationError> {
        self.send_query(sql).await?;
        self.read_answer().await
    }

    async fn send_query(&mut self, sql: &str) -> Result<(), ReplicationError> {
        if sql.contains('\0') {
            return Err(ReplicationError::Config(
                "a command contains a NUL character".to_owned(),
            ));
        }
        if self.is_answering
            && let Err(error) = self.read_answer().await
            && error.code().is_none()
        {
            return Err(error);
        }
        frontend::query(sql, &mut self.wire.outgoing)?;
        self.is_answering = true;
        self.wire.flush().await
    }

    async fn read_answer(&mut self) -> Result<Vec<TextRow>, ReplicationError> {
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.wire.message().await {
                Ok(Message::DataRow(row)) => rows.push(text_row(&row)?),
                Ok(Message::ErrorResponse(body)) => {
                    failure = Some(ReplicationError::server(body.fields()))
                }
                Ok(Message::ReadyForQuery(_)) => break,
                Ok(Message::RowDescription(_) | Message::CommandComplete(_)) => {}
                Ok(Message::EmptyQueryResponse | Message::ParameterStatus(_)) => {}
                Ok(_) => {
                    return Err(ReplicationError::protocol(
                        "an unknown message in the answer to a command",
                    ));
                }
                // After a fatal error the server hangs up. The error says why.
                Err(error) => return Err(failure.unwrap_or(error)),
            }
        }
        self.is_answering = false;
        failure.map_or(Ok(rows), Err)
    }

    /// Asks which cluster this is and how far its log is. Cancellation as
    /// [`simple_query`](Self::simple_query).
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, ReplicationError> {
        let rows = self.simple_query("IDENTIFY_SYSTEM").await?;
        let [Some(system_id), Some(timeline), Some(flushed), database] =
            rows.first().map_or(&[][..], Vec::as_slice)
        else {
            return Err(ReplicationError::protocol(
                "an unknown answer to IDENTIFY_SYSTEM",
            ));
        };
        Ok(SystemIdentity {
            system_id: system_id.clone(),
            timeline: timeline.parse().map_err(ReplicationError::protocol)?,
            flushed: flushed.parse().map_err(ReplicationError::protocol)?,
            database: database.clone(),
        })
    }

    /// Starts to stream the changes of `publications` from `slot`.
    ///
    /// The server starts at `start` or at the slot's own position, whichever is later, and does not
    /// say which: [`Lsn::ZERO`] means the slot's. Asks for protocol version 1 (whole committed
    /// transactions, in commit order) and for logical messages.
    ///
    /// # Errors
    /// SQLSTATE 42704 if there is no such slot, 55006 if another process streams from it, 55000 if
    /// it has lost its log. Servers before 17 name a missing publication only when they come to the
    /// first change.
    pub async fn start_replication(
        mut self,
        slot: &SlotName,
        start: Lsn,
        publications: &[&str],
    ) -> Result<ReplicationStream, ReplicationError> {
        self.send_query(&start_command(slot, start, publications))
            .await?;
        while !self.has_copy_started()? {
            self.wire.fill().await?;
        }
        Ok(ReplicationStream::new(self.wire, self.process_id))
    }

    /// Takes what has come in answer to START_REPLICATION; true at CopyBothResponse, behind which
    /// the stream starts.
    fn has_copy_started(&mut self) -> Result<bool, ReplicationError> {
        let incoming = &mut self.wire.incoming;
        while let Some(length) =
            message_length(incoming)?.filter(|&length| length <= incoming.len())
        {
            if incoming[0] == COPY_BOTH_RESPONSE {
                let _ = incoming.split_to(length);
                return Ok(true);
            }
            match Message::parse(incoming).map_err(ReplicationError::protocol)? {
                Some(Message::ErrorResponse(body)) => {
                    return Err(ReplicationError::server(body.fields()));
                }
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                _ => {
                    return Err(ReplicationError::protocol(
                        "an unknown answer to START_REPLICATION",
                    ));
                }
            }
        }
        Ok(false)
    }
}

async fn connect_to<T>(
    endpoint: &Endpoint,
    login: &Login<'_>,
    tls: &mut T,
) -> Result<ReplicationConnection, ReplicationError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let limit = login
        .config
        .get_connect_timeout()
        .copied()
        .unwrap_or(DEFAULT_CONNECT_TIMEOUT);
    let connecting = async {
        let mode = login.config.get_ssl_mode();
        let session = match login.open(endpoint, mode, tls).await {
            Err(ReplicationError::Tls { .. }) if mode == SslMode::Prefer => {
                login.open(endpoint, SslMode::Disable, tls).await?
            }
            opened => opened?,
        };
        let mut connection = ReplicationConnection::from(session);
        connection
            .check_role(login.config.get_target_session_attrs(), endpoint)
            .await?;
        Ok(connection)
    };
    let late = |_| ReplicationError::Timeout {
        what: format!("connecting to {}", endpoint.name()),
        limit,
    };
    let connected = timeout(limit, connecting).await.map_err(late)?;
    connected.map_err(ReplicationError::with_remedy)
}

/// As in libpq: a host that is not there, or not ready yet, is passed over; one that knows us and
/// says no is not.
fn may_try_next(error: &ReplicationError) -> bool {
    error.is_transient()
        || matches!(
            error,
            ReplicationError::Tls { .. } | ReplicationError::Protocol(_)
        )
}

impl From<Session> for ReplicationConnection {
    fn from(session: Session) -> ReplicationConnection {
        ReplicationConnection {
            wire: session.wire,
            process_id: session.process_id,
            secret_key: session.secret_key,
            parameters: session.parameters,
            is_answering: false,
        }
    }
}

impl ReplicationConnection {
    /// With several hosts, finds out whether this is the primary that is looked for
    /// (`target_session_attrs`).
    async fn check_role(
        &mut self,
        wanted: TargetSessionAttrs,
        endpoint: &Endpoint,
    ) -> Result<(), ReplicationError> {
        let (standby, what) = match wanted {
            TargetSessionAttrs::ReadWrite => (
                "f",
                "the server is a standby, and target_session_attrs=read-write",
            ),
            TargetSessionAttrs::ReadOnly => (
                "t",
                "the server is no standby, and target_session_attrs=read-only",
            ),
            _ => return Ok(()),
        };
        let rows = self
            .simple_query("SELECT pg_catalog.pg_is_in_recovery()")
            .await?;
        if rows == [[Some(standby.to_owned())]] {
            return Ok(());
        }
        let source = std::io::Error::other(what);
        Err(ReplicationError::Connect {
            host: endpoint.name(),
            source,
        })
    }
}

/// START_REPLICATION (documentation: protocol-replication), with the options of `pgoutput`
/// (documentation: protocol-logical-replication).
fn start_command(slot: &SlotName, start: Lsn, publications: &[&str]) -> String {
    let names: Vec<String> = publications
        .iter()
        .map(|name| quote::identifier(name))
        .collect();
    format!(
        "START_REPLICATION SLOT {} LOGICAL {start} (proto_version '1', publication_names {}, messages 'true')",
        quote::identifier(slot.as_str()),
        quote::replication_literal(&names.join(",")),
    )
}

/// Grows with the values that are there: the number of columns is the server's word alone.
fn text_row(row: &DataRowBody) -> Result<TextRow, ReplicationError> {
    let mut values = TextRow::new();
    let mut ranges = row.ranges();
    while let Some(range) = ranges.next().map_err(ReplicationError::protocol)? {
        let bytes = range.map(|range| row.buffer().get(range).unwrap_or_default());
        values.push(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_may_have_any_name() {
        let slot = SlotName::try_from("job_1").unwrap();
        assert_eq!(
            start_command(&slot, Lsn(0x16_0000_000A), &["plain", r#"it's "a, b\c""#]),
            r#"START_REPLICATION SLOT "job_1" LOGICAL 16/A (proto_version '1', publication_names '"plain","it''s ""a, b\c"""', messages 'true')"#
        );
    }
}
