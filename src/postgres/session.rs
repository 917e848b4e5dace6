//! One SQL session with every setting pinned that we depend on.
//!
//! Role and database defaults reach each session (`ALTER ROLE … SET`, `ALTER DATABASE … SET`). The text of a key or of a
//! source must be the same in the replication stream and in our statements, so both kinds of connection pin the settings
//! that shape text; SQL sessions also pin what decides durability and isolation.

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

/// Settings that shape how values look as text. The replication connection sends them in its startup packet, where they
/// outrank role and database defaults.
pub const TEXT_FORM: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
];

/// Settings of every SQL session: unqualified names are the system's only, no inherited time-outs, no surprises from
/// defaults. `standard_conforming_strings` keeps our literals what they look like.
///
/// `synchronous_commit = local`, because neither of the others will do. With `off`, what is noted or confirmed could outlive
/// the vectors that it speaks of. With `on` and beyond, a commit waits for a synchronous standby, for ever where there is
/// none, and keeps its rows locked meanwhile. Slots are bound to their server, so what is durable there is enough.
const SESSION: &str = "SET statement_timeout = 0;
SET search_path = pg_catalog;
SET idle_in_transaction_session_timeout = 0;
SET idle_session_timeout = 0;
SET lock_timeout = 0;
SET standard_conforming_strings = on;
SET synchronous_commit = local;
SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off;
SET default_transaction_deferrable = off;
SET row_security = on;";

/// Settings of both kinds of connection that not every server knows.
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
    /// Statements that are asked again and again, by their text.
    repeated: Mutex<HashMap<String, Statement>>,
}

impl Session {
    /// Connects and pins the settings, each within `connect_timeout`, at each address: a network that swallows what is sent
    /// must not hold anybody up for longer than it takes to try again.
    ///
    /// # Errors
    /// [`DatabaseError::Connect`] with the server's reason, or [`DatabaseError::NoAnswer`].
    ///
    /// Cancellation safe: a dropped future closes what it opened.
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
            Ok(Err(cause)) => Err(DatabaseError::Connect {
                database: target.to_string(),
                failure: ConnectFailure::Refused(cause),
            }),
            Err(_) => Err(DatabaseError::NoAnswer {
                database: target.to_string(),
                patience,
            }),
        }
    }

    async fn pin_settings(&mut self) -> Result<(), tokio_postgres::Error> {
        self.batch_execute(&pinned_settings()).await?;
        let version: i32 = self
            .query_one("SELECT current_setting('server_version_num')::int", &[])
            .await?
            .get(0);
        self.version = version.unsigned_abs();
        for (name, value) in newer_settings(self.version) {
            self.batch_execute(&format!("SET {name} = {}", literal(value)))
                .await?;
        }
        Ok(())
    }

    /// A prepared statement, prepared by the first call with this text: for questions that a session asks every second,
    /// which otherwise are parsed and planned each time, in three round trips.
    ///
    /// # Errors
    /// The server's.
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

    /// The connection string of just the server that this session has reached, for whatever must reach the same one.
    pub fn server(&self) -> &ConnectionString {
        &self.server
    }

    /// `server_version_num`, as 180001 for 18.1.
    pub fn version(&self) -> u32 {
        self.version
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

/// As `SET` statements rather than startup options: connection poolers refuse the latter.
fn pinned_settings() -> String {
    let mut statements = String::from(SESSION);
    for (name, value) in TEXT_FORM {
        statements.push_str(&format!("SET {name} = {};", literal(value)));
    }
    statements
}
