//! The jobs table: created as its documentation says, filled as a user does, and watched as a user does.

use lantern::embedded::PrivatePostgres;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use crate::client::{execute, wait_for_value};
use crate::database::TestDatabase;
use crate::engine::MODEL;
use crate::wait::{TIMEOUT, wait_until};

/// The documented statement, word for word.
pub const DOCUMENTED_TABLE: &str = r#"
CREATE TABLE jobs (
  id SERIAL PRIMARY KEY,
  db_connection TEXT NOT NULL,      -- target database, postgresql://[username]:[password]@[host]:[port]/[dbname]
  init_started_at TIMESTAMP,        -- first time the job was started
  init_failed_at TIMESTAMP,         -- when the first run failed
  init_finished_at TIMESTAMP,       -- when the first run finished
  init_failure_reason TEXT,         -- why it failed
  canceled_at BOOL,                 -- true: all listeners of the job are closed; can change while the daemon runs
  schema TEXT,                      -- target schema (default public)
  "table" TEXT,                     -- target table
  src_column TEXT,                  -- source column
  dst_column TEXT,                  -- destination column for the embeddings
  embedding_model TEXT              -- model name, one of lantern-cli show-models
);
"#;

/// A row of the jobs table as a user inserts it.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The connection string of the target database.
    pub db_connection: String,
    /// The schema of the target table.
    pub schema: Option<&'a str>,
    /// The target table.
    pub table: &'a str,
    /// The column with the texts.
    pub src_column: &'a str,
    /// The column for the vectors.
    pub dst_column: &'a str,
    /// The name of the model.
    pub embedding_model: &'a str,
    /// Optional columns with their values as SQL, such as `("backfill", "false")`.
    pub options: &'a [(&'a str, &'a str)],
}

impl<'a> Job<'a> {
    /// A job on a table in the schema `public` of a test's database, with the model that `make setup` fetches.
    pub fn on(
        database: &TestDatabase,
        table: &'a str,
        src_column: &'a str,
        dst_column: &'a str,
    ) -> Self {
        Self::at(database.uri(), table, src_column, dst_column)
    }

    /// As [`Job::on`], of the database with this connection string.
    pub fn at(
        db_connection: String,
        table: &'a str,
        src_column: &'a str,
        dst_column: &'a str,
    ) -> Self {
        Self {
            db_connection,
            schema: Some("public"),
            table,
            src_column,
            dst_column,
            embedding_model: MODEL,
            options: &[],
        }
    }
}

/// What the daemon has written about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitState {
    /// The job was started.
    pub started: bool,
    /// Its initial backfill finished.
    pub finished: bool,
    /// It failed.
    pub failed: bool,
    /// The reason, where it failed.
    pub failure_reason: Option<String>,
}

/// Creates the documented jobs table.
pub async fn create_documented_table(client: &Client) {
    execute(client, DOCUMENTED_TABLE).await;
}

/// A database with the documented jobs table and a table `articles`, with pgvector where the server has it.
pub async fn articles(server: &'static PrivatePostgres) -> (TestDatabase, Client) {
    let database = TestDatabase::with_vector(server).await;
    let client = database.client().await;
    create_documented_table(&client).await;
    let create = "CREATE TABLE articles (id SERIAL PRIMARY KEY, title TEXT, body TEXT)";
    execute(&client, create).await;
    (database, client)
}

/// Inserts a job and returns its id.
///
/// # Panics
///
/// Where the statement fails.
pub async fn insert_job(client: &Client, job: Job<'_>) -> i32 {
    let inserted = try_insert_job(client, &job).await;
    inserted.unwrap_or_else(|error| panic!("{error:?} for {job:?}"))
}

/// Inserts a job and returns its id.
///
/// # Errors
///
/// Where the statement fails.
pub async fn try_insert_job(client: &Client, job: &Job<'_>) -> Result<i32, Error> {
    let list = |part: fn(&(&str, &str)) -> String| job.options.iter().map(part).collect::<String>();
    let insert = format!(
        "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model{}) \
         VALUES ($1, $2, $3, $4, $5, $6{}) RETURNING id",
        list(|(name, _)| format!(", {name}")),
        list(|(_, value)| format!(", {value}")),
    );
    let values: [&(dyn ToSql + Sync); 6] = [
        &job.db_connection,
        &job.schema,
        &job.table,
        &job.src_column,
        &job.dst_column,
        &job.embedding_model,
    ];
    Ok(client.query_one(&insert, &values).await?.get(0))
}

/// What the daemon has written about a job.
///
/// # Panics
///
/// Where there is no such job.
pub async fn init_state(client: &Client, id: i32) -> InitState {
    let row = client
        .query_one(
            "SELECT init_started_at IS NOT NULL, init_finished_at IS NOT NULL, init_failed_at IS NOT NULL, \
                    init_failure_reason \
             FROM jobs WHERE id = $1",
            &[&id],
        )
        .await
        .expect("the job is there");
    InitState {
        started: row.get(0),
        finished: row.get(1),
        failed: row.get(2),
        failure_reason: row.get(3),
    }
}

/// Waits until the initial backfill of a job is finished.
pub async fn wait_for_backfill(client: &Client, id: i32) {
    let description = format!("job {id} has finished its initial backfill");
    wait_until(&description, TIMEOUT, async || {
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
pub async fn wait_for_failure(client: &Client, id: i32) -> String {
    let description = format!("job {id} has failed");
    wait_until(&description, TIMEOUT, async || {
        let state = init_state(client, id).await;
        if state.failed {
            state.failure_reason.clone().ok_or(state)
        } else {
            Err(state)
        }
    })
    .await
}

/// Waits until the client's database has this many replication slots, and as many publications.
pub async fn wait_for_slots(client: &Client, expected: i64) {
    for count in [
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()",
        "SELECT count(*) FROM pg_publication",
    ] {
        wait_for_value(client, count, expected).await;
    }
}
