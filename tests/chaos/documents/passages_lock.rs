//! The lock that writers of passages take in turn, as `pg_locks` shows it.

use std::time::{Duration, Instant};

use lantern::pipeline::slot::session_locks;
use tokio_postgres::{Client, Error};

use super::PassageTableName;

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The key of the lock.
pub async fn key(client: &Client, table: PassageTableName) -> Result<i64, Error> {
    let oid = "SELECT COALESCE(to_regclass($1)::oid, 0)";
    let oid = client.query_one(oid, &[&table.qualified]).await?;
    Ok(session_locks::passages(oid.get(0)))
}

/// Waits until a session waits for the lock; false if none does.
pub async fn is_awaited(client: &Client, key: i64, patience: Duration) -> Result<bool, Error> {
    comes(client, "EXISTS", "NOT granted", key, patience).await
}

/// Waits until no session has the lock or waits for it; false if one does for long.
pub async fn is_vacant(client: &Client, key: i64, patience: Duration) -> Result<bool, Error> {
    comes(client, "NOT EXISTS", "true", key, patience).await
}

async fn comes(
    client: &Client,
    exists: &str,
    which: &str,
    key: i64,
    patience: Duration,
) -> Result<bool, Error> {
    let question = format!(
        "SELECT {exists} (SELECT FROM pg_locks WHERE locktype = 'advisory' AND {which} AND objsubid = 1 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (classid::bigint << 32) | objid::bigint = $1)"
    );
    let began = Instant::now();
    while began.elapsed() < patience {
        if client.query_one(&question, &[&key]).await?.get(0) {
            return Ok(true);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(false)
}
