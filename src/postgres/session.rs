//! An SQL session, with a fixed value for every setting that our statements depend on.
//!
//! Defaults of a role or a database apply to each session (`ALTER ROLE … SET`, `ALTER DATABASE … SET`). The text of a
//! key or a source must be the same in the replication stream and in our statements, so both kinds of connection fix
//! the settings that shape text ([`TEXT_FORM`]). SQL sessions also fix those of durability, isolation and time limits.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Statement};

use super::connection_string::ConnectionString;
use super::connector::{Connected, connect};
use super::error::{ConnectFailure, DatabaseError};
use super::quote::literal;

/// Settings that decide how values look as text. A replication connection sends them in its startup message, where they
/// outrank defaults of role and database.
pub const TEXT_FORM: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    // Names of objects (`regclass`) print with their schema; and names in our own statements are those of the system.
    ("search_path", "pg_catalog"),
];

/// Settings of every SQL session: time limits are our own, and literals mean what they look like
/// (`standard_conforming_strings`). What of this the users' code must not see is in
/// [`user_settings`](super::user_settings).
///
/// `synchronous_commit = local`, because the other values do harm. With `off`, a confirmed position could survive a
/// crash that loses the vectors before it. With `on` and above, a commit waits for a synchronous standby, forever if
/// there is none, and keeps its rows locked. A slot is bound to its server, so durability on that server is enough.
const SESSION: &str = "SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET idle_session_timeout = 0;
SET lock_timeout = 0;
SET standard_conforming_strings = on;
SET synchronous_commit = local;
SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off;
SET default_transaction_deferrable = off;
SET row_security = on;";

/// Further settings of both kinds of connection, for servers of this version (`server_version_num`).
pub fn newer_settings(version: u32) -> &'static [(&'static str, &'static str)] {
    if version >= 170_000 {
        &[("transaction_timeout", "0")]
    } else {
        &[]
    }
}

/// An open session. Dropping it closes the connection.
pub struct Session {
    client: Client,
    connection: AbortHandle,
    server: ConnectionString,
    version: u32,
    /// Prepared statements by their text.
    repeated: Mutex<HashMap<String, Statement>>,
}

impl Session {
    /// Connects and pins the settings, each within `connect_timeout`: a network that drops packets must not delay a
    /// retry.
    ///
    /// Cancellation safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// [`DatabaseError::Connect`] with the server's reason, [`DatabaseError::NoAnswer`], or [`DatabaseError::Tls`].
    pub async fn open(target: &ConnectionString) -> Result<Session, DatabaseError> {
        let Connected {
            client,
            connection,
            server,
        } = connect(target).await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(
                    "a database session ended: {}",
                    super::error::describe(&error)
                );
            }
        })
        .abort_handle();
        let patience = server.connect_timeout();
        let mut session = Session {
            client,
            connection,
            server,
            version: 0,
            repeated: Mutex::default(),
        };
        match timeout(patience, session.pin_settings()).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(cause)) => Err(DatabaseError::connect(
                target,
                ConnectFailure::Refused(cause),
            )),
            Err(_) => Err(DatabaseError::NoAnswer {
                database: target.to_string(),
                patience,
            }),
        }
    }

    /// Closes the connection. What is asked of the session afterwards fails.
    pub fn close(&self) {
        self.connection.abort();
    }

    async fn pin_settings(&mut self) -> Result<(), tokio_postgres::Error> {
        self.batch_execute(&pinned_settings()).await?;
        let version: i32 = self
            .query_one("SELECT current_setting('server_version_num')::int", &[])
            .await?
            .try_get(0)?;
        self.version = version.unsigned_abs();
        for (name, value) in newer_settings(self.version) {
            self.batch_execute(&format!("SET {name} = {}", literal(value)))
                .await?;
        }
        Ok(())
    }

    /// From now on a statement fails (`insufficient_privilege`) where row level security would hide rows from it (PostgreSQL
    /// manual, "row_security"). For statements that pass over what they do not see.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn refuse_hidden_rows(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("SET row_security = off").await
    }

    /// A prepared statement for `sql`; the first call prepares it. For queries that a session repeats every second: an
    /// unprepared one is parsed and planned each time, in three round trips.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn repeated(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        let known = self.known_statements().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.known_statements()
            .insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn known_statements(&self) -> MutexGuard<'_, HashMap<String, Statement>> {
        self.repeated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection string of the one server that this session has reached, at its address. Other connections that
    /// must reach the same server use it.
    pub fn server(&self) -> &ConnectionString {
        &self.server
    }

    /// `server_version_num`, as 180001 for 18.1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The role whose rights the session has, not quoted. It need not be the role that logged in (`SET ROLE`).
    ///
    /// # Errors
    /// The server's.
    pub async fn role(&self) -> Result<String, DatabaseError> {
        self.query_one("SELECT current_user::text", &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(DatabaseError::during("reading the role"))
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// As `SET` statements, because connection poolers refuse startup options.
fn pinned_settings() -> String {
    let mut statements = String::from(SESSION);
    for (name, value) in TEXT_FORM {
        statements.push_str(&format!("SET {name} = {};", literal(value)));
    }
    statements
}
