//! From a connection string to a connection: which server, at which of its addresses, with or without TLS.
//!
//! libpq's order (documentation: libpq-multiple-hosts, libpq-connect-sslmode): the servers in turn, each at each of its
//! addresses, with and without TLS as `sslmode` has it, until one lets us in and is of the wanted kind. A server that knows
//! us and says no ends the search.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection_string::{ConnectionString, Server, SessionAttributes};
use super::error::{self, DatabaseError};
use super::remedy;
use super::tls;

type RustlsConnection =
    Connection<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>;

/// A connection, and the connection string of just that server: what else is to reach the same one goes by it.
pub struct Connected {
    pub client: Client,
    pub connection: RustlsConnection,
    pub server: ConnectionString,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectFailure {
    /// The name could not be resolved.
    Name(io::Error),
    /// The network's or the server's reason.
    Refused(tokio_postgres::Error),
    /// What is wrong with TLS on which side, and what to do.
    Tls(String),
    /// The server asks for a password, and we have none for it.
    PasswordMissing,
    Late(Duration),
    /// The server is not of the kind that `target_session_attrs` asks for.
    NotWanted(&'static str),
    /// None of several servers.
    Each(Vec<(Server, ConnectFailure)>),
}

impl ConnectFailure {
    /// True where the same call may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            ConnectFailure::Name(_) | ConnectFailure::Late(_) | ConnectFailure::NotWanted(_) => {
                true
            }
            ConnectFailure::Refused(cause) => error::is_transient(cause),
            ConnectFailure::Tls(_) | ConnectFailure::PasswordMissing => false,
            ConnectFailure::Each(all) => all.iter().any(|(_, failure)| failure.is_transient()),
        }
    }

    /// The SQLSTATE, if a server reported the error.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            ConnectFailure::Refused(cause) => cause.code(),
            ConnectFailure::Each(all) => all.iter().find_map(|(_, failure)| failure.code()),
            _ => None,
        }
    }

    /// Whether another address or server of the same connection string may do better.
    fn may_try_next(&self) -> bool {
        self.is_transient() || self.code().is_none()
    }

    /// Whether the server may let us in with the other of TLS and no TLS.
    fn is_about_encryption(&self) -> bool {
        match self {
            ConnectFailure::Tls(_) => true,
            // A rule of pg_hba.conf, most often; a wrong password has a code of its own.
            ConnectFailure::Refused(cause) => {
                cause.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
                    || cause
                        .source()
                        .is_some_and(|source| tls::cause(source).is_some())
            }
            _ => false,
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectFailure::Name(cause) => write!(f, "its name cannot be resolved: {cause}"),
            ConnectFailure::Refused(cause) => {
                f.write_str(&error::describe(cause))?;
                let refusal = cause.as_db_error();
                match refusal.and_then(|error| remedy::for_refusal(error.code(), error.message())) {
                    Some(remedy) => write!(f, ": {remedy}"),
                    None => Ok(()),
                }
            }
            ConnectFailure::Tls(what) => f.write_str(what),
            ConnectFailure::PasswordMissing => f.write_str(
                "password missing: the server asks for one, and there is none in the connection string, nor in the \
                 password file (~/.pgpass or PGPASSFILE) for this host, port, database and user; PGPASSWORD is for the \
                 server of --uri alone",
            ),
            ConnectFailure::Late(limit) => write!(f, "no answer within {limit:?}"),
            ConnectFailure::NotWanted(what) => f.write_str(what),
            ConnectFailure::Each(all) => {
                for (position, (server, failure)) in all.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "; " };
                    write!(f, "{separator}{server}: {failure}")?;
                }
                Ok(())
            }
        }
    }
}

/// Connects to the first server that lets us in and is of the wanted kind.
///
/// # Errors
/// [`DatabaseError::Connect`] with the reason of each server, [`DatabaseError::Tls`] where our side of TLS cannot be set up.
///
/// Cancellation safe: a dropped future closes what it opened.
pub async fn connect(target: &ConnectionString) -> Result<Connected, DatabaseError> {
    let connector = tls::connector(target.tls())?;
    let mut failures = Vec::new();
    for &wanted in target.wanted().rounds() {
        for server in target.servers() {
            match reach(target, &server, wanted, &connector).await {
                Ok(connected) => return Ok(connected),
                Err(failure) => {
                    let is_last_word = !failure.may_try_next();
                    failures.push((server, failure));
                    if is_last_word {
                        return Err(failed(target, failures));
                    }
                }
            }
        }
    }
    Err(failed(target, failures))
}

fn failed(target: &ConnectionString, mut failures: Vec<(Server, ConnectFailure)>) -> DatabaseError {
    let failure = match failures.len() {
        1 => failures.remove(0).1,
        _ => ConnectFailure::Each(failures),
    };
    DatabaseError::Connect {
        database: target.to_string(),
        failure,
    }
}

/// Tries one server at its addresses.
async fn reach(
    target: &ConnectionString,
    server: &Server,
    wanted: SessionAttributes,
    connector: &MakeRustlsConnect,
) -> Result<Connected, ConnectFailure> {
    let mut failure = ConnectFailure::Name(io::ErrorKind::NotFound.into());
    let limit = target.connect_timeout();
    let resolved = timeout(limit, server.resolve()).await;
    let addresses = resolved.map_err(|_| ConnectFailure::Late(limit))?;
    for address in addresses.map_err(ConnectFailure::Name)? {
        for &encryption in target.tls().encryption.attempts() {
            let narrowed = target.narrowed(address.clone(), encryption);
            match once(narrowed, wanted, connector).await {
                Ok(connected) => return Ok(connected),
                Err(reason) if reason.is_about_encryption() && !address.is_socket() => {
                    // The first reason is the one to tell: the second attempt was a way around it.
                    if encryption == target.tls().encryption.attempts()[0] {
                        failure = reason;
                    }
                }
                Err(reason) => {
                    failure = reason;
                    break;
                }
            }
        }
        if !failure.may_try_next() {
            break;
        }
    }
    Err(failure)
}

/// One attempt, within `connect_timeout`.
async fn once(
    server: ConnectionString,
    wanted: SessionAttributes,
    connector: &MakeRustlsConnect,
) -> Result<Connected, ConnectFailure> {
    let (config, limit) = (server.config(), server.connect_timeout());
    let connecting = async {
        let connected = config.connect(connector.clone()).await;
        let (client, mut connection) = connected.map_err(|cause| explained(cause, &server))?;
        tokio::select! {
            biased;
            checked = check(&client, wanted) => checked?,
            ended = &mut connection => ended.map_err(ConnectFailure::Refused)?,
        }
        Ok((client, connection))
    };
    let connected = timeout(limit, connecting).await;
    let (client, connection) = connected.map_err(|_| ConnectFailure::Late(limit))??;
    Ok(Connected {
        client,
        connection,
        server,
    })
}

fn explained(cause: tokio_postgres::Error, server: &ConnectionString) -> ConnectFailure {
    let Some(source) = cause.source() else {
        return ConnectFailure::Refused(cause);
    };
    let explanation = tls::cause(source).and_then(|error| tls::explain(error, server));
    // The driver tells the other two by their words alone (`connect_raw.rs` and `connect_tls.rs` of tokio-postgres 0.7).
    match (explanation, source.to_string().as_str()) {
        (Some(explanation), _) => ConnectFailure::Tls(explanation),
        (None, "password missing") => ConnectFailure::PasswordMissing,
        (None, "server does not support TLS") => ConnectFailure::Tls(
            "the server does not support TLS, and sslmode asks for it: set ssl = on there, or allow sslmode=prefer"
                .to_owned(),
        ),
        _ => ConnectFailure::Refused(cause),
    }
}

/// Asks a server what it is (documentation: libpq-connect-target-session-attrs).
async fn check(client: &Client, wanted: SessionAttributes) -> Result<(), ConnectFailure> {
    if wanted == SessionAttributes::Any {
        return Ok(());
    }
    let row = client
        .query_one(
            "SELECT pg_catalog.pg_is_in_recovery(), \
                    pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'",
            &[],
        )
        .await
        .map_err(ConnectFailure::Refused)?;
    let (is_standby, is_read_only): (bool, bool) = (row.get(0), row.get(1));
    let (fits, what) = match wanted {
        SessionAttributes::ReadWrite => (
            !is_read_only,
            "the server is read-only, and target_session_attrs=read-write",
        ),
        SessionAttributes::ReadOnly => (
            is_read_only,
            "the server is not read-only, and target_session_attrs=read-only",
        ),
        SessionAttributes::Primary => (
            !is_standby,
            "the server is a standby, and target_session_attrs=primary",
        ),
        SessionAttributes::Standby | SessionAttributes::PreferStandby => (
            is_standby,
            "the server is no standby, and target_session_attrs=standby",
        ),
        SessionAttributes::Any => (true, ""),
    };
    match fits {
        true => Ok(()),
        false => Err(ConnectFailure::NotWanted(what)),
    }
}
