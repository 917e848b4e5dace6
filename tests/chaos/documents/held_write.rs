//! Two writers of the same passages: a `resync` is held within its write, behind the guard and before its first change, and
//! a daemon comes to write meanwhile.
//!
//! ```text
//!  resync  waits for the column ── reads ── embeds ── locks the passages, sees them ── is held ──────────────── writes
//!  daemon              halts ───────────────────────────────────────────────────────── reads ── embeds ── waits for the lock
//!  here         edits the documents, frees the column ──────────────────────────────── perhaps edits again ──── ends the hold
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

use super::passages_lock::{self, is_awaited};
use super::quiet_rows::{Edit, QuietRows};
use super::readiness::{is_shown, settle};
use super::tables::{HELD_COMMAND, HOLD, hold};
use super::{PassageTableName, resync};
use crate::faults::client;
use crate::testbed::Testbed;

/// How long `resync` is waited for until it begins.
const BEGINS_WITHIN: Duration = Duration::from_secs(8);
/// How long it is waited for until it writes, and the daemons halt, at most.
const HALT: Duration = Duration::from_secs(3);
/// How long the daemon is waited for at most.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Plays it, unless `resync` has nothing to write.
pub async fn play(
    testbed: &Testbed,
    quiet: QuietRows,
    (all, edits_again): (bool, bool),
) -> Result<(), Error> {
    let _alone = testbed.at_passages.lock().await;
    let Some(table) = settle(testbed, quiet).await else {
        return Ok(());
    };
    let (holder, editor) = (client(testbed).await?, client(testbed).await?);
    let shape = &testbed.schedule.shape;
    editor.batch_execute(&hold(shape, table)).await?;
    let column = column_of_command(&editor, table).await?;
    let locks = format!("SELECT pg_advisory_lock({column}), pg_advisory_lock({HOLD})");
    holder.batch_execute(&locks).await?;
    let meanwhile = async {
        let played = hold_it(testbed, quiet, (table, column, edits_again), &holder).await;
        // Where something failed, no daemon stays halted and no command held.
        signal_all(testbed, Signal::SIGCONT);
        let end = holder
            .batch_execute("SELECT pg_advisory_unlock_all()")
            .await;
        played.and(end)
    };
    let variables = [("PGAPPNAME", HELD_COMMAND)];
    // Another run would mend what the first one has done.
    let (done, held) = tokio::join!(resync::run(testbed, all, 1, &variables), meanwhile);
    done.and(held)
}

/// Lets `resync` begin and come to its write, and then the daemons.
async fn hold_it(
    testbed: &Testbed,
    quiet: QuietRows,
    (table, column, edits_again): (PassageTableName, i64, bool),
    holder: &Client,
) -> Result<(), Error> {
    let editor = client(testbed).await?;
    let shape = &testbed.schedule.shape;
    if !is_awaited(&editor, column, BEGINS_WITHIN).await? {
        testbed.log("resync does not begin");
        return Ok(());
    }
    signal_all(testbed, Signal::SIGSTOP);
    quiet.edit(&editor, shape, Edit::Shift).await?;
    let begin = format!("SELECT pg_advisory_unlock({column})");
    holder.batch_execute(&begin).await?;
    let is_held = is_awaited(&editor, HOLD, HALT).await;
    signal_all(testbed, Signal::SIGCONT);
    testbed.record.recoverable();
    if !is_held? {
        testbed.log("resync does not write");
        return Ok(());
    }
    if edits_again {
        quiet.edit(&editor, shape, Edit::Shift).await?;
    }
    let key = passages_lock::key(&editor, table).await?;
    let has_come = async {
        // Without the lock it would write at once.
        while !is_awaited(&editor, key, POLL_INTERVAL).await?
            && !is_shown(&editor, table, testbed, quiet).await?
        {}
        Ok::<(), Error>(())
    };
    let has_come = tokio::time::timeout(PATIENCE, has_come).await;
    testbed.log(&format!("resync was held; the daemon came: {has_come:?}"));
    Ok(())
}

fn signal_all(testbed: &Testbed, signal: Signal) {
    let managers = testbed.managers.iter();
    managers.for_each(|manager| manager.signal(signal));
}

/// The lock that a command takes before it reads anything.
async fn column_of_command(client: &Client, table: PassageTableName) -> Result<i64, Error> {
    let column = "SELECT a.attrelid, a.attnum FROM pg_attribute a JOIN jobs j ON a.attname = j.dst_column \
                  WHERE j.chunk_table IS NOT NULL AND a.attrelid = to_regclass($1)";
    let column = client.query_one(column, &[&table.qualified]).await?;
    Ok(session_locks::column_of_command(
        column.get(0),
        column.get(1),
    ))
}
