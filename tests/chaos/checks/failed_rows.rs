//! Rows that the table rejected: they are noted in the failures table, no others are, and they are right once the table
//! accepts them.

use super::RECOVERY_TIMEOUT;
use super::checker::Checker;
use crate::documents::tables;
use crate::shape::Shape;

impl Checker<'_> {
    pub async fn has_failures_table(&self) -> Result<bool, String> {
        let has = "SELECT (to_regclass('jobs_failures') IS NOT NULL)::text";
        Ok(self.value(has).await? == "true")
    }

    /// Every row in the failures table was rejected by the trigger. None is there because of an outage.
    pub async fn only_rejected_rows_are_noted(&self) -> Result<(), String> {
        if !self.has_failures_table().await? {
            return Ok(());
        }
        if !self.testbed.schedule.shape.rejects {
            return Err("there is a failures table, although no row is rejected".to_owned());
        }
        let others = "SELECT COALESCE(string_agg(to_jsonb(f)::text, '; '), '') FROM jobs_failures f \
                      WHERE error NOT LIKE '%rejected by the trigger%'";
        let others = self.value(others).await?;
        if others.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the failures table has rows that the trigger did not reject: {others}"
        ))
    }

    /// The operator removes the trigger and has the rows retried.
    pub async fn failed_rows_are_retried(&self) -> Result<(), String> {
        self.execute(Shape::ACCEPT_ALL).await?;
        if let Some(documents) = &self.testbed.schedule.documents {
            self.execute(&tables::accept_all(documents)).await?;
        }
        for job in self.jobs().await? {
            self.succeeds("retry-failed", &job.id).await?;
        }
        if self.has_failures_table().await? {
            let none = "SELECT NOT EXISTS (SELECT FROM jobs_failures)";
            let what = "the failures table is empty";
            self.until(none, RECOVERY_TIMEOUT, what).await?;
        }
        self.vectors_are_right().await
    }
}
