//! Queries and commands of the checks, and waiting until a query returns true.

use std::time::Duration;

use testkit::wait::poll_until;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row};

use crate::testbed::Testbed;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Checks one schedule. Every method that returns `Err` returns a violation.
pub struct Checker<'a> {
    pub testbed: &'a Testbed,
    pub client: Client,
}

impl Checker<'_> {
    /// Waits until a query returns true. `what` completes the sentence "not within …: …".
    pub async fn until(&self, query: &str, timeout: Duration, what: &str) -> Result<(), String> {
        self.poll(query, POLL_INTERVAL, timeout, what).await
    }

    /// As [`until`](Self::until), without a pause between the queries.
    pub async fn until_at_once(
        &self,
        query: &str,
        timeout: Duration,
        what: &str,
    ) -> Result<(), String> {
        self.poll(query, Duration::ZERO, timeout, what).await
    }

    async fn poll(
        &self,
        query: &str,
        interval: Duration,
        timeout: Duration,
        what: &str,
    ) -> Result<(), String> {
        let holds = async || match self.client.query_one(query, &[]).await {
            Ok(row) if row.get::<_, Option<bool>>(0) == Some(true) => Ok(Ok(())),
            Ok(_) => Err(format!("not within {} s: {what}", timeout.as_secs())),
            // The daemon has yet to create it.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Err(format!(
                "not within {} s: {what}: {error:?}",
                timeout.as_secs()
            )),
            Err(error) => Ok(Err(failed(error))),
        };
        poll_until(interval, timeout, holds).await?
    }

    pub async fn value(&self, query: &str) -> Result<String, String> {
        let row = self.client.query_one(query, &[]).await;
        row.map(|row| row.get(0)).map_err(failed)
    }

    pub async fn rows(&self, query: &str) -> Result<Vec<Row>, String> {
        self.client.query(query, &[]).await.map_err(failed)
    }

    pub async fn execute(&self, statement: &str) -> Result<(), String> {
        self.client.batch_execute(statement).await.map_err(failed)
    }

    /// Runs a command on a job as an operator would, beside the daemons.
    pub async fn succeeds(&self, command: &str, job: &str) -> Result<(), String> {
        let output = self.testbed.config.run(&[command, "--job", job]).await;
        self.testbed.log(&format!("{command}: {output:?}"));
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{command} of job {job}: {output:?}"))
    }

    /// Inserts a row that no user touches.
    pub async fn insert(&self, row: u64) -> Result<(), String> {
        let shape = &self.testbed.schedule.shape;
        let insert = format!(
            "INSERT INTO notes ({}, body) VALUES ({}, 'w{}')",
            shape.key_columns(),
            shape.key(row),
            row % 100
        );
        self.execute(&insert).await
    }
}

fn failed(error: Error) -> String {
    format!("a query of the checks failed: {error:?}")
}
