//! People enable row level security on a table that a job follows already.

use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, NOTES, TIDES};
use testkit::wait::{TIMEOUT, wait_for};

use super::roles::{DaemonRole, daemon_role};
use crate::support::scene_with;

const SLOT_MODES: [&[&str]; 2] = [&[], &["--slots", "database"]];

/// A scene whose daemon streams for a job of a role that owns `notes`.
async fn owned_notes(arguments: &[&str]) -> (Scene, DaemonRole) {
    let mut scene = scene_with(NOTES).await;
    let role = daemon_role(&scene).await;
    role.own(&scene, "notes").await;
    role.job(&scene, "notes").await;
    start(&mut scene, arguments).await;
    (scene, role)
}

async fn start(scene: &mut Scene, arguments: &[&str]) {
    scene.write(&[TIDES, MOON]).await;
    scene.spawn_daemon_with(arguments);
    scene.wait_for_vectors("notes", "body").await;
    scene.caught_up().await;
}

/// Changes that the daemon's role cannot see, in the transaction that hides them.
async fn hide(scene: &Scene, statements: &str) {
    scene
        .sql(&format!(
            "BEGIN; {statements}; INSERT INTO notes (id, body) SELECT 7, body FROM truth WHERE body LIKE 'Caves%'; \
             UPDATE notes SET body = (SELECT body FROM truth WHERE body LIKE 'Deserts%') WHERE id = 1; COMMIT"
        ))
        .await;
}

/// The job fails with these words; afterwards, with `shown`, every vector is right.
async fn fails_and_recovers(scene: &Scene, words: &[&str], shown: &str) {
    let reason = scene.wait_for_failure().await;
    for word in words {
        assert!(reason.contains(word), "{reason}");
    }
    scene
        .sql(&format!("{shown}; UPDATE jobs SET init_failed_at = NULL"))
        .await;
    scene.wait_for_vectors("notes", "body").await;
    scene.put(8, CAVES).await;
    scene.put(2, DESERT).await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 36. powersync-service PR #275. The policies of a table that is forced apply to its owner.
#[tokio::test]
async fn forced_row_security_fails_the_job_of_the_owner_and_loses_nothing() {
    for arguments in SLOT_MODES {
        let (scene, _) = owned_notes(arguments).await;
        hide(
            &scene,
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        )
        .await;
        let words = [
            "BYPASSRLS",
            "ALTER TABLE \"public\".\"notes\" NO FORCE ROW LEVEL SECURITY",
        ];
        fails_and_recovers(
            &scene,
            &words,
            "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY",
        )
        .await;
    }
}

/// Hazard 36. The role owns nothing, and a policy shows it some of the rows.
#[tokio::test]
async fn a_policy_that_shows_some_rows_fails_the_job_and_loses_nothing() {
    for policy in ["", "; CREATE POLICY few ON notes USING (id < 5)"] {
        let mut scene = scene_with(NOTES).await;
        let role = daemon_role(&scene).await;
        role.prepare(&scene, "notes", "id, body", "").await;
        role.job(&scene, "notes").await;
        start(&mut scene, &[]).await;
        hide(
            &scene,
            &format!("ALTER TABLE notes ENABLE ROW LEVEL SECURITY{policy}"),
        )
        .await;
        let bypass = format!("ALTER ROLE {} BYPASSRLS", role.name);
        fails_and_recovers(&scene, &["BYPASSRLS"], &bypass).await;
    }
}

/// Hazard 36. A role that may no longer pass policies by is another way to the same.
#[tokio::test]
async fn a_role_that_loses_bypassrls_fails_its_jobs() {
    let mut scene = scene_with(NOTES).await;
    let role = daemon_role(&scene).await;
    scene
        .sql(&format!(
            "ALTER ROLE {} BYPASSRLS; ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
            role.name
        ))
        .await;
    role.prepare(&scene, "notes", "id, body", "").await;
    role.job(&scene, "notes").await;
    start(&mut scene, &[]).await;
    hide(&scene, &format!("ALTER ROLE {} NOBYPASSRLS", role.name)).await;
    fails_and_recovers(
        &scene,
        &["BYPASSRLS"],
        "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
    )
    .await;
}

/// Hazard 36. No look of the watchdog falls into the moment; what was missed in it is not confirmed.
#[tokio::test]
async fn rows_that_are_hidden_for_a_moment_get_their_vectors() {
    let (scene, _) = owned_notes(&[]).await;
    for round in 0..5 {
        scene
            .sql("ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
            .await;
        scene.put(10 + round, CAVES).await;
        scene.put(1, [MOON, DESERT][(round % 2) as usize]).await;
        // Long enough for a write-back, and shorter than the interval of the watchdog.
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        scene
            .sql("ALTER TABLE notes DISABLE ROW LEVEL SECURITY")
            .await;
    }
    // A look may have fallen into such a moment all the same. Then the job has failed, and says so.
    let wrong = async || {
        scene
            .sql("UPDATE jobs SET init_failed_at = NULL WHERE init_failed_at IS NOT NULL")
            .await;
        scene.wrong_vectors("notes", "body").await
    };
    wait_for("every vector is right", TIMEOUT, String::new(), wrong).await;
}

/// Hazard 36. The rows are hidden while a scan reads one of its pages, and no look of the watchdog falls into that moment.
#[tokio::test]
async fn rows_that_are_hidden_from_a_scan_for_a_moment_get_their_vectors() {
    let mut scene = scene_with(NOTES).await;
    let role = daemon_role(&scene).await;
    role.own(&scene, "notes").await;
    // Long texts, so that pages have few rows and the scan soon reads the next one.
    scene
        .sql("INSERT INTO notes (id, body) SELECT n, repeat('Caves are cool. ', 8000) FROM generate_series(1, 1500) n")
        .await;
    role.job(&scene, "notes").await;
    scene.spawn_daemon();
    let begun = "SELECT count(*) > 0 FROM notes WHERE embedding IS NOT NULL";
    scene.wait_for(begun, "true").await;
    scene
        .sql("ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        .await;
    // Until the scan has read a page, or has ended.
    let now = scene.value("SELECT clock_timestamp()").await;
    let has_read = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name LIKE '%backfill%' AND (query_start < '{now}' OR state = 'active'))"
    );
    scene.wait_for(&has_read, "true").await;
    scene
        .sql("ALTER TABLE notes DISABLE ROW LEVEL SECURITY")
        .await;
    // A look may have fallen into the moment all the same. Then the job has failed, and says so.
    let missing = async || {
        scene
            .sql("UPDATE jobs SET init_failed_at = NULL WHERE init_failed_at IS NOT NULL")
            .await;
        scene
            .value("SELECT count(*) FROM notes WHERE embedding IS NULL")
            .await
    };
    wait_for("rows without a vector", TIMEOUT, "0".to_owned(), missing).await;
}
