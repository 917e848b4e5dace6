//! The vector of each row, compared with one that is computed here from the text alone.

use std::time::Duration;

use testkit::tiny_model::TinyModel;
use testkit::wait::poll_until;
use tokio_postgres::Row;

use super::CATCH_UP_TIMEOUT;
use super::checker::Checker;
use super::passages::same_vector;
use crate::documents::PassageTableName;
use crate::documents::cutting::Cutting;
use crate::shape::REJECTED;

pub struct Job {
    pub id: String,
    pub table: String,
    pub destination: String,
    pub model: TinyModel,
    /// Where the passages of documents are, and how they are cut.
    pub passages: Option<(PassageTableName, Cutting)>,
}

impl Checker<'_> {
    pub async fn jobs(&self) -> Result<Vec<Job>, String> {
        // By way of JSON: most schedules have no such columns.
        let query = "SELECT id::text, \"table\", dst_column, embedding_model, to_jsonb(jobs) ->> 'chunk_table', \
                       to_jsonb(jobs) ->> 'runtime_params' FROM jobs ORDER BY id";
        let job = |row: &Row| Job {
            id: row.get(0),
            table: row.get(1),
            destination: row.get(2),
            model: TinyModel::ALL
                .into_iter()
                .find(|model| model.name() == row.get::<_, &str>(3))
                .expect("a job has one of the two"),
            passages: row.get::<_, Option<&str>>(4).map(|table| {
                let table = PassageTableName::from_row(table).expect("a table of the schedule");
                (table, self.cutting(row.get(5)))
            }),
        };
        Ok(self.rows(query).await?.iter().map(job).collect())
    }

    /// Every row has the vector of its text, for every job.
    pub async fn vectors_are_right(&self) -> Result<(), String> {
        for job in self.jobs().await? {
            match &job.passages {
                Some((table, cutting)) => self.passages_are_right(&job, *table, cutting).await?,
                None => self.vectors_are_right_for(&job).await?,
            }
        }
        Ok(())
    }

    /// As [`vectors_are_right`](Self::vectors_are_right), after faults that the daemon may not have noticed yet.
    pub async fn vectors_become_right(&self) -> Result<(), String> {
        let check = async || self.vectors_are_right().await;
        poll_until(Duration::from_millis(20), CATCH_UP_TIMEOUT, check).await
    }

    /// Every row of a job's table has the vector of its text, or is noted in the failures table because it was
    /// rejected.
    async fn vectors_are_right_for(&self, job: &Job) -> Result<(), String> {
        let Job {
            id,
            table,
            destination,
            model,
            ..
        } = job;
        let column = destination.replace('"', "\"\"");
        let is_noted = match table == "notes" && self.has_failures_table().await? {
            true => format!(
                "n.body LIKE '{REJECTED} %' AND EXISTS (SELECT FROM jobs_failures f WHERE f.job_id = '{id}' AND f.key = {})",
                self.testbed.schedule.shape.key_as_json()
            ),
            false => "false".to_owned(),
        };
        let query = format!(
            "SELECT (to_jsonb(n) - 'body' - 'embedding' - 'second')::text || ctid::text || xmin::text, body, \
             \"{column}\"::real[], COALESCE({is_noted}, false) FROM {table} n"
        );
        let rows = self.rows(&query).await?;
        let mut wrong = Vec::new();
        for row in &rows {
            let (text, vector): (Option<&str>, Option<Vec<f32>>) = (row.get(1), row.get(2));
            let expected = text
                .filter(|text| !text.is_empty())
                .map(|text| model.vector(text));
            let is_noted: bool = row.get(3);
            if !is_noted && !same_vector(expected.as_deref(), vector.as_deref()) {
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
