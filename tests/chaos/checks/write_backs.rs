//! The daemon ignores its own write-backs in the stream.

use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::wait::poll_until;

use super::checker::Checker;
use super::{CATCH_UP_TIMEOUT, RECOVERY_TIMEOUT, WAL_END};
use crate::schedule::Fault;

/// How often a job looks at its table.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

const LAST_ROWS: std::ops::Range<u64> = 2_000_000..2_000_030;

impl Checker<'_> {
    /// Kills the daemons as soon as the last change of a user is confirmed. Most of their write-backs come after that
    /// in the stream. The next daemons remember nothing of them, and still must not change any row.
    pub async fn own_write_backs_are_ignored(&self) -> Result<(), String> {
        let Self { testbed, .. } = self;
        testbed.log("killing the daemons, to see whether the next ones ignore their write-backs");
        for row in LAST_ROWS {
            self.insert(row).await?;
        }
        self.all_is_noticed().await;
        self.partitions_are_old().await?;
        let now = self.value(WAL_END).await?;
        let confirmed = format!(
            "SELECT bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots WHERE database = current_database()"
        );
        // Without a pause: the write-backs themselves are confirmed a moment later.
        let what = "the last changes are confirmed";
        self.until_at_once(&confirmed, CATCH_UP_TIMEOUT, what)
            .await?;
        testbed.record.disturbed();
        for manager in &testbed.managers {
            manager.signal(Signal::SIGKILL);
        }
        let before = self.row_versions().await?;
        let inactive = "SELECT NOT bool_or(active) FROM pg_replication_slots WHERE database = current_database()";
        let what = "the server notices that the daemons are dead";
        self.until(inactive, RECOVERY_TIMEOUT, what).await?;
        // A commit after the write-backs, which the next daemons have to confirm.
        self.execute("INSERT INTO unrelated VALUES (1)").await?;
        let what = "the jobs stream again after the last restart";
        self.until(&self.streaming(), RECOVERY_TIMEOUT, what)
            .await?;
        self.caught_up().await?;
        let after = self.row_versions().await?;
        if before == after {
            return Ok(());
        }
        Err(format!(
            "write-backs were processed again: {}",
            difference(&before, &after)
        ))
    }

    /// A job may work on the right rows, and yet notice only at its next look that its table was swapped, or that its
    /// publication is gone, which a server from 18 on passes over. Nothing in SQL tells that before. Then the rows that were
    /// just inserted get their vectors only after that look.
    async fn all_is_noticed(&self) {
        let is_noticed_by_a_look =
            |fault: &Fault| matches!(fault, Fault::SwapTable { .. } | Fault::DropPublication);
        let faults = &self.testbed.schedule.faults;
        if faults
            .iter()
            .any(|incident| is_noticed_by_a_look(&incident.fault))
        {
            tokio::time::sleep(2 * LOOK_INTERVAL).await;
        }
    }

    /// Waits until each slot is certainly younger than every link to a partition. Before that, a daemon that starts may
    /// scan a new partition once more, as it should.
    async fn partitions_are_old(&self) -> Result<(), String> {
        let old = "SELECT COALESCE((SELECT max(age(catalog_xmin)) FROM pg_replication_slots WHERE database = current_database()) \
                   < (SELECT min(age(xmin)) FROM pg_inherits), true)";
        let check = async || {
            // A checkpoint logs which transactions run, by which slots advance.
            self.execute("CHECKPOINT").await?;
            self.execute("INSERT INTO unrelated VALUES (1)").await?;
            match self.value(&format!("SELECT ({old})::text")).await?.as_str() {
                "true" => Ok(()),
                _ => Err("the slots do not advance past the new partitions".to_owned()),
            }
        };
        poll_until(Duration::from_millis(100), CATCH_UP_TIMEOUT, check).await
    }

    /// Each row's place and the transaction that wrote it, in the tables that the jobs write.
    async fn row_versions(&self) -> Result<Vec<String>, String> {
        let versions = |table: &str| {
            format!("SELECT tableoid::text || ' ' || ctid::text || ' ' || xmin::text FROM {table}")
        };
        let jobs = self.jobs().await?;
        let passages = jobs.iter().filter_map(|job| job.passages.as_ref());
        let tables = passages.map(|(table, _)| table.qualified).chain(["notes"]);
        let tables: Vec<String> = tables.map(versions).collect();
        let query = format!("{} ORDER BY 1", tables.join(" UNION ALL "));
        let rows = self.rows(&query).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

fn difference(before: &[String], after: &[String]) -> String {
    let new: Vec<&String> = after
        .iter()
        .filter(|row| before.binary_search(row).is_err())
        .collect();
    let examples: Vec<&&String> = new.iter().take(4).collect();
    format!("{} new row versions, such as {examples:?}", new.len())
}
