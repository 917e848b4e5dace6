//! From an open socket to a session that takes commands: TLS, the startup message, authentication,
//! the server's parameters.

use std::collections::HashMap;
use std::error::Error;

use bytes::BytesMut;
use nix::unistd::{User, geteuid};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use super::auth::authenticate;
use super::socket::{Endpoint, Threshold};
use super::wire::{Transport, Wire};
use super::{ReplicationError, Socket};

const DEFAULT_APPLICATION_NAME: &str = "lantern-cli";

/// What is the same for every host of a connection string.
pub(super) struct Login<'a> {
    pub config: &'a Config,
    /// Settings for the session beyond those of `config`, by name.
    pub parameters: &'a [(&'a str, &'a str)],
}

/// A session that is ready for a command.
pub(super) struct Session {
    pub wire: Wire,
    /// The server process, for `pg_terminate_backend` and for cancel requests.
    pub process_id: i32,
    pub secret_key: i32,
    /// What the server reports about itself, such as `server_version`.
    pub parameters: HashMap<String, String>,
}

impl Login<'_> {
    /// Connects to `endpoint` and logs in. `mode` is the configured one, or less than that.
    pub async fn open<T>(
        &self,
        endpoint: &Endpoint,
        mode: SslMode,
        tls: &mut T,
    ) -> Result<Session, ReplicationError>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let socket = endpoint.open(self.config).await?;
        let threshold = Threshold::of(&socket);
        let (transport, binding) = match mode {
            SslMode::Disable => plain(socket),
            _ if endpoint.is_unix() => plain(socket),
            _ => secure(socket, endpoint, self.config, tls).await?,
        };
        let mut session = self.log_in(transport, binding).await?;
        session.wire.threshold = threshold;
        Ok(session)
    }

    /// Logs in over an open transport. `binding` is that of its TLS, if it has any.
    pub async fn log_in(
        &self,
        transport: Box<dyn Transport>,
        binding: Option<ChannelBinding>,
    ) -> Result<Session, ReplicationError> {
        let user = user_name(self.config)?;
        let mut wire = Wire::new(transport);
        self.start(&mut wire, &user).await?;
        authenticate(&mut wire, self.config, &user, binding).await?;
        until_ready(wire).await
    }

    /// Sends the startup message (documentation: protocol-message-formats, StartupMessage).
    ///
    /// With `replication=database` the server process becomes a walsender that also takes SQL by
    /// the simple query protocol (documentation: protocol-replication).
    async fn start(&self, wire: &mut Wire, user: &str) -> Result<(), ReplicationError> {
        let config = self.config;
        let application_name = config
            .get_application_name()
            .unwrap_or(DEFAULT_APPLICATION_NAME);
        let own = [
            ("user", user),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", application_name),
        ];
        let database = config.get_dbname().map(|name| ("database", name));
        let options = config.get_options().map(|options| ("options", options));
        let all = own
            .into_iter()
            .chain(database)
            .chain(options)
            .chain(self.parameters.iter().copied());
        frontend::startup_message(all, &mut wire.outgoing).map_err(|_| {
            ReplicationError::Config("a setting contains a NUL character".to_owned())
        })?;
        wire.flush().await
    }
}

fn plain(socket: Socket) -> (Box<dyn Transport>, Option<ChannelBinding>) {
    (Box::new(socket), None)
}

/// The user to log in as: as in libpq, the one that we run as if none is given.
fn user_name(config: &Config) -> Result<String, ReplicationError> {
    if let Some(user) = config.get_user() {
        return Ok(user.to_owned());
    }
    let ourselves = User::from_uid(geteuid()).ok().flatten();
    ourselves
        .map(|user| user.name)
        .ok_or_else(|| ReplicationError::Config("no user is given".to_owned()))
}

/// Asks for TLS and does the handshake (documentation: protocol-flow, "SSL Session Encryption").
///
/// A server without TLS is an error under `require`. Under `prefer` the session goes on in the
/// clear.
async fn secure<T>(
    mut socket: Socket,
    endpoint: &Endpoint,
    config: &Config,
    tls: &mut T,
) -> Result<(Box<dyn Transport>, Option<ChannelBinding>), ReplicationError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let failed = |source: Box<dyn Error + Send + Sync>| ReplicationError::Tls {
        host: endpoint.name(),
        source,
    };
    if config.get_ssl_negotiation() != SslNegotiation::Direct && !asks_for_tls(&mut socket).await? {
        return match config.get_ssl_mode() {
            SslMode::Require => Err(failed("the server has no TLS, and sslmode=require".into())),
            _ => Ok(plain(socket)),
        };
    }
    let connector = tls
        .make_tls_connect(&endpoint.host)
        .map_err(|error| failed(error.into()))?;
    let stream = connector
        .connect(socket)
        .await
        .map_err(|error| failed(error.into()))?;
    let binding = stream.channel_binding();
    Ok((Box::new(stream), Some(binding)))
}

/// Whether the server agrees to TLS. Reads its one byte and no more: what follows unencrypted is
/// nobody's word (CVE-2021-23222).
async fn asks_for_tls(socket: &mut Socket) -> Result<bool, ReplicationError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    match socket.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(ReplicationError::protocol(
            "no answer to the request for TLS",
        )),
    }
}

/// Reads what the server says about itself, up to ReadyForQuery.
async fn until_ready(mut wire: Wire) -> Result<Session, ReplicationError> {
    let (mut process_id, mut secret_key) = (0, 0);
    let mut parameters = HashMap::new();
    loop {
        match wire.expect_message().await? {
            Message::BackendKeyData(body) => {
                (process_id, secret_key) = (body.process_id(), body.secret_key())
            }
            Message::ParameterStatus(body) => {
                let text = |value: std::io::Result<&str>| {
                    value.map(str::to_owned).map_err(ReplicationError::protocol)
                };
                parameters.insert(text(body.name())?, text(body.value())?);
            }
            Message::ReadyForQuery(_) => {
                return Ok(Session {
                    wire,
                    process_id,
                    secret_key,
                    parameters,
                });
            }
            _ => {
                return Err(ReplicationError::protocol(
                    "an unknown message at the start of the session",
                ));
            }
        }
    }
}
