//! Doing to a stage what its schedule says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};

use super::daemon::Daemon;
use super::model::Model;
use super::proxy::{Kind, Weather};
use super::schedule::Fault;
use super::server::{Stop, connect};
use super::stage::Stage;

/// A row that none of the users touches.
const NOBODYS_ROW: u64 = 999_999;

/// Does all of a schedule's faults at their times; returns when the last of them is over.
pub async fn run(stage: Arc<Stage>) {
    // What takes a while and leaves others room goes on beside them.
    let mut lasting = JoinSet::new();
    for (at, fault) in stage.schedule.faults.clone() {
        tokio::time::sleep_until((stage.began + at).into()).await;
        stage.say(&format!("{fault:?}"));
        stage.record.disturbed();
        if lasts(&fault) {
            let stage = Arc::clone(&stage);
            lasting.spawn(async move { report(&stage, &fault, apply(&stage, &fault).await) });
        } else {
            report(&stage, &fault, apply(&stage, &fault).await);
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

async fn apply(stage: &Stage, fault: &Fault) -> Result<(), Error> {
    let (keeper, proxy) = (&stage.keeper, &stage.proxy);
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
            kinds.iter().for_each(|kind| proxy.cut(*kind));
            stage.record.returned();
        }
        Fault::CutAfter(kind, direction, bytes) => proxy.cut_after(*kind, *direction, *bytes),
        Fault::Network {
            kinds,
            weather,
            pause,
            zombies,
        } => {
            network(stage, kinds, *weather, *pause, *zombies).await;
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
            let second = Daemon::start(&stage.home, "");
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

async fn network(stage: &Stage, kinds: &[Kind], weather: Weather, pause: Duration, zombies: bool) {
    let storms = kinds
        .iter()
        .map(|kind| stage.proxy.weather(*kind, weather, pause, zombies));
    join_all(storms).await;
    stage.record.returned();
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
