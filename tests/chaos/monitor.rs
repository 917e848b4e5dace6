//! Watches the server from beside the proxy: whether the job streams, and whether users wait for the daemon.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::Record;
use super::server::connect_patiently;
use super::workload::USER;

const EVERY: Duration = Duration::from_millis(40);

/// Users may wait for the daemon as long as its `lock_timeout`, 300 ms, and for as long as it takes both of them to get
/// going again on a machine with more to do than it has processors.
const LONGEST_WAIT: Duration = Duration::from_millis(1000);

/// Whether the slot of the job is read from, and which users wait for a lock that a daemon holds or is queued for.
const LOOK: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database() AND active), \
    ARRAY(SELECT format('%s since %s: %s', u.pid, u.query_start, left(u.query, 200)) FROM pg_stat_activity u \
          WHERE u.datname = current_database() AND u.application_name = $1 AND u.wait_event_type = 'Lock' \
          AND EXISTS (SELECT FROM unnest(pg_blocking_pids(u.pid)) b JOIN pg_stat_activity d ON d.pid = b \
                      WHERE d.application_name LIKE 'lantern-cli%'))";

/// Watches until it is aborted.
pub async fn watch(uri: String, record: Arc<Record>) {
    let mut waiting: HashMap<String, Instant> = HashMap::new();
    let mut streaming = false;
    loop {
        let client = connect_patiently(&uri, "chaos-monitor").await;
        loop {
            tokio::time::sleep(EVERY).await;
            let Ok(row) = client.query_one(LOOK, &[&USER]).await else {
                break;
            };
            let now: bool = row.get(0);
            if now || streaming {
                record.streaming(now);
            }
            streaming = now;
            let seen: Vec<String> = row.get(1);
            waiting.retain(|statement, _| seen.contains(statement));
            for statement in seen {
                let since = *waiting
                    .entry(statement.clone())
                    .or_insert_with(Instant::now);
                let waited = since.elapsed();
                record.behind_daemon(waited);
                if waited > LONGEST_WAIT {
                    record.violation(format!(
                        "a user waits for the daemon for {} ms: {statement}",
                        waited.as_millis()
                    ));
                    waiting.insert(statement, Instant::now() + Duration::from_secs(3600));
                }
            }
        }
        if streaming {
            record.streaming(false);
        }
        streaming = false;
        waiting.clear();
    }
}
