//! People add partitions to a table that a job follows: at night, by tools, and of every kind.

use testkit::Scene;
use testkit::scene::{CAVES, MOON, TIDES};

use super::roles::{DaemonRole, daemon_role};
use crate::support::scene_with;

const NOTES: &str = "CREATE TABLE notes (id int, region text, body text, embedding vector(384), PRIMARY KEY (id, region)) \
       PARTITION BY LIST (region); \
     CREATE TABLE notes_north PARTITION OF notes FOR VALUES IN ('north')";

async fn insert(scene: &Scene, table: &str, id: i32, region: &str, text: &str) {
    let insert = format!("INSERT INTO {table} (id, region, body) VALUES ($1, $2, $3)");
    scene.execute(&insert, &[&id, &region, &text]).await;
}

/// Each statement, under a running daemon: the job fails, names the partition and says what to do, and after that goes on.
async fn is_refused(statements: &str, partition: &str, remedy: &str, mended: &str) {
    for arguments in [&[][..], &["--slots", "database"]] {
        let mut scene = scene_with(NOTES).await;
        scene.job("notes", "body").await;
        insert(&scene, "notes", 1, "north", TIDES).await;
        scene.spawn_daemon_with(arguments);
        scene.wait_for_vectors("notes", "body").await;
        scene.sql(statements).await;
        let reason = scene.wait_for_failure().await;
        assert!(
            reason.contains(partition) && reason.contains(remedy),
            "{reason}"
        );
        scene.wait_for_cleanup().await;
        scene
            .sql(&format!("{mended}; UPDATE jobs SET init_failed_at = NULL"))
            .await;
        insert(&scene, "notes", 2, "north", MOON).await;
        scene.wait_for_vectors("notes", "body").await;
    }
}

const WEST: &str = "\"public\".\"notes_west\"";

/// Hazard 40. pg_partman #267 and #774.
#[tokio::test]
async fn an_unlogged_partition_that_is_created_fails_the_job() {
    is_refused(
        "CREATE UNLOGGED TABLE notes_west PARTITION OF notes FOR VALUES IN ('west')",
        WEST,
        "SET LOGGED",
        "ALTER TABLE notes_west SET LOGGED",
    )
    .await;
}

/// Hazard 40. With rows in it, which have no vector afterwards either.
#[tokio::test]
async fn an_unlogged_partition_that_is_attached_fails_the_job() {
    is_refused(
        "CREATE UNLOGGED TABLE notes_west (LIKE notes INCLUDING ALL); INSERT INTO notes_west (id, region) VALUES (5, 'west'); \
         ALTER TABLE notes ATTACH PARTITION notes_west FOR VALUES IN ('west')",
        WEST,
        "SET LOGGED",
        "ALTER TABLE notes_west SET LOGGED",
    )
    .await;
}

/// Hazard 40.
#[tokio::test]
async fn a_partition_that_is_set_unlogged_fails_the_job() {
    is_refused(
        "ALTER TABLE notes_north SET UNLOGGED",
        "\"public\".\"notes_north\"",
        "SET LOGGED",
        "ALTER TABLE notes_north SET LOGGED",
    )
    .await;
}

/// Hazard 40. A partition has a replica identity of its own; with a column list, another one makes UPDATE fail.
#[tokio::test]
async fn a_partition_with_another_replica_identity_fails_the_job_and_frees_the_table() {
    for identity in ["FULL", "NOTHING"] {
        let mut scene = scene_with(NOTES).await;
        if identity == "FULL" && scene.database.version() < 15 {
            continue;
        }
        scene.job("notes", "body").await;
        insert(&scene, "notes", 1, "north", TIDES).await;
        scene.start_daemon().await;
        scene
            .sql(&format!(
                "ALTER TABLE notes_north REPLICA IDENTITY {identity}"
            ))
            .await;
        let reason = scene.wait_for_failure().await;
        assert!(
            reason.contains("ALTER TABLE \"public\".\"notes_north\" REPLICA IDENTITY DEFAULT"),
            "{reason}"
        );
        scene.wait_for_cleanup().await;
        scene.sql("UPDATE notes SET body = NULL").await;
        scene
            .sql("ALTER TABLE notes_north REPLICA IDENTITY DEFAULT; UPDATE jobs SET init_failed_at = NULL")
            .await;
        scene.wait_for_vectors("notes", "body").await;
    }
}

/// Hazard 40. At the start nothing is created.
#[tokio::test]
async fn partitions_that_cannot_be_followed_are_refused_at_the_start() {
    for statements in [
        "CREATE UNLOGGED TABLE notes_west PARTITION OF notes FOR VALUES IN ('west')",
        "CREATE TABLE notes_west PARTITION OF notes FOR VALUES IN ('west'); \
         ALTER TABLE notes_west REPLICA IDENTITY NOTHING",
    ] {
        let mut scene = scene_with(NOTES).await;
        scene.job("notes", "body").await;
        scene.sql(statements).await;
        scene.spawn_daemon();
        let reason = scene.wait_for_failure().await;
        assert!(reason.contains(WEST), "{reason}");
        assert_eq!(scene.leftovers().await, "0 publications, 0 slots");
    }
}

/// A scene whose daemon streams for a role with rights on `notes` alone.
async fn prepared_notes() -> (Scene, DaemonRole) {
    let mut scene = scene_with(NOTES).await;
    let role = daemon_role(&scene).await;
    role.prepare(
        &scene,
        "notes",
        "id, region, body",
        ", publish_via_partition_root = true",
    )
    .await;
    role.job(&scene, "notes").await;
    insert(&scene, "notes", 1, "north", TIDES).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    (scene, role)
}

/// Hazard 40. pg_partman #562: rights on the table do not extend to its partitions.
#[tokio::test]
async fn a_new_partition_needs_no_rights_of_its_own() {
    let (scene, _) = prepared_notes().await;
    scene
        .sql("CREATE TABLE notes_west PARTITION OF notes FOR VALUES IN ('west')")
        .await;
    insert(&scene, "notes", 2, "west", MOON).await;
    scene.wait_for_vectors("notes", "body").await;
    // The watchdog polls once a second.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    // One with rows in it, which no change brings, and one of partitions.
    scene
        .sql(
            "CREATE TABLE notes_south (LIKE notes INCLUDING ALL); \
             INSERT INTO notes_south (id, region, body) SELECT row_number() OVER (), 'south', body FROM truth; \
             ALTER TABLE notes ATTACH PARTITION notes_south FOR VALUES IN ('south'); \
             CREATE TABLE notes_east (LIKE notes INCLUDING ALL) PARTITION BY HASH (id); \
             CREATE TABLE notes_east_0 PARTITION OF notes_east FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
             CREATE TABLE notes_east_1 PARTITION OF notes_east FOR VALUES WITH (MODULUS 2, REMAINDER 1); \
             INSERT INTO notes_east (id, region, body) SELECT row_number() OVER (), 'east', body FROM truth; \
             ALTER TABLE notes ATTACH PARTITION notes_east FOR VALUES IN ('east')",
        )
        .await;
    scene.wait_for_vectors("notes", "body").await;
    insert(&scene, "notes", 77, "east", CAVES).await;
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(scene.failures().await, "");
}

/// Hazard 40.
#[tokio::test]
async fn a_partition_that_is_created_while_the_daemon_is_stopped_needs_no_rights_either() {
    let (mut scene, _) = prepared_notes().await;
    scene.wait_until_confirmed().await;
    scene.stop_daemon().await;
    scene
        .sql("CREATE TABLE notes_west PARTITION OF notes FOR VALUES IN ('west')")
        .await;
    insert(&scene, "notes", 2, "west", MOON).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(scene.failures().await, "");
}
