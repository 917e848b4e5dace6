//! One table, several servers.

use testkit::StubEngine;
use testkit::stub_engine::{Act, Behavior};

use super::{at, job, load, notes, wait_for_all_but, wrong};
use crate::support::program;

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

#[tokio::test]
async fn status_names_the_servers_and_the_one_that_is_left_out() {
    let (one, mut two) = (StubEngine::start(), StubEngine::start());
    let mut scene = notes().await;
    load(&scene, 1, 50).await;
    let params = at(&[&one, &two]) + ", \"max_batch\": 4";
    job(&scene, "openai", "stub", &params).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[]).await;
    let in_trouble = |count: u8| {
        format!(
            "SELECT count(*) = 2 AND count(s->>'trouble') = {count} \
             FROM jobs, jsonb_array_elements(stats->'servers') AS s"
        )
    };
    scene.wait_for(&in_trouble(0), "true").await;
    two.stop();
    // More requests at a time than one server would be given while the other is free.
    load(&scene, 100, 1000).await;
    scene.wait_for(&in_trouble(1), "true").await;
    let shown = program()
        .run(&["status", "--uri", &scene.database.uri(), "1"])
        .await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let servers: Vec<&str> = shown
        .lines()
        .filter(|line| line.starts_with("server "))
        .collect();
    assert_eq!(servers.len(), 2, "{shown}");
    let left_out = shown.matches("left out for now").count();
    assert_eq!(left_out, 1, "{shown}");
}
