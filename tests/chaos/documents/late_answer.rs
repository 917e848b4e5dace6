//! The answer to a write-back comes late, and the documents have changed again before that.
//!
//! ```text
//!  daemon  reads, sends ─ waits for the lock ─ writes ─────────────── has the answer: the write was of the version before
//!  here    locks the passages ─ holds answers back, unlocks ── edits ─ pause
//!  stream                                                      the edits come
//! ```
//!
//! The documents are [quiet rows](super::quiet_rows).

use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::Error;

use super::passages_lock::{self, is_awaited, is_vacant};
use super::quiet_rows::{Edit, QuietRows};
use super::readiness::settle;
use crate::faults::client;
use crate::proxy::{Condition, Kind};
use crate::testbed::Testbed;

/// How long a write-back is waited for: the daemon may be down.
const COMES_WITHIN: Duration = Duration::from_secs(2);
/// How long answers are held back.
const PAUSE: Duration = Duration::from_millis(600);
/// How long a write-back takes at most.
const PATIENCE: Duration = Duration::from_millis(300);

/// Plays it, unless the daemon does not write meanwhile.
pub async fn play(testbed: &Testbed, quiet: QuietRows) -> Result<(), Error> {
    let shape = &testbed.schedule.shape;
    let _alone = testbed.at_passages.lock().await;
    let Some(table) = settle(testbed, quiet).await else {
        return Ok(());
    };
    let (locker, editor) = (client(testbed).await?, client(testbed).await?);
    let key = passages_lock::key(&editor, table).await?;
    let lock = format!("BEGIN; SELECT pg_advisory_xact_lock({key})");
    locker.batch_execute(&lock).await?;
    quiet.edit(&editor, shape, Edit::Lengthen).await?;
    let came = is_awaited(&editor, key, COMES_WITHIN).await?;
    // It may be one of users' documents, which were ready before. Then that of the quiet rows comes next.
    locker.batch_execute("COMMIT").await?;
    locker.batch_execute(&lock).await?;
    if came && !is_awaited(&editor, key, PATIENCE).await? {
        quiet.edit(&editor, shape, Edit::Lengthen).await?;
    }
    if !is_awaited(&editor, key, COMES_WITHIN).await? {
        testbed.log("no write-back came");
        return locker.batch_execute("COMMIT").await;
    }
    let networks = (0..testbed.managers.len()).map(|daemon| testbed.proxy.network(daemon));
    let stalled =
        networks.map(|network| network.condition(Kind::Sql, Condition::Stalled, PAUSE, false));
    // Answers are held back from the first poll on.
    let (_, edited) = tokio::join!(biased; join_all(stalled), async {
        locker.batch_execute("COMMIT").await?;
        if !is_vacant(&editor, key, PATIENCE).await? {
            testbed.log("the write-back goes on");
        }
        quiet.edit(&editor, shape, Edit::Each).await
    });
    testbed.record.recoverable();
    edited
}
