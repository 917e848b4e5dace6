//! Asking the server, and waiting until it gives the right answer.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, Row};

use crate::stage::Stage;

const EVERY: Duration = Duration::from_millis(20);

/// Judges one schedule.
pub struct Judge<'a> {
    pub stage: &'a Stage,
    pub client: Client,
}

impl Judge<'_> {
    /// Waits until a question is answered with true.
    pub async fn until(
        &self,
        question: &str,
        patience: Duration,
        what: &str,
    ) -> Result<(), String> {
        self.wait(question, patience, what, Some(EVERY)).await
    }

    /// As [`until`](Self::until), without any pause.
    pub async fn until_at_once(
        &self,
        question: &str,
        patience: Duration,
        what: &str,
    ) -> Result<(), String> {
        self.wait(question, patience, what, None).await
    }

    async fn wait(
        &self,
        question: &str,
        patience: Duration,
        what: &str,
        pause: Option<Duration>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.client.query_one(question, &[]).await;
            if answer.map_err(failed)?.get::<_, Option<bool>>(0) == Some(true) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = patience.as_secs();
                return Err(format!("waited {seconds} s in vain until {what}"));
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
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

    /// Runs a command for a job as an operator would, beside the daemons.
    pub async fn succeeds(&self, command: &str, job: &str) -> Result<(), String> {
        let output = self.stage.home.run(&[command, "--job", job]).await;
        self.stage.say(&format!("{command}: {output:?}"));
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{command} of job {job}: {output:?}"))
    }

    /// Inserts a row that none of the users touches.
    pub async fn insert(&self, row: u64) -> Result<(), String> {
        let shape = &self.stage.schedule.shape;
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
    format!("a question of the judge's failed: {error:?}")
}
