//! Concurrent users and faults at random.

use std::time::{Duration, Instant};

use testkit::random::Random;
use testkit::scene::VOCABULARY;
use tokio_postgres::Client;

use crate::support::notes_scene;

const CLIENTS: u64 = 4;
const DURATION: Duration = Duration::from_secs(5);

/// One user, who changes random rows of a small table. A conflict of two users may fail a statement; then the user goes
/// on.
async fn user(client: Client, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let begin = Instant::now();
    let mut done = 0;
    while begin.elapsed() < DURATION {
        let (id, other) = (random.below(60), random.below(60));
        let text = *random.pick(&VOCABULARY[..5]);
        let statement = match random.below(12) {
            0..3 => format!(
                "INSERT INTO notes (id, body) VALUES ({id}, $1) ON CONFLICT (id) DO UPDATE SET body = $1"
            ),
            3..5 => format!("UPDATE notes SET body = $1 WHERE id = {id}"),
            5 => format!(
                "UPDATE notes SET body = CASE WHEN id % 2 = 0 THEN NULL ELSE left($1, 0) END WHERE id = {id}"
            ),
            6 => format!(
                "UPDATE notes SET views = views + 1 WHERE id % 10 = {} AND $1 <> ''",
                id % 10
            ),
            7 => format!("DELETE FROM notes WHERE id = {id} AND $1 <> ''"),
            8 => format!("UPDATE notes SET id = {other} WHERE id = {id} AND $1 <> ''"),
            9 => format!("UPDATE notes SET id = {other}, body = $1 WHERE id = {id}"),
            10 => format!("UPDATE notes SET body = $1 WHERE id BETWEEN {id} AND {id} + 9"),
            _ => format!(
                "WITH gone AS (DELETE FROM notes WHERE id = {id} RETURNING id) \
                 INSERT INTO notes (id, body) SELECT 100 + id, $1 FROM gone ON CONFLICT (id) DO UPDATE SET body = $1"
            ),
        };
        let typed = statement.replace("$1", "$1::text");
        done += usize::from(client.execute(&typed, &[&text]).await.is_ok());
        // Without a pause the backlog, for which the test waits, would only grow longer.
        tokio::time::sleep(Duration::from_millis(random.below(20))).await;
    }
    done
}

/// I1 and I2, under four users, a crash, and two cut connections.
#[tokio::test]
async fn every_text_has_its_vector_after_concurrent_users_and_faults() {
    let mut scene = notes_scene().await;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    scene.start_daemon().await;
    let mut users = Vec::new();
    for number in 0..CLIENTS {
        let client = scene.database.client().await;
        users.push(tokio::spawn(user(client, (seed + 1) * (2 * number + 1))));
    }
    let begin = Instant::now();
    let at = |share: f64| tokio::time::sleep_until((begin + DURATION.mul_f64(share)).into());
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name LIKE 'lantern-cli%' AND datname = current_database() AND backend_type = ";
    at(0.2).await;
    scene.value(&format!("{cut}'walsender'")).await;
    at(0.4).await;
    scene.kill_daemon();
    scene.spawn_daemon();
    at(0.75).await;
    scene.value(&format!("{cut}'client backend'")).await;
    let mut done = 0;
    for user in users {
        done += user.await.expect("a user does not panic");
    }
    assert!(done > 200, "only {done} statements");
    scene.caught_up().await;
    assert_eq!(
        scene.value("SELECT init_failure_reason FROM jobs").await,
        ""
    );
    let rows: usize = scene
        .value("SELECT count(*) FROM notes")
        .await
        .parse()
        .expect("a number");
    assert!(rows > 10, "only {rows} rows");
}
