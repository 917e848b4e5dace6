//! Watches the server past the proxy: whether the job streams, and whether users wait for the daemon.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::client::connect_when_ready;

use super::record::Record;
use super::workload::USER;

const POLL_INTERVAL: Duration = Duration::from_millis(40);

/// Users may wait for the daemon as long as its `lock_timeout`, 300 ms. An observed wait is up to two intervals too
/// long.
const MAX_WAIT: Duration = Duration::from_millis(380);

/// Whether a slot is read from, and which users wait for a lock that a daemon holds or is queued for.
const OBSERVE: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database() AND active), \
    ARRAY(SELECT format('%s since %s: %s', u.pid, u.query_start, left(u.query, 200)) FROM pg_stat_activity u \
          WHERE u.datname = current_database() AND u.application_name = $1 AND u.wait_event_type = 'Lock' \
          AND EXISTS (SELECT FROM unnest(pg_blocking_pids(u.pid)) b JOIN pg_stat_activity d ON d.pid = b \
                      WHERE d.application_name LIKE 'lantern-cli%'))";

/// Watches until it is aborted.
pub async fn watch(uri: String, record: Arc<Record>) {
    let mut waiting: HashMap<String, Duration> = HashMap::new();
    let mut streaming = false;
    loop {
        let client = connect_when_ready(&uri, "chaos-monitor").await;
        let mut observed_at = Instant::now();
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let Ok(row) = client.query_one(OBSERVE, &[&USER]).await else {
                break;
            };
            // A longer gap is a pause of the whole machine.
            let passed = observed_at.elapsed().min(POLL_INTERVAL * 2);
            observed_at = Instant::now();
            let now: bool = row.get(0);
            if now || streaming {
                record.streaming(now);
            }
            streaming = now;
            let seen: Vec<String> = row.get(1);
            waiting.retain(|statement, _| seen.contains(statement));
            for statement in seen {
                let waited = waiting.entry(statement.clone()).or_default();
                *waited += passed;
                let waited = *waited;
                record.behind_daemon(waited);
                // Reported once.
                if waited > MAX_WAIT && waited.checked_sub(passed).unwrap() <= MAX_WAIT {
                    record.violation(format!(
                        "a user waits for the daemon for more than {} ms: {statement}",
                        MAX_WAIT.as_millis()
                    ));
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
