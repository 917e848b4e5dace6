//! Two writers of the same passages: a `resync` is held within its write, behind the guard and before its first change, and
//! a daemon comes to write meanwhile.
//!
//! ```text
//!  resync  reads ── embeds ── locks the passages, sees them ─ is held ──────────────────────── writes
//!  daemon  halts ───────────────────────────────────────────── reads ── embeds ── waits for the lock ── sees what resync did
//!  here    edits the documents ─────────────────────────────── perhaps edits again ─────────── lets resync go on
//! ```
//!
//! Both have read the passages of one version. With no further edit they find one text, and the vectors of its passages
//! at places where they are no more; with one, the version that `resync` writes is the older one.
//!
//! The documents are [quiet rows](super::quiet_rows).

use std::time::Duration;

use lantern::pipeline::slot::session_locks;
use nix::sys::signal::Signal;
use tokio_postgres::{Client, Error};

use super::passages_lock::is_awaited;
use super::quiet_rows::{Edit, QuietRows};
use super::tables::{HELD_COMMAND, HOLD, hold};
use super::{Documents, resync};
use crate::faults::client;
use crate::testbed::Testbed;

/// How long the job is waited for at most.
const STARTS_WITHIN: Duration = Duration::from_secs(2);
/// How long `resync` is waited for, and the daemons halt, at most.
const HALT: Duration = Duration::from_secs(3);
/// How long the daemon is waited for at most.
const PATIENCE: Duration = Duration::from_millis(600);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Plays it, unless `resync` has nothing to write.
pub async fn play(
    testbed: &Testbed,
    quiet: QuietRows,
    (all, edits_again): (bool, bool),
) -> Result<(), Error> {
    let Some(documents) = &testbed.schedule.documents else {
        return Ok(());
    };
    let shape = &testbed.schedule.shape;
    let _alone = testbed.at_passages.lock().await;
    let (holder, editor) = (client(testbed).await?, client(testbed).await?);
    // Before the job has its passages there is nothing to compare with.
    let _ = tokio::time::timeout(STARTS_WITHIN, has_started(&editor)).await;
    editor.batch_execute(&hold(shape, documents.table)).await?;
    quiet.edit(&editor, shape, Edit::Lengthen).await?;
    let written = has_passages(&editor, documents, quiet, testbed);
    let _ = tokio::time::timeout(STARTS_WITHIN, written).await;
    holder
        .batch_execute(&format!("SELECT pg_advisory_lock({HOLD})"))
        .await?;
    let signal_all = |signal| {
        let managers = testbed.managers.iter();
        managers.for_each(|manager| manager.signal(signal));
    };
    signal_all(Signal::SIGSTOP);
    let shifted = quiet.edit(&editor, shape, Edit::Shift).await;
    let meanwhile = async {
        let is_held = is_awaited(&editor, HOLD, HALT).await;
        signal_all(Signal::SIGCONT);
        testbed.record.recoverable();
        if is_held? {
            if edits_again {
                quiet.edit(&editor, shape, Edit::Shift).await?;
            }
            let came = another_comes(&editor, documents).await?;
            testbed.log(&format!("resync is held; the daemon waits for it: {came}"));
        } else {
            testbed.log("resync writes nothing");
        }
        let go_on = format!("SELECT pg_advisory_unlock({HOLD})");
        holder.batch_execute(&go_on).await
    };
    let variables = [("PGAPPNAME", HELD_COMMAND)];
    // Another run would mend what the first one has done.
    let (done, held) = tokio::join!(resync::run(testbed, all, 1, &variables), meanwhile);
    // Where something failed, no daemon stays halted.
    signal_all(Signal::SIGCONT);
    drop(holder);
    shifted.and(done).and(held)
}

/// Waits until existing rows have their passages.
async fn has_started(client: &Client) -> Result<(), Error> {
    let started =
        "SELECT bool_and(init_finished_at IS NOT NULL) FROM jobs WHERE chunk_table IS NOT NULL";
    wait_for(client, started).await
}

/// Waits until the documents have passages.
async fn has_passages(
    client: &Client,
    documents: &Documents,
    quiet: QuietRows,
    testbed: &Testbed,
) -> Result<(), Error> {
    let keys: Vec<String> = quiet
        .edited()
        .map(|row| format!("({})", testbed.schedule.shape.key(row)))
        .collect();
    let columns = testbed.schedule.shape.key_columns();
    let written = format!(
        "SELECT count(DISTINCT ({columns})) = {} FROM {} WHERE ({columns}) IN ({})",
        keys.len(),
        documents.table.view,
        keys.join(", ")
    );
    wait_for(client, &written).await
}

/// Waits until the daemon waits for the lock of the passages; false where it does not come.
async fn another_comes(client: &Client, documents: &Documents) -> Result<bool, Error> {
    let oid = "SELECT COALESCE(to_regclass($1)::oid, 0)";
    let oid = client.query_one(oid, &[&documents.table.qualified]).await?;
    is_awaited(client, session_locks::passages(oid.get(0)), PATIENCE).await
}

/// Waits until a query returns true, or the server cannot be asked.
async fn wait_for(client: &Client, query: &str) -> Result<(), Error> {
    while client
        .query_one(query, &[])
        .await?
        .get::<_, Option<bool>>(0)
        != Some(true)
    {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
