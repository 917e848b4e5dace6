//! A replication connection while it takes commands: before, or instead of, streaming.
//!
//! ```text
//! connect ──▶ simple_query, identify_system, … ──▶ start_replication ──▶ ReplicationStream
//! ```

use std::collections::HashMap;
use std::os::fd::AsFd;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::Config;
use tokio_postgres::tls::TlsConnect;

use super::error::ReplicationError;
use super::lsn::Lsn;
use super::quote;
use super::slot::SlotName;
use super::startup::{Started, start};
use super::stream::ReplicationStream;
use super::tls::{Negotiated, negotiate};
use super::transport::Transport;
use super::wire::{MAX_ANSWER, Wire, message_length, too_long};

/// The tag of CopyBothResponse, which only replication uses and `postgres_protocol` does not know.
const COPY_BOTH_RESPONSE: u8 = b'W';

/// The bytes that a row counts beside its values.
const ROW_OVERHEAD: usize = size_of::<TextRow>();

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
    /// The number that identifies the cluster, chosen by `initdb`. A restored copy has the same.
    pub system_id: String,
    /// Rises with every failover.
    pub timeline: u32,
    /// How far the WAL was flushed to disk.
    pub flushed: Lsn,
    /// The database that the session is in.
    pub database: Option<String>,
}

impl ReplicationConnection {
    /// Logs in over an open socket with `replication=database`.
    ///
    /// The socket is the caller's: which server, which of its addresses, keepalives and time limits. Of `config` this
    /// takes user, password, database, options, `application_name`, TLS mode and negotiation, and channel binding.
    /// `parameters` are settings for the session, such as `("DateStyle", "ISO")`. They outrank defaults of the role and
    /// the database.
    ///
    /// As in libpq, a Unix socket never has TLS, and a server that has none is accepted under `sslmode=prefer`. A
    /// failed handshake is always an error: only a new socket can go without TLS after it.
    ///
    /// Cancellation safe: dropping the future closes the socket.
    ///
    /// # Errors
    /// [`ReplicationError::Tls`], [`ReplicationError::Authentication`], or the server's refusal as
    /// [`ReplicationError::Server`].
    pub async fn connect<S, T>(
        socket: S,
        tls: T,
        config: &Config,
        parameters: &[(&str, &str)],
    ) -> Result<ReplicationConnection, ReplicationError>
    where
        S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
        T: TlsConnect<S> + 'static,
        T::Stream: Send + 'static,
    {
        let opened = negotiate(socket, tls, config).await?;
        let started = start(opened, config, parameters).await?;
        Ok(ReplicationConnection::from(started))
    }

    /// Logs in over a transport that does its own encryption or needs none, such as a tunnel or, in tests, a recording.
    /// The TLS settings of `config` do not count.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn over(
        transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: &Config,
        parameters: &[(&str, &str)],
    ) -> Result<ReplicationConnection, ReplicationError> {
        let started = start(
            Negotiated::plain(Transport::over(transport)),
            config,
            parameters,
        )
        .await?;
        Ok(ReplicationConnection::from(started))
    }

    /// The server process of this session: `pg_replication_slots.active_pid` while it streams.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// The key that a cancel request carries beside the process id.
    pub fn secret_key(&self) -> i32 {
        self.secret_key
    }

    /// What the server reported about itself at login, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Runs SQL or a replication command and returns the rows of the answer.
    ///
    /// Cancellation: if the future is dropped, the command continues on the server. The next command first reads the
    /// rest of its answer and discards it.
    ///
    /// # Errors
    /// After [`ReplicationError::Server`] the connection is usable, after others it is not.
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
        let mut length = 0;
        let mut failure = None;
        loop {
            match self.wire.message().await {
                Ok(Message::DataRow(row)) => {
                    // An empty row is a message too.
                    length += row.buffer().len() + ROW_OVERHEAD;
                    if length > MAX_ANSWER {
                        return Err(too_long(length));
                    }
                    rows.push(text_row(&row)?);
                }
                Ok(Message::ErrorResponse(body)) => {
                    failure = Some(ReplicationError::server(body.fields()));
                }
                Ok(Message::ReadyForQuery(_)) => break,
                Ok(Message::RowDescription(_) | Message::CommandComplete(_)) => {}
                Ok(Message::EmptyQueryResponse | Message::ParameterStatus(_)) => {}
                Ok(_) => {
                    return Err(ReplicationError::protocol(
                        "an unknown message in the answer to a command",
                    ));
                }
                // After a fatal error the server closes the connection. The error says why.
                Err(error) => return Err(failure.unwrap_or(error)),
            }
        }
        self.is_answering = false;
        failure.map_or(Ok(rows), Err)
    }

    /// Asks which cluster this is and how far its WAL is flushed.
    ///
    /// Cancellation as for [`simple_query`](Self::simple_query).
    ///
    /// # Errors
    /// Those of [`simple_query`](Self::simple_query).
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
    /// The server starts at `start` or at the slot's confirmed position, whichever is later, and does not say which.
    /// [`Lsn::ZERO`] stands for the slot's. Asks for protocol version 1 (whole committed transactions, in commit order)
    /// and for logical messages.
    ///
    /// Cancellation: dropping the future closes the connection.
    ///
    /// # Errors
    /// SQLSTATE 42704 if there is no such slot, 55006 if another process streams from it, 55000 if the server has
    /// removed its WAL. Servers before 17 report a missing publication only when they come to the first change.
    pub async fn start_replication(
        mut self,
        slot: &SlotName,
        start: Lsn,
        publications: &[&str],
    ) -> Result<ReplicationStream, ReplicationError> {
        self.send_query(&start_command(slot, start, publications))
            .await?;
        while !self.has_copy_started()? {
            self.wire.fill_answer().await?;
        }
        Ok(ReplicationStream::new(self.wire, self.process_id))
    }

    /// Reads what has arrived in answer to START_REPLICATION. True at CopyBothResponse, after which the stream begins.
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

impl From<Started> for ReplicationConnection {
    fn from(started: Started) -> ReplicationConnection {
        ReplicationConnection {
            wire: started.wire,
            process_id: started.process_id,
            secret_key: started.secret_key,
            parameters: started.parameters,
            is_answering: false,
        }
    }
}

/// START_REPLICATION (manual: "Streaming Replication Protocol"), with the options of `pgoutput` (manual: "Logical
/// Streaming Replication Protocol").
///
/// `publication_names` is a list of identifiers within a literal, so each name is quoted first and the whole again.
fn start_command(slot: &SlotName, start: Lsn, publications: &[&str]) -> String {
    let names: Vec<String> = publications
        .iter()
        .map(|name| quote::identifier(name))
        .collect();
    format!(
        "START_REPLICATION SLOT {} LOGICAL {start} (proto_version '1', publication_names {}, messages 'true')",
        quote::identifier(slot.as_str()),
        quote::literal(&names.join(",")),
    )
}

/// Grows with the values that have arrived: the number of columns is only what the server claims.
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
