//! A table is locked for a long time by a session that was forgotten, and a job that needs its lock waits.

use testkit::scene::TIDES;

use crate::support::scene_with;

#[tokio::test]
async fn a_job_that_waits_for_a_lock_says_whose_it_is() {
    let mut scene = scene_with("CREATE TABLE notes (id int PRIMARY KEY, body text)").await;
    scene.sql("ALTER TABLE jobs ADD waits_for TEXT").await;
    scene.job("notes", "body").await;
    scene.put(1, TIDES).await;
    let holder = scene
        .session("SET application_name = 'a forgotten session'; BEGIN; SELECT FROM notes")
        .await;
    let pid: i32 = testkit::client::value(&holder, "SELECT pg_backend_pid()").await;
    scene.spawn_daemon();
    let said = format!(
        "SELECT COALESCE(waits_for LIKE '%a lock that is held by process {pid} of postgres (a forgotten session)%', \
        false) FROM jobs"
    );
    scene.wait_for(&said, "true").await;
    let line = format!("waits for a lock that is held by process {pid}");
    let daemon = scene.daemon();
    let line = daemon.wait_for_line(&line, testkit::wait::TIMEOUT).await;
    assert!(line.contains("ALTER TABLE \"public\".\"notes\""), "{line}");
    // The last attempt of the statement names it too.
    let given_up = "in 20 attempts of 300 ms: it waits for a lock that is held by process";
    daemon.wait_for_line(given_up, testkit::wait::TIMEOUT).await;
    drop(holder);
    scene.wait_for_backfill().await;
    scene
        .wait_for("SELECT waits_for IS NULL FROM jobs", "true")
        .await;
    scene.wait_for_vectors("notes", "body").await;
}
