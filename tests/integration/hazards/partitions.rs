//! Partitions that come and go under a running job, and rows that move between them.

use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};

use crate::support::scene_with;

const NOTES: &str = "CREATE TABLE notes (id int, region text, body text, embedding vector(384), PRIMARY KEY (id, region)) \
       PARTITION BY LIST (region); \
     CREATE TABLE notes_north PARTITION OF notes FOR VALUES IN ('north') PARTITION BY RANGE (id); \
     CREATE TABLE notes_north_low PARTITION OF notes_north FOR VALUES FROM (0) TO (100); \
     CREATE TABLE notes_north_high PARTITION OF notes_north FOR VALUES FROM (100) TO (200); \
     CREATE TABLE notes_south PARTITION OF notes FOR VALUES IN ('south')";

async fn of_partitioned_notes() -> Scene {
    let scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    scene
}

async fn insert(scene: &Scene, table: &str, id: i32, region: &str, text: &str) {
    let insert = format!("INSERT INTO {table} (id, region, body) VALUES ($1, $2, $3)");
    scene.execute(&insert, &[&id, &region, &text]).await;
}

/// Hazard 10.
#[tokio::test]
async fn rows_are_followed_through_partitions_of_partitions() {
    let mut scene = of_partitioned_notes().await;
    insert(&scene, "notes", 1, "north", TIDES).await;
    insert(&scene, "notes", 101, "north", MOON).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    // Also rows that are written to a partition by its own name.
    insert(&scene, "notes_north_low", 2, "north", CAVES).await;
    insert(&scene, "notes_south", 3, "south", DESERT).await;
    scene.caught_up().await;
    let moves = [
        "UPDATE notes SET id = 102, embedding = NULL WHERE id = 1",
        "UPDATE notes SET region = 'south', embedding = NULL WHERE id = 101",
        "UPDATE notes SET region = 'north', id = 103 WHERE id = 3",
    ];
    for statement in moves {
        scene.sql(statement).await;
        scene.caught_up().await;
    }
    assert_eq!(scene.value("SELECT count(embedding) FROM notes").await, "4");
}

/// Hazard 10.
#[tokio::test]
async fn a_detached_partition_is_ignored_and_the_others_are_still_followed() {
    let mut scene = of_partitioned_notes().await;
    insert(&scene, "notes", 1, "north", TIDES).await;
    insert(&scene, "notes", 2, "south", MOON).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    // With work for both under way.
    let detach =
        "UPDATE notes SET body = 'Mondschein'; ALTER TABLE notes DETACH PARTITION notes_south";
    scene.sql(detach).await;
    insert(&scene, "notes_south", 3, "south", CAVES).await;
    insert(&scene, "notes", 4, "north", DESERT).await;
    scene
        .sql("DELETE FROM notes WHERE body = 'Mondschein'")
        .await;
    scene.caught_up().await;
    assert_eq!(
        scene
            .value("SELECT count(embedding) FROM notes_south WHERE id = 3")
            .await,
        "0"
    );
}

/// Hazard 10. The rows of an attached partition come with no change of theirs, and its vectors may be of any text.
#[tokio::test]
async fn the_rows_of_an_attached_partition_are_found() {
    let mut scene = of_partitioned_notes().await;
    insert(&scene, "notes", 1, "north", TIDES).await;
    scene
        .sql("ALTER TABLE notes DETACH PARTITION notes_south")
        .await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    let before = scene.value(VERSION_OF_1).await;
    let prepare = "CREATE TABLE notes_west (LIKE notes INCLUDING ALL) PARTITION BY LIST (region); \
         CREATE TABLE notes_far_west PARTITION OF notes_west FOR VALUES IN ('far west')";
    scene.sql(prepare).await;
    insert(&scene, "notes_south", 2, "south", CAVES).await;
    insert(&scene, "notes_west", 3, "far west", MOON).await;
    scene
        .sql(
            "UPDATE notes_west SET embedding = (SELECT vector FROM truth WHERE body LIKE 'Caves%')",
        )
        .await;
    let attach = "ALTER TABLE notes ATTACH PARTITION notes_south FOR VALUES IN ('south'); \
         ALTER TABLE notes ATTACH PARTITION notes_west FOR VALUES IN ('far west', 'west')";
    scene.sql(attach).await;
    insert(&scene, "notes", 4, "south", DESERT).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_backfill().await;
    assert_eq!(scene.value(VERSION_OF_1).await, before, "written again");

    // A partition that is attached again is scanned again.
    let change_outside = "ALTER TABLE notes DETACH PARTITION notes_south; UPDATE notes_south SET body = NULL WHERE id = 2; \
         ALTER TABLE notes ATTACH PARTITION notes_south FOR VALUES IN ('south')";
    scene.sql(change_outside).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_backfill().await;
    insert(&scene, "notes", 5, "far west", TIDES).await;
    scene.caught_up().await;
    assert_eq!(scene.value(VERSION_OF_1).await, before, "written again");
}

/// Hazard 10.
#[tokio::test]
async fn the_rows_of_a_partition_attached_while_the_daemon_was_stopped_are_found() {
    let mut scene = of_partitioned_notes().await;
    insert(&scene, "notes", 1, "north", TIDES).await;
    insert(&scene, "notes", 2, "south", MOON).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    scene.stop_daemon().await;
    let change_outside = "ALTER TABLE notes DETACH PARTITION notes_south; UPDATE notes_south SET body = NULL; \
         ALTER TABLE notes ATTACH PARTITION notes_south FOR VALUES IN ('south')";
    scene.sql(change_outside).await;
    insert(&scene, "notes", 3, "south", CAVES).await;
    scene.start_daemon().await;
    scene.caught_up().await;
}

/// Hazard 10. An empty partition interrupts nothing.
#[tokio::test]
async fn a_new_empty_partition_is_followed_without_a_break() {
    let mut scene = of_partitioned_notes().await;
    scene.start_daemon().await;
    let walsender =
        "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
    let before = scene.value(walsender).await;
    scene
        .sql("CREATE TABLE notes_west PARTITION OF notes FOR VALUES IN ('west')")
        .await;
    // The watchdog polls once a second. The test is that it reports nothing.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    insert(&scene, "notes", 1, "west", TIDES).await;
    scene.caught_up().await;
    assert_eq!(scene.value(walsender).await, before);
}

const VERSION_OF_1: &str = "SELECT xmin FROM notes WHERE id = 1";
