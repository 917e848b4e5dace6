//! What somebody with a SQL prompt sees of the daemon.

use std::fmt::Debug;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::FromSqlOwned;

use super::jobs::{create_documented_table, init_state};
use super::wait::{wait_for, wait_until};
use super::{PrivatePostgres, TestDatabase};

/// Longer than anything takes on a machine that is busy with other things; a test that passes never waits so long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A database with the documented jobs table and a table `articles`, with pgvector where the server has it.
pub async fn articles(server: &'static PrivatePostgres) -> (TestDatabase, Client) {
    let database = TestDatabase::with_vector(server).await;
    let client = database.client().await;
    create_documented_table(&client).await;
    let create = "CREATE TABLE articles (id SERIAL PRIMARY KEY, title TEXT, body TEXT)";
    execute(&client, create).await;
    (database, client)
}

/// Runs statements of which each must succeed.
pub async fn execute(client: &Client, sql: &str) {
    let done = client.batch_execute(sql).await;
    done.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
}

/// The one value that a query returns.
pub async fn value<T: FromSqlOwned>(client: &Client, sql: &str) -> T {
    let row = client.query_one(sql, &[]).await;
    row.unwrap_or_else(|error| panic!("{error:?} in {sql}"))
        .get(0)
}

/// Waits until the query returns `expected`.
pub async fn wait_for_value<T>(client: &Client, sql: &str, expected: T)
where
    T: FromSqlOwned + Debug + PartialEq,
{
    wait_for(sql, PATIENCE, expected, async || value(client, sql).await).await;
}

/// Waits until the first run of a job is finished.
pub async fn finished(client: &Client, id: i32) {
    let description = format!("job {id} has finished its first run");
    wait_until(&description, PATIENCE, async || {
        let state = init_state(client, id).await;
        if state.finished && !state.failed {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}

/// Waits until a job has failed; returns the reason.
pub async fn failure(client: &Client, id: i32) -> String {
    let description = format!("job {id} has failed");
    wait_until(&description, PATIENCE, async || {
        let state = init_state(client, id).await;
        if state.failed {
            state.failure_reason.clone().ok_or(state)
        } else {
            Err(state)
        }
    })
    .await
}

/// Waits until this many replication slots, and as many publications, are there in the client's database.
pub async fn wait_for_slots(client: &Client, expected: i64) {
    for kept in [
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()",
        "SELECT count(*) FROM pg_publication",
    ] {
        wait_for_value(client, kept, expected).await;
    }
}
