//! The jobs table, as its documentation has it.

use tokio_postgres::Client;

use super::TestDatabase;

/// The model that `make setup` fetches.
pub const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

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

/// A row of the jobs table, as somebody inserts it.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub db_connection: String,
    pub schema: Option<&'a str>,
    pub table: &'a str,
    pub src_column: &'a str,
    pub dst_column: &'a str,
    pub embedding_model: &'a str,
}

impl<'a> Job<'a> {
    /// A job on a table in the schema `public`, with the model that `make setup` fetches.
    pub fn on(
        database: &TestDatabase,
        table: &'a str,
        src_column: &'a str,
        dst_column: &'a str,
    ) -> Self {
        Self {
            db_connection: database.uri(),
            schema: Some("public"),
            table,
            src_column,
            dst_column,
            embedding_model: MODEL,
        }
    }
}

/// What the daemon has written about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitState {
    pub started: bool,
    pub finished: bool,
    pub failed: bool,
    pub failure_reason: Option<String>,
}

pub async fn create_documented_table(client: &Client) {
    client
        .batch_execute(DOCUMENTED_TABLE)
        .await
        .expect("the documented jobs table is created");
}

/// Inserts a job and returns its id.
pub async fn insert_job(client: &Client, job: Job<'_>) -> i32 {
    client
        .query_one(
            "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model) \
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            &[
                &job.db_connection,
                &job.schema,
                &job.table,
                &job.src_column,
                &job.dst_column,
                &job.embedding_model,
            ],
        )
        .await
        .expect("the job is inserted")
        .get(0)
}

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
