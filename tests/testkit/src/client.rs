//! Connections as the superuser, and statements that must succeed.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Error, NoTls};

use crate::wait::{TIMEOUT, wait_for};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects. The connection lives until the client is dropped or the runtime ends.
///
/// # Panics
///
/// Where that fails.
pub async fn connect(uri: &str) -> Client {
    let connected = try_connect(uri, "testkit").await;
    connected.unwrap_or_else(|error| panic!("cannot connect to {uri}: {error:?}"))
}

/// Connects under the given `application_name`.
///
/// # Errors
///
/// Where the server refuses or does not answer within five seconds.
pub async fn try_connect(uri: &str, application_name: &str) -> Result<Client, Error> {
    let mut config: tokio_postgres::Config = uri.parse()?;
    config.application_name(application_name);
    config.connect_timeout(CONNECT_TIMEOUT);
    let (client, connection) = config.connect(NoTls).await?;
    // An error of the connection reaches the client's next call.
    tokio::spawn(connection);
    Ok(client)
}

/// Connects under the given `application_name` to a server that may still be starting.
///
/// # Panics
///
/// Where that takes more than half a minute.
pub async fn connect_when_ready(uri: &str, application_name: &str) -> Client {
    let deadline = Instant::now() + START_TIMEOUT;
    // A loop and not `poll_until`: a future with an async closure that borrows cannot be spawned.
    loop {
        match try_connect(uri, application_name).await {
            Ok(client) => return client,
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("the server does not come back: {error:?}"),
        }
    }
}

/// Runs statements, each of which must succeed.
///
/// # Panics
///
/// Where one fails.
pub async fn execute(client: &Client, sql: &str) {
    let done = client.batch_execute(sql).await;
    done.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
}

/// The first column of the one row that a query returns.
///
/// # Panics
///
/// Where the query fails or returns another number of rows.
pub async fn value<T: FromSqlOwned>(client: &Client, sql: &str) -> T {
    let row = client.query_one(sql, &[]).await;
    row.unwrap_or_else(|error| panic!("{error:?} in {sql}"))
        .get(0)
}

/// Waits until a query returns `expected`.
pub async fn wait_for_value<T>(client: &Client, sql: &str, expected: T)
where
    T: FromSqlOwned + Debug + PartialEq,
{
    wait_for(sql, TIMEOUT, expected, async || value(client, sql).await).await;
}
