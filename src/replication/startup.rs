//! From an open transport to a session that takes commands: startup message, authentication, and what the server then
//! says about itself.
//!
//! PostgreSQL manual, "Message Flow", section "Start-up".

use std::collections::HashMap;

use nix::unistd::{User, geteuid};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio_postgres::Config;

use super::auth::authenticate;
use super::error::ReplicationError;
use super::tls::Negotiated;
use super::wire::{Wire, too_long};

/// The limit in bytes for all that a server reports about itself. PostgreSQL 18 reports less than 500.
const MAX_PARAMETERS: usize = 1024 * 1024;
/// The bytes that a parameter counts beside its name and value.
const PARAMETER_OVERHEAD: usize = 64;

/// A session that is ready for its first command.
pub(super) struct Started {
    pub wire: Wire,
    /// The server process, for `pg_terminate_backend` and for cancel requests.
    pub process_id: i32,
    pub secret_key: i32,
    /// What the server reports about itself, such as `server_version`.
    pub parameters: HashMap<String, String>,
}

/// Logs in over an open transport. `parameters` are settings for the session beyond those of `config`, by name.
pub(super) async fn start(
    opened: Negotiated,
    config: &Config,
    parameters: &[(&str, &str)],
) -> Result<Started, ReplicationError> {
    let user = user_name(config)?;
    let mut wire = Wire::new(opened.transport);
    write_startup(&mut wire, config, &user, parameters)?;
    wire.flush().await?;
    authenticate(&mut wire, config, &user, opened.binding).await?;
    until_ready(wire).await
}

/// The startup message (manual: "Message Formats", StartupMessage).
///
/// With `replication=database` the server process becomes a walsender that also takes SQL by the simple query protocol
/// (manual: "Streaming Replication Protocol").
fn write_startup(
    wire: &mut Wire,
    config: &Config,
    user: &str,
    parameters: &[(&str, &str)],
) -> Result<(), ReplicationError> {
    let own = [
        ("user", user),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
    ];
    let given = [
        config.get_dbname().map(|name| ("database", name)),
        config.get_options().map(|options| ("options", options)),
        config
            .get_application_name()
            .map(|name| ("application_name", name)),
    ];
    let all = own
        .into_iter()
        .chain(given.into_iter().flatten())
        .chain(parameters.iter().copied());
    frontend::startup_message(all, &mut wire.outgoing)
        .map_err(|_| ReplicationError::Config("a setting contains a NUL character".to_owned()))
}

/// The user to log in as. As in libpq, the user of this process if none is given.
fn user_name(config: &Config) -> Result<String, ReplicationError> {
    if let Some(user) = config.get_user() {
        return Ok(user.to_owned());
    }
    let ourselves = User::from_uid(geteuid()).ok().flatten();
    ourselves
        .map(|user| user.name)
        .ok_or_else(|| ReplicationError::Config("no user is given".to_owned()))
}

/// Reads up to the first ReadyForQuery.
async fn until_ready(mut wire: Wire) -> Result<Started, ReplicationError> {
    let (mut process_id, mut secret_key) = (0, 0);
    let mut parameters = HashMap::new();
    let mut length = 0;
    loop {
        match wire.expect_message().await? {
            Message::BackendKeyData(body) => {
                (process_id, secret_key) = (body.process_id(), body.secret_key());
            }
            Message::ParameterStatus(body) => {
                let text = |value: std::io::Result<&str>| {
                    value.map(str::to_owned).map_err(ReplicationError::protocol)
                };
                let (name, value) = (text(body.name())?, text(body.value())?);
                length += name.len() + value.len() + PARAMETER_OVERHEAD;
                if length > MAX_PARAMETERS {
                    return Err(too_long(length));
                }
                parameters.insert(name, value);
            }
            Message::ReadyForQuery(_) => {
                return Ok(Started {
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
