//! Advisory locks that other sessions have taken: any role that may connect can take any.

use testkit::client::{execute, value};
use testkit::jobs::{Job, insert_job};
use testkit::scene::{MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};
use xxhash_rust::xxh3::xxh3_64;

use super::{named, role, run_script};
use crate::support::notes_scene;

/// The keys of 64 bits that sessions with an `application_name` like this hold.
fn keys(application: &str) -> String {
    format!(
        "SELECT (l.classid::bigint << 32 | l.objid::bigint)::text FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND a.datname = current_database() \
           AND a.application_name LIKE '{application}' AND l.mode = 'ExclusiveLock'"
    )
}

#[tokio::test]
async fn a_stranger_with_the_lock_of_a_job_is_named_and_the_job_runs_once_it_is_gone() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    // The search for leftover slots has a lock, too, for a moment.
    let only = format!(
        "SELECT CASE count(*) WHEN 1 THEN min(k.key) END FROM ({}) k(key)",
        keys("lantern-cli: jobs")
    );
    let key = wait_until("only the job's lock is held", TIMEOUT, async || {
        let key = scene.value(&only).await;
        if key.is_empty() { Err(key) } else { Ok(key) }
    })
    .await;
    scene.stop_daemon().await;
    let stranger = role(&scene, "stranger", "").await;
    let session = stranger
        .session(&format!("SELECT pg_advisory_lock({key})"))
        .await;
    scene.write(&[TIDES]).await;
    scene.spawn_daemon();
    let line = scene
        .daemon()
        .wait_for_line("the job cannot run", TIMEOUT)
        .await;
    for part in [&stranger.name, "pg_terminate_backend", "job=1"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(
        !scene
            .daemon()
            .log()
            .contains("another daemon runs this job")
    );
    drop(session);
    scene.wait_for_vectors("notes", "body").await;
}

#[tokio::test]
async fn a_stranger_with_the_lock_of_a_shared_slot_is_named_and_the_jobs_run_once_it_is_gone() {
    let mut scene = notes_scene().await;
    let arguments = &["--slots", "database"];
    scene
        .spawn_daemon_with(arguments)
        .wait_for_line("listening for changes", TIMEOUT)
        .await;
    let held = keys("lantern-cli: jobs");
    let all = format!("SELECT string_agg(k.key, ' ') FROM ({held}) k(key)");
    let keys = scene.value(&all).await;
    scene.stop_daemon().await;
    let stranger = role(&scene, "stranger", "").await;
    // Those of the job, of the slot, and perhaps of the search for leftover slots.
    let mut sessions = Vec::new();
    for key in keys.split(' ') {
        let lock = format!("SELECT pg_advisory_lock({key})");
        sessions.push(stranger.session(&lock).await);
    }
    scene.write(&[TIDES]).await;
    scene.spawn_daemon_with(arguments);
    let line = scene
        .daemon()
        .wait_for_line("the jobs of the slot lantern_", TIMEOUT)
        .await;
    for part in [&stranger.name, "cannot run", "pg_terminate_backend"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    drop(sessions);
    scene.wait_for_vectors("notes", "body").await;
}

/// Daemons with another value of `--slots` make a daemon stand by. A session that only looks like one must not.
#[tokio::test]
async fn a_stranger_that_poses_as_another_daemon_keeps_no_job_from_running() {
    let mut scene = notes_scene().await;
    scene
        .spawn_daemon_with(&["--slots", "database"])
        .wait_for_line("streaming", TIMEOUT)
        .await;
    let pair = "SELECT l.classid::int4 || ', ' || l.objid::bigint::bit(32)::int4 FROM pg_locks l \
                JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.objsubid = 2 \
                AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs'";
    let pair = pair.replace("l.classid::int4", "l.classid::bigint::bit(32)::int4");
    let pair = scene.value(&pair).await;
    scene.stop_daemon().await;
    let stranger = role(&scene, "stranger", "").await;
    let _session = stranger
        .session(&format!("SELECT pg_advisory_lock_shared({pair})"))
        .await;
    scene.write(&[TIDES]).await;
    scene.spawn_daemon();
    scene.wait_for_vectors("notes", "body").await;
    let log = scene.daemon().log();
    assert!(
        log.contains(&stranger.name) && log.contains("is ignored"),
        "{log}"
    );
    assert!(!log.contains("standing by"), "{log}");
}

/// In the target database, with a daemon's role that may not end sessions of others.
#[tokio::test]
async fn strangers_with_the_locks_of_a_write_back_delay_the_job_and_do_not_fail_it() {
    let mut scene = notes_scene().await;
    scene
        .sql("DELETE FROM jobs; ALTER TABLE jobs ADD last_error text")
        .await;
    let lantern = named(&scene, "lantern");
    let variables = [("role", lantern.name.as_str()), ("password", "pw")];
    run_script(&scene, "sql/role.sql", &variables).await;
    let kind = scene.database.adapted("vector(384)");
    let variables = [
        ("schema", "public"),
        ("table", "notes"),
        ("key", "id"),
        ("source", "body"),
        ("destination", "embedding"),
        ("type", &kind),
        ("role", &lantern.name),
    ];
    run_script(&scene, "sql/prepare_publication.sql", &variables).await;
    let job = Job {
        db_connection: lantern.uri.clone(),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    scene.start_daemon().await;
    let keys = keys("lantern-cli: job % write-back");
    let both = format!("SELECT string_agg(key, ' ') FROM ({keys}) AS k (key)");
    let both = scene.value(&both).await;
    assert_eq!(
        both.split(' ').count(),
        2,
        "the fence and the column: {both}"
    );
    scene.stop_daemon().await;
    let stranger = role(&scene, "stranger", "").await;
    let session = stranger.session("SELECT").await;
    for key in both.split(' ') {
        execute(&session, &format!("SELECT pg_advisory_lock({key})")).await;
    }
    scene.write(&[TIDES]).await;
    scene.spawn_daemon();
    scene
        .wait_for(
            &format!(
                "SELECT last_error LIKE '%advisory lock%{}%' FROM jobs",
                stranger.name
            ),
            "true",
        )
        .await;
    let failed = "SELECT count(*) FROM jobs WHERE init_failed_at IS NOT NULL";
    assert_eq!(value::<i64>(&scene.client, failed).await, 0);
    // The lock of the column alone is no hindrance: the role may not write it.
    let column = "SELECT attrelid::oid || ' ' || attnum FROM pg_attribute \
                  WHERE attrelid = 'notes'::regclass AND attname = 'embedding'";
    let column = format!("lantern column {}", scene.value(column).await);
    let column = xxh3_64(column.as_bytes()).cast_signed().to_string();
    assert!(both.contains(&column), "{column}: {both}");
    let fence = both.replace(&column, "");
    execute(&session, &format!("SELECT pg_advisory_unlock({fence})")).await;
    let line = scene
        .daemon()
        .wait_for_line("and is ignored", TIMEOUT)
        .await;
    assert!(line.contains(&stranger.name), "{line}");
    scene.put(2, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
}
