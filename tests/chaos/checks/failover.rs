//! One of several daemons is lost: others take over.

use std::time::Instant;

use super::RECOVERY_TIMEOUT;
use super::checker::Checker;
use crate::faults;
use crate::schedule::Loss;

const MEANWHILE: u64 = 1_999_999;

impl Checker<'_> {
    /// Takes down the daemon that streams, and waits until others read all its slots and a row written meanwhile has
    /// its vectors; returns the number of the lost daemon.
    pub async fn others_take_over(&self, loss: Loss) -> Result<usize, String> {
        let daemon = faults::take_down(self.testbed, loss)
            .await
            .map_err(|error| format!("no daemon could be taken down: {error:?}"))?;
        let began = Instant::now();
        self.insert(MEANWHILE).await?;
        // By way of JSON: the daemon may not have created a new destination yet.
        let has_vectors: Vec<String> = self
            .jobs()
            .await?
            .into_iter()
            .filter(|job| job.table == "notes")
            .map(|job| match job.passages {
                Some((table, _)) => format!(
                    "EXISTS (SELECT FROM {} p WHERE {} AND p.embedding IS NOT NULL)",
                    table.qualified,
                    self.testbed.schedule.shape.same_key("p", "n")
                ),
                None => format!("to_jsonb(n) ->> '{}' IS NOT NULL", job.destination),
            })
            .collect();
        let taken_over = format!(
            "{} AND NOT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid \
               WHERE s.database = current_database() \
                 AND COALESCE(substring(r.application_name FROM '^lantern-cli-(\\d+)$')::int, 1) = {}) \
             AND (SELECT {} FROM notes n WHERE {})",
            self.streaming(),
            daemon + 1,
            has_vectors.join(" AND "),
            self.testbed.schedule.shape.is(MEANWHILE)
        );
        let what = "others have taken over from the daemon that is lost";
        self.until(&taken_over, RECOVERY_TIMEOUT, what).await?;
        self.testbed.record.taken_over(loss, began.elapsed());
        Ok(daemon)
    }
}
