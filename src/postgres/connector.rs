//! The one way to a server: connection string, server, address, socket, TLS, login.
//!
//! ```text
//! ConnectionString ──▶ each Server ──resolve──▶ each address ──▶ with and without TLS, as sslmode says
//!                                                                      │ Socket::open, within connect_timeout
//!                                                                      │ the password for that server; Guarded
//!                                                                      ▼
//!                          SQL: the driver's login, then target_session_attrs ──▶ Session
//!                          replication: its own login, to the address of a Session that is open already
//! ```
//!
//! The order is libpq's (PostgreSQL manual, "Specifying Multiple Hosts" and "SSL Mode Descriptions"). A server that
//! knows the user and refuses the login ends the search.

use std::error::Error;
use std::io;
use std::pin::pin;

use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::answer::columns;
use super::authentication::guard::Refusal;
use super::authentication::{Guarded, GuardedTls, LoginPolicy};
use super::connection_string::ConnectionString;
use super::connection_string::credentials::Reached;
use super::connection_string::server::{Location, Server};
use super::connection_string::settings::SessionAttributes;
use super::error::{ConnectFailure, DatabaseError};
use super::peer;
use super::socket::Socket;
use super::tls;

/// TLS for one host: what makes an encrypted stream of a socket.
pub type TlsConnector = GuardedTls<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect>;

type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
type SqlConnection = Connection<Guarded<Socket>, Guarded<TlsStream>>;

/// What a client logs in over, and with.
pub struct Opened {
    /// Delivers no request that the server must not get an answer to.
    pub socket: Guarded<Socket>,
    /// For the same socket.
    pub tls: TlsConnector,
    /// User, password, database and the rest.
    pub config: Config,
}

/// Whether a server is a standby, and whether sessions are read-only by default.
const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'";

/// An SQL connection, and the connection string of the one server that it leads to. Other connections that must reach
/// the same server use that string.
pub struct Connected {
    /// Sends statements.
    pub client: Client,
    /// Moves the bytes of `client`; a task must poll it.
    pub connection: SqlConnection,
    /// One server, at one address, with the encryption that it accepted.
    pub server: ConnectionString,
}

/// Connects to the first server that accepts the login and has the wanted role (`target_session_attrs`).
///
/// Cancellation safe: dropping the future closes the socket.
///
/// # Errors
/// [`DatabaseError::Connect`] with the reason of each server, [`DatabaseError::Tls`] if the TLS settings cannot be
/// used.
pub async fn connect(target: &ConnectionString) -> Result<Connected, DatabaseError> {
    let tls = tls::connector(target.tls()).await?;
    let mut failures = Vec::new();
    'search: for &wanted in target.wanted().rounds() {
        for server in target.servers() {
            let failure = match try_server(target, &server, wanted, &tls).await {
                Ok(connected) => return Ok(connected),
                Err(failure) => failure,
            };
            let ends_search = !failure.may_try_next();
            failures.push((server, failure));
            if ends_search {
                break 'search;
            }
        }
    }
    let failure = ConnectFailure::from_servers(failures);
    Err(DatabaseError::connect(target, failure))
}

/// Opens a socket to the first server of `server` and lets `log_in` make a connection of it, all within
/// `connect_timeout`.
///
/// Sends nothing itself, but the server gets no answer that the connection string forbids ([`authentication`]). `server`
/// should name one resolved server, as that of [`Session::server`] does.
///
/// Cancellation safe: dropping the future closes the socket.
///
/// [`Session::server`]: super::session::Session::server
/// [`authentication`]: super::authentication
///
/// # Errors
/// The outer error is that of the socket, of the time limit, or a login that was not answered; the inner one that of
/// `log_in`.
pub async fn open<C, E>(
    server: &ConnectionString,
    tls: &MakeRustlsConnect,
    log_in: impl AsyncFnOnce(Opened) -> Result<C, E>,
) -> Result<Result<C, E>, ConnectFailure> {
    let limit = server.connect_timeout();
    // Boxed, as statements deep in the setup of a job connect too, and stacks are short.
    let attempt = Box::pin(async {
        let address = server.first_server();
        let socket = Socket::open(address, server.socket_options())
            .await
            .map_err(ConnectFailure::Unreachable)?;
        let peer = socket.peer().map_err(ConnectFailure::Unreachable)?;
        let (config, policy) = login(server, peer).await?;
        let Ok(tls) = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls.clone(), &address.host());
        let refusal = Refusal::default();
        let asks_for_tls = peer.is_none()
            && config.get_ssl_mode() != SslMode::Disable
            && config.get_ssl_negotiation() == SslNegotiation::Postgres;
        let opened = Opened {
            socket: Guarded::new(socket, policy, refusal.clone(), asks_for_tls),
            tls: GuardedTls(tls),
            config,
        };
        let ended = log_in(opened).await;
        match refusal.get() {
            Some(why) if ended.is_err() => Err(ConnectFailure::Authentication(why.clone())),
            _ => Ok(ended),
        }
    });
    timeout(limit, attempt)
        .await
        .unwrap_or(Err(ConnectFailure::Timeout(limit)))
}

/// What to log in with at the server that was reached; `peer` is its account, behind a Unix socket. On a thread of its
/// own, because files and accounts may be looked up over the network.
async fn login(
    server: &ConnectionString,
    peer: Option<u32>,
) -> Result<(Config, LoginPolicy), ConnectFailure> {
    let server = server.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let reached = match (&server.first_server().location, peer) {
            (Location::Directory(directory), Some(peer)) => {
                if let Some(name) = server.required_peer() {
                    peer::require(name, peer).map_err(ConnectFailure::Authentication)?;
                }
                match peer::is_protected(directory, peer) {
                    true => Reached::ByProtectedSocket,
                    false => Reached::ByOpenSocket,
                }
            }
            _ => Reached::OverNetwork,
        };
        Ok(server.login(reached))
    });
    match looking.await {
        Ok(found) => found,
        Err(failed) => Err(ConnectFailure::Unreachable(io::Error::other(failed))),
    }
}

/// Tries one server at each of its addresses.
async fn try_server(
    target: &ConnectionString,
    server: &Server,
    wanted: SessionAttributes,
    tls: &MakeRustlsConnect,
) -> Result<Connected, ConnectFailure> {
    let limit = target.connect_timeout();
    let resolved = timeout(limit, server.resolve()).await;
    let addresses = resolved.map_err(|_| ConnectFailure::Timeout(limit))?;
    let mut failure = ConnectFailure::Name(io::ErrorKind::NotFound.into());
    for address in addresses.map_err(ConnectFailure::Name)? {
        match try_address(target, &address, wanted, tls).await {
            Ok(connected) => return Ok(connected),
            Err(reason) => failure = reason,
        }
        if !failure.may_try_next() {
            break;
        }
    }
    Err(failure)
}

/// Tries one address, with TLS and without, as `sslmode` says.
///
/// Reports the first failure if all of them are about encryption: the second attempt was only a way around it.
async fn try_address(
    target: &ConnectionString,
    address: &Server,
    wanted: SessionAttributes,
    tls: &MakeRustlsConnect,
) -> Result<Connected, ConnectFailure> {
    let mut first = None;
    for &encryption in target.tls().encryption.attempts() {
        let narrowed = target.narrowed(address.clone(), encryption);
        match log_in(narrowed, wanted, tls).await {
            Err(reason) if reason.is_about_encryption() && !address.is_socket() => {
                first.get_or_insert(reason);
            }
            ended => return ended,
        }
    }
    Err(first.unwrap_or_else(|| ConnectFailure::Name(io::ErrorKind::NotFound.into())))
}

/// Logs in for SQL at one address.
async fn log_in(
    server: ConnectionString,
    wanted: SessionAttributes,
    tls: &MakeRustlsConnect,
) -> Result<Connected, ConnectFailure> {
    let opened = open(&server, tls, async |opened| {
        let Opened {
            socket,
            tls,
            config,
        } = opened;
        let (client, mut connection) = config
            .connect_raw(socket, tls)
            .await
            .map_err(|cause| explained(cause, &server))?;
        check_role(&client, &mut connection, wanted).await?;
        Ok((client, connection))
    });
    let (client, connection) = opened.await??;
    Ok(Connected {
        client,
        connection,
        server,
    })
}

/// What the driver's error means to a person.
fn explained(cause: tokio_postgres::Error, server: &ConnectionString) -> ConnectFailure {
    let Some(source) = cause.source() else {
        return ConnectFailure::Refused(cause);
    };
    let host = server.first_server().host();
    let explanation = tls::cause(source).and_then(|error| tls::explain(error, &host, server.tls()));
    if let Some(explanation) = explanation {
        return ConnectFailure::Tls(explanation);
    }
    // The driver has only words for these two (`connect_raw.rs` and `connect_tls.rs` of tokio-postgres 0.7).
    match source.to_string().as_str() {
        "password missing" => ConnectFailure::PasswordMissing {
            is_of_job: server.is_of_job(),
        },
        "server does not support TLS" => ConnectFailure::Tls(
            "the server does not support TLS, and sslmode asks for it: set ssl = on there, or allow sslmode=prefer"
                .to_owned(),
        ),
        _ => ConnectFailure::Refused(cause),
    }
}

/// Asks a server for its role (PostgreSQL manual, "Parameter Key Words", `target_session_attrs`).
async fn check_role(
    client: &Client,
    connection: &mut SqlConnection,
    wanted: SessionAttributes,
) -> Result<(), ConnectFailure> {
    if wanted == SessionAttributes::Any {
        return Ok(());
    }
    let mut answer = pin!(client.query_one(ROLE, &[]));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(ConnectFailure::Refused)?;
            // The server closed the connection and gave no reason. The answer is an error that says so.
            answer.await
        }
    };
    let (is_standby, is_read_only): (bool, bool) = answer
        .and_then(|row| columns(&row))
        .map_err(ConnectFailure::Refused)?;
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
        false => Err(ConnectFailure::WrongRole(what)),
    }
}
