//! Doing to a stage what its schedule says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};

use super::daemon::{Daemon, number};
use super::model::Model;
use super::schedule::{Fault, Incident, Loss};
use super::server::{Stop, connect};
use super::stage::Stage;

/// A row that none of the users touches.
const NOBODYS_ROW: u64 = 999_999;

/// Does all of a schedule's faults at their times; returns when the last of them is over.
pub async fn run(stage: Arc<Stage>) {
    // What takes a while and leaves others room goes on beside them.
    let mut lasting = JoinSet::new();
    for Incident { at, daemon, fault } in stage.schedule.faults.clone() {
        tokio::time::sleep_until((stage.began + at).into()).await;
        stage.say(&format!("{fault:?}"));
        stage.record.disturbed();
        if lasts(&fault) {
            let stage = Arc::clone(&stage);
            lasting.spawn(async move {
                report(&stage, &fault, apply(&stage, daemon, &fault).await);
            });
        } else {
            report(&stage, &fault, apply(&stage, daemon, &fault).await);
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
    )
}

/// A fault may fail where another one is at work already: the server is down, say.
fn report(stage: &Stage, fault: &Fault, result: Result<(), Error>) {
    match result {
        Ok(()) => stage.say(&format!("done: {fault:?}")),
        Err(error) => stage.say(&format!("not done: {fault:?}: {error:?}")),
    }
}

/// `daemon`: the number of the one that it happens to.
async fn apply(stage: &Stage, daemon: usize, fault: &Fault) -> Result<(), Error> {
    let (keeper, network) = (&stage.keepers[daemon], stage.proxy.network(daemon));
    match fault {
        Fault::Kill => keeper.signal(Signal::SIGKILL),
        Fault::Terminate => keeper.signal(Signal::SIGTERM),
        Fault::Freeze(pause) => {
            keeper.signal(Signal::SIGSTOP);
            tokio::time::sleep(*pause).await;
            keeper.signal(Signal::SIGCONT);
            stage.record.returned();
        }
        Fault::Failpoint(failpoint) => keeper.kill_and_arm(failpoint),
        Fault::Cut(kinds) => {
            kinds.iter().for_each(|kind| network.cut(*kind));
            stage.record.returned();
        }
        Fault::CutAfter(kind, direction, bytes) => network.cut_after(*kind, *direction, *bytes),
        Fault::Network {
            kinds,
            weather,
            pause,
            zombies,
        } => {
            let storms = kinds
                .iter()
                .map(|kind| network.weather(*kind, *weather, *pause, *zombies));
            join_all(storms).await;
            stage.record.returned();
        }
        Fault::Restart(stop, pause) => restart(stage, *stop, *pause).await,
        Fault::TerminateWalsender => return terminate(stage, "walsender").await,
        Fault::TerminateBackends => return terminate(stage, "client backend").await,
        Fault::DropSlot => return drop_slot(stage).await,
        Fault::InvalidateSlot => return invalidate_slot(stage).await,
        Fault::DropPublication => {
            let drop = "DO $$ DECLARE p name; BEGIN FOR p IN SELECT pubname FROM pg_publication LOOP \
                        EXECUTE format('DROP PUBLICATION %I', p); END LOOP; END $$";
            return client(stage).await?.batch_execute(drop).await;
        }
        Fault::SecondDaemon(pause) => {
            let second = Daemon::start(&stage.home, 0, "");
            tokio::time::sleep(*pause).await;
            drop(second);
        }
        Fault::LongTransaction { pause, writes } => {
            return long_transaction(stage, *pause, *writes).await;
        }
        Fault::Cancel(pause) => {
            let client = client(stage).await?;
            client
                .batch_execute("UPDATE jobs SET canceled_at = true")
                .await?;
            tokio::time::sleep(*pause).await;
            client
                .batch_execute("UPDATE jobs SET canceled_at = NULL")
                .await?;
        }
        Fault::Recreate(pause) => {
            let client = client(stage).await?;
            client.batch_execute("DELETE FROM jobs").await?;
            tokio::time::sleep(*pause).await;
            stage.insert_jobs(&client).await?;
        }
        Fault::ChangeModel => {
            let change = "UPDATE jobs SET embedding_model = $1";
            client(stage)
                .await?
                .execute(change, &[&Model::Two.name()])
                .await?;
        }
        Fault::ChangeDestination => {
            let change =
                "UPDATE jobs SET dst_column = 'another \"embedding\"' WHERE dst_column <> 'beside'";
            client(stage).await?.batch_execute(change).await?;
        }
    }
    Ok(())
}

async fn client(stage: &Stage) -> Result<Client, Error> {
    connect(&stage.direct, "chaos").await
}

async fn restart(stage: &Stage, how: Stop, pause: Duration) {
    stage.record.outage_begins();
    let server = Arc::clone(&stage.server);
    let restarted = tokio::task::spawn_blocking(move || {
        let mut server = server.blocking_lock();
        server.stop(how);
        std::thread::sleep(pause);
        server.start_again();
    });
    restarted.await.expect("the server starts again");
    stage.record.outage_ends();
}

async fn terminate(stage: &Stage, kind: &str) -> Result<(), Error> {
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE application_name LIKE 'lantern-cli%' AND datname = current_database() AND backend_type = $1";
    client(stage).await?.query_one(terminate, &[&kind]).await?;
    stage.record.returned();
    Ok(())
}

/// Only a slot that nobody reads from can be dropped, and the daemon comes back to it soon.
async fn drop_slot(stage: &Stage) -> Result<(), Error> {
    let client = client(stage).await?;
    let drop = "DO $$ DECLARE s record; BEGIN FOR round IN 1..100 LOOP \
                  FOR s IN SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = current_database() LOOP \
                    BEGIN \
                      PERFORM pg_terminate_backend(s.active_pid) WHERE s.active_pid IS NOT NULL; \
                      PERFORM pg_drop_replication_slot(s.slot_name); RETURN; \
                    EXCEPTION WHEN object_in_use OR undefined_object THEN PERFORM pg_sleep(0.005); END; \
                  END LOOP; END LOOP; END $$";
    client.batch_execute(drop).await
}

async fn invalidate_slot(stage: &Stage) -> Result<(), Error> {
    let client = client(stage).await?;
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

async fn long_transaction(stage: &Stage, pause: Duration, writes: bool) -> Result<(), Error> {
    let client = client(stage).await?;
    client.batch_execute("BEGIN").await?;
    if writes {
        let shape = &stage.schedule.shape;
        let row = format!(
            "INSERT INTO notes ({keys}, body) VALUES ({key}, 'w1 w2') ON CONFLICT ({keys}) DO UPDATE SET body = notes.body || ' w3'",
            keys = shape.key_columns(),
            key = shape.key(NOBODYS_ROW),
        );
        client.batch_execute(&row).await?;
    } else {
        client.batch_execute("SELECT count(*) FROM aside").await?;
    }
    tokio::time::sleep(pause).await;
    client.batch_execute("COMMIT").await
}

/// Takes the daemon away that reads from the job's slot, as the schedule says, until [`find`]; returns its number.
pub async fn lose(stage: &Stage, loss: Loss) -> Result<usize, Error> {
    let holder = "SELECT a.application_name FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid \
                  WHERE s.database = current_database() ORDER BY s.slot_name LIMIT 1";
    let holder = client(stage).await?.query_opt(holder, &[]).await?;
    let daemon = holder.and_then(|row| number(row.get(0))).unwrap_or(0);
    stage.say(&format!("lost, daemon {daemon}: {loss:?}"));
    stage.record.disturbed();
    match loss {
        Loss::Killed => stage.keepers[daemon].lose(Signal::SIGKILL),
        Loss::Hung => stage.keepers[daemon].lose(Signal::SIGSTOP),
        Loss::CutOff => stage.proxy.network(daemon).lose(),
    }
    Ok(daemon)
}

/// Ends what [`lose`] did.
pub fn find(stage: &Stage, daemon: usize) {
    stage.say(&format!("daemon {daemon} is back"));
    stage.record.disturbed();
    stage.keepers[daemon].find();
    stage.proxy.network(daemon).heal();
}
