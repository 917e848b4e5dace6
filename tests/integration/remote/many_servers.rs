//! One table, several servers.

use testkit::StubEngine;
use testkit::stub_engine::{Act, Behavior};

use super::{at, job, load, notes, wait_for_all_but, wrong};

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_costs_no_row() {
    let (one, mut two, three) = (
        StubEngine::start(),
        StubEngine::start(),
        StubEngine::start(),
    );
    for stub in [&one, &two, &three] {
        stub.set(Behavior {
            latency: std::time::Duration::from_millis(20),
            concurrency: 2,
            ..Behavior::default()
        });
    }
    let mut scene = notes().await;
    load(&scene, 1, 4000).await;
    let params = at(&[&one, &two, &three]) + ", \"max_batch\": 16";
    job(&scene, "openai", "stub", &params).await;
    scene.spawn_daemon();
    let begun = "SELECT count(*) > 200 FROM notes WHERE embedding IS NOT NULL";
    scene.wait_for(begun, "true").await;
    two.stop();
    let half = "SELECT count(*) > 1500 FROM notes WHERE embedding IS NOT NULL";
    scene.wait_for(half, "true").await;
    two.restart();
    three.script((0..3).map(|_| Act::error(503, "busy")));
    wait_for_all_but(&scene, &[]).await;
    scene.wait_until_confirmed().await;
    assert_eq!(wrong(&scene, &[]).await, [0; 0]);
    assert_eq!(scene.failures().await, "");
    for stub in [&one, &two, &three] {
        assert!(stub.embedded() > 100, "{}", stub.embedded());
    }
}

#[tokio::test]
async fn jobs_of_one_key_share_its_requests_and_live_rows_go_first() {
    let stub = StubEngine::start();
    stub.set(Behavior {
        latency: std::time::Duration::from_millis(40),
        ..Behavior::default()
    });
    let mut scene = notes().await;
    scene
        .sql("CREATE TABLE others (id int PRIMARY KEY, body text, embedding real[])")
        .await;
    load(&scene, 1, 3000).await;
    let params = at(&[&stub]) + ", \"max_in_flight\": 2, \"max_batch\": 8";
    job(&scene, "openai", "stub", &params).await;
    scene
        .sql(
            "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model, runtime, runtime_params) \
             SELECT db_connection, schema, 'others', src_column, dst_column, embedding_model, runtime, runtime_params FROM jobs",
        )
        .await;
    scene.spawn_daemon();
    let begun = "SELECT count(*) > 0 FROM notes WHERE embedding IS NOT NULL";
    scene.wait_for(begun, "true").await;
    scene
        .sql("INSERT INTO others (id, body) VALUES (1, 'live')")
        .await;
    let live = "SELECT embedding IS NOT NULL FROM others WHERE id = 1";
    scene.wait_for(live, "true").await;
    // The backfill of 3,000 rows takes eight seconds at this rate.
    let waiting = "SELECT count(*) > 500 FROM notes WHERE embedding IS NULL";
    assert_eq!(scene.value(waiting).await, "true");
    assert!(stub.max_in_flight() <= 2, "{}", stub.max_in_flight());
}
