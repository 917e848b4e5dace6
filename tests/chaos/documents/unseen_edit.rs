//! Documents change between the reading and the write of their passages, and the daemon does not hear of it in time.
//!
//! ```text
//!  daemon  reads ── embeds ── sends ─ waits for the lock ───────────────────────── writes, or sees that the rows changed
//!  here        locks the passages ──────────────────── edits the documents ─ pause ─ unlocks
//!  stream                                              held back, or its reader is killed ───────────── the edits come
//! ```
//!
//! A write-back of the texts before the edits is what the reader of passages reports.

use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio_postgres::{Client, Error};

use super::passages_lock::{self, is_awaited};
use super::quiet_rows::QuietRows;
use super::readiness::settle;
use super::tables::WATCHED;
use crate::faults::client;
use crate::proxy::{Condition, Kind};
use crate::testbed::Testbed;

/// How long a write-back is waited for: the daemon may be down.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the edits to the write-back, and from there to the edits in the stream: time for the reader to look.
const PAUSE: Duration = Duration::from_millis(300);

/// Plays it, unless the daemon does not write meanwhile.
pub async fn play(testbed: &Testbed, quiet: QuietRows, kills: bool) -> Result<(), Error> {
    let _alone = testbed.at_passages.lock().await;
    let Some(table) = settle(testbed, quiet).await else {
        return Ok(());
    };
    let (locker, editor) = (client(testbed).await?, client(testbed).await?);
    let key = passages_lock::key(&editor, table).await?;
    let lock = format!("BEGIN; SELECT pg_advisory_xact_lock({key})");
    locker.batch_execute(&lock).await?;
    edit(testbed, &editor).await?;
    if !is_awaited(&editor, key, PATIENCE).await? {
        testbed.log("no write-back came");
        return locker.batch_execute("COMMIT").await;
    }
    if kills {
        edit(testbed, &editor).await?;
        for manager in &testbed.managers {
            manager.signal(Signal::SIGKILL);
        }
        tokio::time::sleep(PAUSE).await;
        return locker.batch_execute("COMMIT").await;
    }
    let networks = (0..testbed.managers.len()).map(|daemon| testbed.proxy.network(daemon));
    let stalled = networks
        .map(|network| network.condition(Kind::Replication, Condition::Stalled, PAUSE * 2, false));
    // The streams are held back from the first poll on.
    let (_, edited) = tokio::join!(biased; join_all(stalled), async {
        edit(testbed, &editor).await?;
        tokio::time::sleep(PAUSE).await;
        locker.batch_execute("COMMIT").await
    });
    testbed.record.recoverable();
    edited
}

/// Changes the documents that users change, but those that a user has locked.
async fn edit(testbed: &Testbed, client: &Client) -> Result<(), Error> {
    let shape = &testbed.schedule.shape;
    let edit = format!(
        "UPDATE notes n SET body = edited(n.body, 'lengthen', 0, '') FROM ( \
           SELECT {keys} FROM notes o WHERE o.body <> '' AND EXISTS (SELECT FROM {WATCHED} w WHERE NOT w.is_quiet AND {is_watched}) \
           FOR UPDATE OF o SKIP LOCKED) l WHERE {is_locked}",
        keys = shape.key_columns(),
        is_watched = shape.same_key("w", "o"),
        is_locked = shape.same_key("n", "l"),
    );
    client.batch_execute(&edit).await
}
