//! Applies the faults of a schedule to its testbed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use testkit::client::try_connect;
use testkit::random::Random;
use testkit::restartable::Stop;
use testkit::tiny_model::TinyModel;
use tokio::sync::MutexGuard;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};

use super::daemon::number;
use super::documents::edits::quoted;
use super::documents::quiet_rows::{Edit, QuietRows};
use super::documents::readiness::settle;
use super::documents::{OTHER_TABLE, held_write, late_answer, resync, texts, unseen_edit};
use super::role;
use super::schedule::{Fault, Incident, Loss};
use super::swap;
use super::testbed::{HARNESS, Testbed};

/// A row that no user touches.
const UNTOUCHED_ROW: u64 = 999_999;
/// Another one, for a long document.
pub const LONG_DOCUMENT: u64 = 999_998;

/// Between two attempts to end a fault, while the server is down.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How often an operator runs `resync` in a row.
const RESYNCS: usize = 2;
/// Until all sessions of a server have its new settings.
const TIME_TO_RELOAD: Duration = Duration::from_millis(20);

/// Commits wait for no standby.
pub const NO_STANDBY: [&str; 2] = [
    "ALTER SYSTEM RESET synchronous_standby_names",
    "SELECT pg_reload_conf()",
];

/// Applies all faults of a schedule at their times; returns when the last of them is over.
pub async fn run(testbed: Arc<Testbed>) {
    // Faults that last run concurrently with later ones.
    let mut lasting = JoinSet::new();
    let incidents = testbed.schedule.faults.clone().into_iter();
    for (Incident { at, daemon, fault }, quiet) in incidents.zip(testbed.schedule.quiet_rows()) {
        tokio::time::sleep_until((testbed.began + at).into()).await;
        testbed.log(&format!("{fault:?}"));
        testbed.record.disturbed();
        if lasts(&fault) {
            let testbed = Arc::clone(&testbed);
            lasting.spawn(async move {
                let result = apply(&testbed, (daemon, quiet), &fault).await;
                report(&testbed, &fault, result);
            });
        } else {
            let result = apply(&testbed, (daemon, quiet), &fault).await;
            report(&testbed, &fault, result);
        }
    }
    lasting.join_all().await;
}

fn lasts(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Freeze(_)
            | Fault::Network { .. }
            | Fault::SecondDaemon(_)
            | Fault::LongTransaction { .. }
            | Fault::InvisibleCommits(_)
            | Fault::HideRows(_)
            | Fault::RefuseRole { .. }
            | Fault::Clone(_)
            | Fault::Resync { .. }
            | Fault::HeldWrite { .. }
            | Fault::UnseenEdit { .. }
            | Fault::LateAnswer
    )
}

/// A fault may fail because of another one: the server is down, for example.
fn report(testbed: &Testbed, fault: &Fault, result: Result<(), Error>) {
    match result {
        Ok(()) => testbed.log(&format!("done: {fault:?}")),
        Err(error) => testbed.log(&format!("not done: {fault:?}: {error:?}")),
    }
}

/// `daemon` is the number of the one that the fault strikes, `quiet` the documents that are its own.
async fn apply(
    testbed: &Testbed,
    (daemon, quiet): (usize, QuietRows),
    fault: &Fault,
) -> Result<(), Error> {
    let (manager, network) = (&testbed.managers[daemon], testbed.proxy.network(daemon));
    match fault {
        Fault::Kill => manager.signal(Signal::SIGKILL),
        Fault::Terminate => manager.signal(Signal::SIGTERM),
        Fault::Freeze(pause) => {
            manager.signal(Signal::SIGSTOP);
            tokio::time::sleep(*pause).await;
            manager.signal(Signal::SIGCONT);
            testbed.record.recoverable();
        }
        Fault::Failpoint(failpoint) => manager.kill_and_arm(failpoint),
        Fault::Cut(kinds) => {
            kinds.iter().for_each(|kind| network.cut(*kind));
            testbed.record.recoverable();
        }
        Fault::CutAfter(kind, direction, bytes) => network.cut_after(*kind, *direction, *bytes),
        Fault::Network {
            kinds,
            condition,
            pause,
            half_open,
        } => {
            let storms = kinds
                .iter()
                .map(|kind| network.condition(*kind, *condition, *pause, *half_open));
            join_all(storms).await;
            testbed.record.recoverable();
        }
        Fault::Restart(stop, pause) => restart(testbed, *stop, *pause).await,
        Fault::TerminateWalsender => return terminate(testbed, "walsender").await,
        Fault::TerminateBackends => return terminate(testbed, "client backend").await,
        Fault::DropSlot => return drop_slot(testbed).await,
        Fault::InvalidateSlot => return invalidate_slot(testbed).await,
        Fault::DropPublication => return drop_publications(testbed).await,
        Fault::SecondDaemon(pause) => {
            let second = testbed.config.start(0, "");
            tokio::time::sleep(*pause).await;
            drop(second);
        }
        Fault::LongTransaction { pause, writes } => {
            return long_transaction(testbed, *pause, *writes).await;
        }
        Fault::Cancel(pause) => {
            let client = client(testbed).await?;
            client
                .batch_execute("UPDATE jobs SET canceled_at = true")
                .await?;
            tokio::time::sleep(*pause).await;
            client
                .batch_execute("UPDATE jobs SET canceled_at = NULL")
                .await?;
        }
        Fault::Recreate(pause) => {
            let client = client(testbed).await?;
            client.batch_execute("DELETE FROM jobs").await?;
            tokio::time::sleep(*pause).await;
            testbed.insert_jobs(&client).await?;
        }
        Fault::ChangeModel => return change_model(testbed).await,
        Fault::ChangeDestination => return change_destination(testbed).await,
        Fault::SwapTable { keeps_old } => return swap_table(testbed, *keeps_old).await,
        Fault::InvisibleCommits(pause) => return invisible_commits(testbed, *pause, quiet).await,
        Fault::HideRows(pause) => return hide_rows(testbed, *pause, quiet).await,
        Fault::RefuseRole {
            refusal,
            pause,
            ends_sessions,
        } => {
            let client = client(testbed).await?;
            client.batch_execute(refusal.begin()).await?;
            if *ends_sessions {
                terminate(testbed, "walsender").await?;
                terminate(testbed, "client backend").await?;
            }
            tokio::time::sleep(*pause).await;
            client.batch_execute(role::ADMIT).await?;
        }
        Fault::Clone(pause) => clone(testbed, *pause).await,
        Fault::KillInDocument(batches) => {
            let written = write_long_document(testbed).await;
            manager.kill_and_arm(&format!("embedder={batches}*off->1*return"));
            return written;
        }
        Fault::ChangeCutting => return change_cutting(testbed).await,
        Fault::DropPassages => return drop_passages(testbed).await,
        Fault::Resync { all } => resync::run(testbed, *all, RESYNCS, &[]).await?,
        Fault::HeldWrite { all, edits_again } => {
            return held_write::play(testbed, quiet, (*all, *edits_again)).await;
        }
        Fault::UnseenEdit { kills } => return unseen_edit::play(testbed, quiet, *kills).await,
        Fault::LateAnswer => return late_answer::play(testbed, quiet).await,
    }
    Ok(())
}

async fn change_model(testbed: &Testbed) -> Result<(), Error> {
    let change = "UPDATE jobs SET embedding_model = $1";
    let model = TinyModel::Two.name();
    client(testbed).await?.execute(change, &[&model]).await?;
    Ok(())
}

async fn change_destination(testbed: &Testbed) -> Result<(), Error> {
    let change =
        "UPDATE jobs SET dst_column = 'another \"embedding\"' WHERE dst_column <> 'second'";
    let change = match testbed.schedule.documents {
        Some(_) => format!(
            "UPDATE jobs SET chunk_table = '{}' WHERE chunk_table IS NOT NULL; {change} AND chunk_table IS NULL",
            OTHER_TABLE.written
        ),
        None => change.to_owned(),
    };
    client(testbed).await?.batch_execute(&change).await
}

async fn drop_passages(testbed: &Testbed) -> Result<(), Error> {
    let Some(documents) = &testbed.schedule.documents else {
        return Ok(());
    };
    let drop = format!("DROP TABLE IF EXISTS {}", documents.table.qualified);
    client(testbed).await?.batch_execute(&drop).await
}

/// A connection past the proxy.
pub async fn client(testbed: &Testbed) -> Result<Client, Error> {
    try_connect(&testbed.direct, HARNESS).await
}

async fn restart(testbed: &Testbed, how: Stop, pause: Duration) {
    testbed.record.outage_begins();
    let server = Arc::clone(&testbed.server);
    let restarted = tokio::task::spawn_blocking(move || {
        let mut server = server.blocking_lock();
        server.stop(how);
        std::thread::sleep(pause);
        server.start_again();
    });
    restarted.await.expect("the server starts again");
    testbed.record.outage_ends();
}

async fn swap_table(testbed: &Testbed, keeps_old: bool) -> Result<(), Error> {
    let client = client(testbed).await?;
    for statement in swap::statements(keeps_old) {
        client.batch_execute(&statement).await?;
    }
    Ok(())
}

/// The rows of the jobs table on the clone still name the original. Another fault may keep the server from being cloned:
/// an invalidated slot is that of the base backup, too.
async fn clone(testbed: &Testbed, pause: Duration) {
    let server = Arc::clone(&testbed.server);
    let copied = tokio::task::spawn_blocking(move || server.blocking_lock().try_copy()).await;
    let Some(copy) = copied.expect("a clone that starts") else {
        testbed.log("the server could not be cloned");
        return;
    };
    let daemon = testbed.config.start_on_clone(copy.uri(&testbed.database));
    tokio::time::sleep(pause).await;
    drop(daemon);
    let stopped = tokio::task::spawn_blocking(move || drop(copy)).await;
    stopped.expect("the clone stops");
}

async fn write_long_document(testbed: &Testbed) -> Result<(), Error> {
    let shape = &testbed.schedule.shape;
    let text = texts::long_document(&mut Random::new(testbed.schedule.seed));
    let write = format!(
        "INSERT INTO notes ({keys}, body) VALUES ({key}, {text}) ON CONFLICT ({keys}) DO UPDATE \
           SET body = edited(notes.body, 'rotate', 0.3, '')",
        keys = shape.key_columns(),
        key = shape.key(LONG_DOCUMENT),
        text = quoted(&text),
    );
    client(testbed).await?.batch_execute(&write).await
}

async fn change_cutting(testbed: &Testbed) -> Result<(), Error> {
    if let Some(documents) = &testbed.schedule.documents {
        let params = testbed.params_of_documents(&documents.other_cutting);
        let change =
            "UPDATE jobs SET runtime_params = $1::text::jsonb WHERE chunk_table IS NOT NULL";
        let client = client(testbed).await?;
        client.execute(change, &[&params.to_string()]).await?;
    }
    Ok(())
}

async fn terminate(testbed: &Testbed, kind: &str) -> Result<(), Error> {
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE application_name LIKE 'lantern-cli%' AND datname = current_database() AND backend_type = $1";
    client(testbed)
        .await?
        .query_one(terminate, &[&kind])
        .await?;
    testbed.record.recoverable();
    Ok(())
}

/// A slot that is read from cannot be dropped, and the daemon soon reads from it again.
async fn drop_slot(testbed: &Testbed) -> Result<(), Error> {
    let client = client(testbed).await?;
    let drop = "DO $$ DECLARE s record; BEGIN FOR round IN 1..100 LOOP \
                  FOR s IN SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = current_database() LOOP \
                    BEGIN \
                      PERFORM pg_terminate_backend(s.active_pid) WHERE s.active_pid IS NOT NULL; \
                      PERFORM pg_drop_replication_slot(s.slot_name); RETURN; \
                    EXCEPTION WHEN object_in_use OR undefined_object THEN PERFORM pg_sleep(0.005); END; \
                  END LOOP; END LOOP; END $$";
    client.batch_execute(drop).await
}

/// Between the statements of users, which would fail (hazard 61).
async fn drop_publications(testbed: &Testbed) -> Result<(), Error> {
    let drop = "DO $$ DECLARE p name; BEGIN LOCK TABLE notes, companion IN SHARE ROW EXCLUSIVE MODE; FOR p IN SELECT pubname FROM pg_publication LOOP \
                EXECUTE format('DROP PUBLICATION %I', p); END LOOP; END $$";
    client(testbed).await?.batch_execute(drop).await
}

async fn invalidate_slot(testbed: &Testbed) -> Result<(), Error> {
    let client = client(testbed).await?;
    for statement in [
        "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'",
        "SELECT pg_reload_conf()",
        "SELECT pg_logical_emit_message(false, 'chaos', ''), pg_switch_wal()",
        "SELECT pg_logical_emit_message(false, 'chaos', ''), pg_switch_wal()",
        "SELECT pg_logical_emit_message(false, 'chaos', ''), pg_switch_wal()",
        "CHECKPOINT",
        "ALTER SYSTEM RESET max_slot_wal_keep_size",
        "SELECT pg_reload_conf()",
    ] {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// A commit that waits for a standby is in the WAL, so that it is streamed, and no other session sees it.
async fn invisible_commits(
    testbed: &Testbed,
    pause: Duration,
    quiet: QuietRows,
) -> Result<(), Error> {
    let _alone = wait_for_job(testbed, quiet).await;
    let client = client(testbed).await?;
    let standby = "ALTER SYSTEM SET synchronous_standby_names = 'absent'";
    let set = client.batch_execute(standby).await;
    let set = set.and(client.batch_execute("SELECT pg_reload_conf()").await);
    let edited = async {
        tokio::time::sleep(TIME_TO_RELOAD).await;
        edit_quiet_rows(testbed, quiet).await
    };
    let over = async {
        tokio::time::sleep(pause).await;
        // A server that was restarted meanwhile still has the setting, and no commit would end.
        while wait_for_no_standby(testbed).await.is_err() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    };
    let (edited, ()) = tokio::join!(edited, over);
    set.and(edited)
}

/// Documents change while their rows are hidden from the daemon.
async fn hide_rows(testbed: &Testbed, pause: Duration, quiet: QuietRows) -> Result<(), Error> {
    let _alone = wait_for_job(testbed, quiet).await;
    execute(testbed, role::HIDE_ROWS).await?;
    let edited = edit_quiet_rows(testbed, quiet).await;
    tokio::time::sleep(pause).await;
    // A server that was restarted meanwhile would hide them until the end.
    while execute(testbed, role::SHOW_ROWS).await.is_err() {
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    edited
}

/// Waits until the job has written the documents of a fault, where there are documents. Other faults that need it wait.
async fn wait_for_job(testbed: &Testbed, quiet: QuietRows) -> Option<MutexGuard<'_, ()>> {
    testbed.schedule.documents.as_ref()?;
    let alone = testbed.at_passages.lock().await;
    settle(testbed, quiet).await;
    Some(alone)
}

/// Changes documents that no user changes, where there are documents.
async fn edit_quiet_rows(testbed: &Testbed, quiet: QuietRows) -> Result<(), Error> {
    match testbed.schedule.documents {
        Some(_) => {
            let client = client(testbed).await?;
            let shape = &testbed.schedule.shape;
            quiet.edit(&client, shape, Edit::Each).await
        }
        None => Ok(()),
    }
}

/// Runs a statement in a session of its own.
async fn execute(testbed: &Testbed, statement: &str) -> Result<(), Error> {
    client(testbed).await?.batch_execute(statement).await
}

async fn wait_for_no_standby(testbed: &Testbed) -> Result<(), Error> {
    let client = client(testbed).await?;
    for statement in NO_STANDBY {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

async fn long_transaction(testbed: &Testbed, pause: Duration, writes: bool) -> Result<(), Error> {
    let client = client(testbed).await?;
    client.batch_execute("BEGIN").await?;
    if writes {
        let shape = &testbed.schedule.shape;
        let row = format!(
            "INSERT INTO notes ({keys}, body) VALUES ({key}, 'w1 w2') ON CONFLICT ({keys}) DO UPDATE SET body = notes.body || ' w3'",
            keys = shape.key_columns(),
            key = shape.key(UNTOUCHED_ROW),
        );
        client.batch_execute(&row).await?;
    } else {
        client
            .batch_execute("SELECT count(*) FROM unrelated")
            .await?;
    }
    tokio::time::sleep(pause).await;
    client.batch_execute("COMMIT").await
}

/// Takes down the daemon that reads from the job's slot until [`bring_back`]; returns its number.
pub async fn take_down(testbed: &Testbed, loss: Loss) -> Result<usize, Error> {
    let holder = "SELECT a.application_name FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid \
                  WHERE s.database = current_database() ORDER BY s.slot_name LIMIT 1";
    let holder = client(testbed).await?.query_opt(holder, &[]).await?;
    let daemon = holder.and_then(|row| number(row.get(0))).unwrap_or(0);
    testbed.log(&format!("lost, daemon {daemon}: {loss:?}"));
    testbed.record.disturbed();
    match loss {
        Loss::Killed => testbed.managers[daemon].take_down(Signal::SIGKILL),
        Loss::Hung => testbed.managers[daemon].take_down(Signal::SIGSTOP),
        Loss::CutOff => testbed.proxy.network(daemon).drop_all(),
    }
    Ok(daemon)
}

/// Ends what [`take_down`] did.
pub fn bring_back(testbed: &Testbed, daemon: usize) {
    testbed.log(&format!("daemon {daemon} is back"));
    testbed.record.disturbed();
    testbed.managers[daemon].bring_back();
    testbed.proxy.network(daemon).heal();
}
