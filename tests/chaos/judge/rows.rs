//! The vector of each row, against one that is computed here from the text alone.

use std::time::{Duration, Instant};

use tokio_postgres::Row;

use super::PATIENCE;
use super::questions::Judge;
use crate::model::Model;
use crate::shape::REFUSED;

pub struct Job {
    pub id: String,
    pub table: String,
    pub destination: String,
    model: Model,
}

impl Judge<'_> {
    pub async fn jobs(&self) -> Result<Vec<Job>, String> {
        let query = "SELECT id::text, \"table\", dst_column, embedding_model FROM jobs ORDER BY id";
        let job = |row: &Row| Job {
            id: row.get(0),
            table: row.get(1),
            destination: row.get(2),
            model: [Model::One, Model::Two]
                .into_iter()
                .find(|model| model.name() == row.get::<_, &str>(3))
                .expect("a job has one of the two"),
        };
        Ok(self.rows(query).await?.iter().map(job).collect())
    }

    /// Every row has the vector of its text, for every job.
    pub async fn right(&self) -> Result<(), String> {
        for job in self.jobs().await? {
            self.right_for(&job).await?;
        }
        Ok(())
    }

    /// For schedules with a fault that the daemon may not have noticed yet.
    pub async fn eventually_right(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.right().await {
                Ok(()) => return Ok(()),
                Err(violation) if Instant::now() > deadline => return Err(violation),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Every row of a job's table has the vector of its text, or is refused and noted as such.
    async fn right_for(&self, job: &Job) -> Result<(), String> {
        let Job {
            id,
            table,
            destination,
            model,
        } = job;
        let column = destination.replace('"', "\"\"");
        let is_aside = match table == "notes" && self.has_failures().await? {
            true => format!(
                "n.body LIKE '{REFUSED} %' AND EXISTS (SELECT FROM jobs_failures f WHERE f.job_id = '{id}' AND f.key = {})",
                self.stage.schedule.shape.key_as_json()
            ),
            false => "false".to_owned(),
        };
        let query = format!(
            "SELECT (to_jsonb(n) - 'body' - 'embedding' - 'beside')::text || ctid::text || xmin::text, body, \
             \"{column}\"::real[], COALESCE({is_aside}, false) FROM {table} n"
        );
        let rows = self.rows(&query).await?;
        let mut wrong = Vec::new();
        for row in &rows {
            let (text, vector): (Option<&str>, Option<Vec<f32>>) = (row.get(1), row.get(2));
            let expected = text
                .filter(|text| !text.is_empty())
                .map(|text| model.vector(text));
            let is_aside: bool = row.get(3);
            if !is_aside && !same(expected.as_deref(), vector.as_deref()) {
                let text: String = text.unwrap_or("NULL").chars().take(60).collect();
                let place: &str = row.get(0);
                wrong.push(format!("{place} {text:?} has {vector:?}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let shown = wrong.iter().take(4).cloned().collect::<Vec<_>>().join("; ");
        Err(format!(
            "{} of {} rows of {table} are wrong in {destination}: {shown}",
            wrong.len(),
            rows.len()
        ))
    }
}

fn same(expected: Option<&[f32]>, found: Option<&[f32]>) -> bool {
    match (expected, found) {
        (None, None) => true,
        (Some(expected), Some(found)) => {
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
            expected.len() == found.len() && expected.iter().zip(found).all(near)
        }
        _ => false,
    }
}
