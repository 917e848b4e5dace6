//! Rows that the table refused: noted in the failures table, they alone, and right as soon as the table takes them.

use super::RECOVERY;
use super::questions::Judge;
use crate::shape::Shape;

impl Judge<'_> {
    pub async fn has_failures(&self) -> Result<bool, String> {
        let has = "SELECT (to_regclass('jobs_failures') IS NOT NULL)::text";
        Ok(self.value(has).await? == "true")
    }

    /// What is in the failures table is there because the table refused it, and not for an outage.
    pub async fn only_refused_rows_are_aside(&self) -> Result<(), String> {
        if !self.has_failures().await? {
            return Ok(());
        }
        if !self.stage.schedule.shape.refuses {
            return Err("there is a failures table, and nothing was refused".to_owned());
        }
        let others = "SELECT COALESCE(string_agg(to_jsonb(f)::text, '; '), '') FROM jobs_failures f \
                      WHERE error NOT LIKE '%not this one%'";
        let others = self.value(others).await?;
        if others.is_empty() {
            return Ok(());
        }
        Err(format!(
            "rows were put aside that nothing refused: {others}"
        ))
    }

    /// The operator mends the table and has the rows tried again.
    pub async fn rows_aside_come_back(&self) -> Result<(), String> {
        self.execute(Shape::RELENT).await?;
        for job in self.jobs().await? {
            self.succeeds("retry-failed", &job.id).await?;
        }
        if self.has_failures().await? {
            let none = "SELECT NOT EXISTS (SELECT FROM jobs_failures)";
            self.until(none, RECOVERY, "no row is aside any more")
                .await?;
        }
        self.right().await
    }
}
