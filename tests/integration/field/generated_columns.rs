//! People have generated columns: under REPLICA IDENTITY FULL they make a publication harmful, and as a source they are not
//! in the stream.

use testkit::Scene;
use testkit::client::execute;
use testkit::scene::{CAVES, MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};

use crate::support::scene_with;

const SLOT_MODES: [&[&str]; 2] = [&[], &["--slots", "database"]];

const WHOLE_NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, \
    embedding vector(384)); ALTER TABLE notes REPLICA IDENTITY FULL";

const ADD_STORED: &str =
    "ALTER TABLE notes ADD COLUMN n int GENERATED ALWAYS AS (length(body)) STORED";
const ADD_VIRTUAL: &str =
    "ALTER TABLE notes ADD COLUMN n int GENERATED ALWAYS AS (length(body)) VIRTUAL";

/// Servers from 18 on refuse UPDATE because of generated columns that are not published.
fn refuses_updates(scene: &Scene) -> bool {
    scene.database.version() >= 18
}

async fn whole_notes() -> Scene {
    let scene = scene_with(WHOLE_NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON]).await;
    scene
}

/// Waits until the user's updates work.
async fn updates_work(scene: &Scene) {
    wait_until("updates work", TIMEOUT, async || {
        let update = "UPDATE notes SET views = views + 1";
        scene.client.batch_execute(update).await
    })
    .await;
}

/// Updates as a user until the job has caught up; each must succeed.
async fn caught_up_while_users_update(scene: &Scene) {
    let finished = "SELECT count(*) FROM jobs WHERE init_finished_at >= init_started_at";
    wait_until("the backfill has finished", TIMEOUT, async || {
        scene.sql("UPDATE notes SET views = views + 1").await;
        match scene.value(finished).await.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    scene.put(1, CAVES).await;
    scene.sql("UPDATE notes SET views = views + 1").await;
    scene.wait_for_vectors("notes", "body").await;
    scene.caught_up().await;
}

/// Hazard 38. powersync-service #379 and #397, supabase/etl #77.
#[tokio::test]
async fn users_update_a_table_with_identity_full_and_a_stored_column() {
    for arguments in SLOT_MODES {
        let mut scene = whole_notes().await;
        scene.sql(ADD_STORED).await;
        scene.spawn_daemon_with(arguments);
        caught_up_while_users_update(&scene).await;
        assert_eq!(scene.failures().await, "");
    }
}

/// Hazard 38. The column comes while the job runs.
#[tokio::test]
async fn users_update_while_a_stored_column_is_added() {
    for arguments in SLOT_MODES {
        let mut scene = whole_notes().await;
        scene.spawn_daemon_with(arguments);
        scene.wait_for_vectors("notes", "body").await;
        scene.wait_until_confirmed().await;
        scene.sql(ADD_STORED).await;
        for _ in 0..20 {
            scene.sql("UPDATE notes SET views = views + 1").await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        caught_up_while_users_update(&scene).await;
        assert_eq!(scene.failures().await, "");
    }
}

/// Hazard 38. A virtual column cannot be published: the publication goes within a second, and the job says what to do.
#[tokio::test]
async fn a_virtual_column_that_is_added_fails_the_job_and_frees_the_table() {
    for arguments in SLOT_MODES {
        let mut scene = whole_notes().await;
        if !refuses_updates(&scene) {
            return;
        }
        scene.spawn_daemon_with(arguments);
        scene.wait_for_vectors("notes", "body").await;
        scene.wait_until_confirmed().await;
        scene.sql(ADD_VIRTUAL).await;
        updates_work(&scene).await;
        let reason = scene.wait_for_failure().await;
        assert!(reason.contains("REPLICA IDENTITY DEFAULT"), "{reason}");
        scene.wait_for_cleanup().await;
        scene
            .sql(
                "ALTER TABLE notes REPLICA IDENTITY DEFAULT; UPDATE jobs SET init_failed_at = NULL",
            )
            .await;
        caught_up_while_users_update(&scene).await;
    }
}

/// Hazard 38.
#[tokio::test]
async fn a_virtual_column_under_identity_full_is_refused_at_the_start() {
    let mut scene = whole_notes().await;
    if !refuses_updates(&scene) {
        return;
    }
    scene.sql(ADD_VIRTUAL).await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(
        reason.contains("ALTER TABLE \"public\".\"notes\" REPLICA IDENTITY DEFAULT"),
        "{reason}"
    );
    scene.sql("UPDATE notes SET views = views + 1").await;
    assert_eq!(scene.leftovers().await, "0 publications, 0 slots");
}

/// Hazard 38. The publication of an earlier version of the daemon, which publishes no generated columns; the column comes
/// while no daemon runs.
#[tokio::test]
async fn a_daemon_that_starts_mends_a_publication_that_makes_updates_fail() {
    for arguments in SLOT_MODES {
        let mut scene = whole_notes().await;
        if !refuses_updates(&scene) {
            return;
        }
        scene.spawn_daemon_with(arguments);
        scene.wait_for_vectors("notes", "body").await;
        scene.wait_until_confirmed().await;
        scene.stop_daemon().await;
        scene
            .sql("DO $$ BEGIN EXECUTE (SELECT format('ALTER PUBLICATION %I SET (publish_generated_columns = none)', pubname) \
                  FROM pg_publication); END $$")
            .await;
        scene.sql(ADD_STORED).await;
        let refused = scene
            .client
            .batch_execute("UPDATE notes SET views = 1")
            .await;
        assert!(refused.is_err());
        scene
            .execute("INSERT INTO notes (id, body) VALUES (3, $1)", &[&CAVES])
            .await;
        scene.spawn_daemon_with(arguments);
        updates_work(&scene).await;
        caught_up_while_users_update(&scene).await;
    }
}

/// Hazard 38. A slot waits for open transactions, and its publication is there already.
#[tokio::test]
async fn users_update_while_the_slot_is_waited_for() {
    let mut scene = whole_notes().await;
    if !refuses_updates(&scene) {
        return;
    }
    scene.sql(ADD_STORED).await;
    let writer = scene.session("BEGIN; CREATE TABLE unrelated (n int)").await;
    scene.spawn_daemon();
    scene
        .wait_for("SELECT count(*) FROM pg_publication", "1")
        .await;
    for _ in 0..10 {
        scene.sql("UPDATE notes SET views = views + 1").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    scene
        .sql(&ADD_VIRTUAL.replace("COLUMN n", "COLUMN v"))
        .await;
    updates_work(&scene).await;
    scene.wait_for_failure().await;
    execute(&writer, "COMMIT").await;
    scene.wait_for_cleanup().await;
}

/// Hazard 7. A key that is dropped while the slot is waited for.
#[tokio::test]
async fn a_key_dropped_while_the_slot_is_waited_for_frees_the_table() {
    let mut scene = whole_notes().await;
    scene
        .sql("ALTER TABLE notes REPLICA IDENTITY DEFAULT")
        .await;
    let writer = scene.session("BEGIN; CREATE TABLE unrelated (n int)").await;
    scene.spawn_daemon();
    scene
        .wait_for("SELECT count(*) FROM pg_publication", "1")
        .await;
    scene
        .sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey")
        .await;
    updates_work(&scene).await;
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("replica identity"), "{reason}");
    execute(&writer, "COMMIT").await;
}

/// Hazard 4. timescale/pgai #878. After the first one, an update of another column writes nothing.
#[tokio::test]
async fn an_update_of_another_column_writes_no_row_with_a_generated_source() {
    let mut kinds = vec!["STORED"];
    let scene = scene_with("").await;
    if scene.database.version() >= 18 {
        kinds.push("VIRTUAL");
    }
    for kind in kinds {
        let tables = format!(
            "CREATE TABLE notes (id int PRIMARY KEY, title text, views int NOT NULL DEFAULT 0, \
             body text GENERATED ALWAYS AS (title) {kind}, embedding vector(384))"
        );
        let mut scene = scene_with(&tables).await;
        scene.job("notes", "body").await;
        scene
            .execute("INSERT INTO notes (id, title) VALUES (1, $1)", &[&TIDES])
            .await;
        scene.start_daemon().await;
        scene.caught_up().await;
        for _ in 0..20 {
            scene.sql("UPDATE notes SET views = views + 1").await;
        }
        scene.wait_until_confirmed().await;
        // The row version is the one of the user's last update.
        scene.sql("UPDATE notes SET views = views + 1").await;
        let before = scene.row_versions().await;
        scene.wait_until_confirmed().await;
        assert_eq!(scene.row_versions().await, before);
        // Another text is still another text, and a row that was deleted has lost its vector.
        scene.execute("UPDATE notes SET title = $1", &[&MOON]).await;
        scene.caught_up().await;
        scene
            .execute("WITH gone AS (DELETE FROM notes) SELECT $1::text", &[&MOON])
            .await;
        scene
            .execute("INSERT INTO notes (id, title) VALUES (1, $1)", &[&MOON])
            .await;
        scene.sql("UPDATE notes SET views = 7").await;
        scene.caught_up().await;
    }
}
