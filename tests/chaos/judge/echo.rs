//! No write-back is taken for news.

use nix::sys::signal::Signal;

use super::questions::Judge;
use super::{NOW, PATIENCE, RECOVERY};

const LAST_ROWS: std::ops::Range<u64> = 2_000_000..2_000_030;

impl Judge<'_> {
    /// Kills the daemons at the moment when the last change of a user is confirmed. Whatever comes behind that in the stream is
    /// their own, and most of their write-backs do: the next daemons, which remember nothing, must not change any row.
    pub async fn nothing_is_taken_for_news(&self) -> Result<(), String> {
        let Self { stage, .. } = self;
        stage.say("killing the daemons, to see whether they take their own write-backs for news");
        for row in LAST_ROWS {
            self.insert(row).await?;
        }
        let now = self.value(NOW).await?;
        let confirmed = format!(
            "SELECT bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots WHERE database = current_database()"
        );
        // Without a pause: the write-backs themselves are confirmed a moment later.
        let what = "the last changes of all are confirmed";
        self.until_at_once(&confirmed, PATIENCE, what).await?;
        stage.record.disturbed();
        for keeper in &stage.keepers {
            keeper.signal(Signal::SIGKILL);
        }
        let before = self.versions().await?;
        let inactive = "SELECT NOT bool_or(active) FROM pg_replication_slots WHERE database = current_database()";
        let what = "the server notices that the daemons are dead";
        self.until(inactive, RECOVERY, what).await?;
        self.execute("INSERT INTO aside VALUES (1)").await?;
        let what = "the jobs stream again after the last restart";
        self.until(&self.streaming(), RECOVERY, what).await?;
        self.caught_up().await?;
        let after = self.versions().await?;
        if before == after {
            return Ok(());
        }
        Err(format!(
            "write-backs were taken for news: {}",
            difference(&before, &after)
        ))
    }

    /// Each row's place and the transaction that wrote it.
    async fn versions(&self) -> Result<Vec<String>, String> {
        let query =
            "SELECT tableoid::text || ' ' || ctid::text || ' ' || xmin::text FROM notes ORDER BY 1";
        let rows = self.rows(query).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

fn difference(before: &[String], after: &[String]) -> String {
    let news: Vec<&String> = after
        .iter()
        .filter(|row| before.binary_search(row).is_err())
        .collect();
    format!(
        "{} new row versions, among them {:?}",
        news.len(),
        news.iter().take(4).collect::<Vec<_>>()
    )
}
