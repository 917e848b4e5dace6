//! Tables of other shapes.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::{Scene, TestDatabase, server, skip};

use crate::support::{notes_scene, program, scene_with};

/// Hazard 8. Wide rows stay on the server: key and source are all that is published.
#[tokio::test]
async fn only_key_and_source_are_published() {
    for server in [Some(server::shared()), server::debian()]
        .into_iter()
        .flatten()
    {
        let tables = "CREATE TABLE notes (\"Shelf No\" int, place text, secret text, body text, embedding real[], \
                      PRIMARY KEY (place, \"Shelf No\"))";
        let mut scene = Scene::without_vectors(program(), TestDatabase::create(server).await).await;
        scene.sql(tables).await;
        scene.job("notes", "body").await;
        scene.start_daemon().await;
        if scene.database.version() >= 15 {
            let published = "SELECT array_to_string(attnames, ', ') FROM pg_publication_tables";
            assert_eq!(scene.value(published).await, "Shelf No, place, body");
        } else {
            skip::does_not_apply("PostgreSQL 14 has no column lists and publishes whole rows");
        }
        let insert = "INSERT INTO notes VALUES (1, 'north', 'x', $1)";
        scene.execute(insert, &[&TIDES]).await;
        scene
            .wait_for("SELECT cardinality(embedding) FROM notes", "384")
            .await;
    }
}

/// Hazard 8. Nothing may stand in the way of REPLICA IDENTITY FULL where the table has it from the beginning.
#[tokio::test]
async fn a_table_with_replica_identity_full_is_followed() {
    let mut scene = notes_scene().await;
    scene.sql("ALTER TABLE notes REPLICA IDENTITY FULL").await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON]).await;
    scene.caught_up().await;
    scene.sql("UPDATE notes SET views = 1; UPDATE notes SET id = id + 5; DELETE FROM notes WHERE id = 7").await;
    scene.put(6, CAVES).await;
    scene.caught_up().await;
}

/// Hazard 9. Generated columns are not published (before 18 they cannot be), so their text is read by key.
#[tokio::test]
async fn a_generated_text_is_followed() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, raw text, embedding vector(384), \
                  body text GENERATED ALWAYS AS (raw || '.') STORED)";
    let mut scene = scene_with(tables).await;
    scene.job("notes", "body").await;
    let insert = "INSERT INTO notes (id, raw) VALUES ($1, $2)";
    let raw = |text: &'static str| text.strip_suffix('.').expect("a sentence");
    scene.execute(insert, &[&1, &raw(TIDES)]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    scene.execute(insert, &[&2, &raw(CAVES)]).await;
    scene.caught_up().await;
    let update = "UPDATE notes SET raw = $1 WHERE id = 1";
    scene.execute(update, &[&raw(DESERT)]).await;
    scene.caught_up().await;
    scene
        .sql("UPDATE notes SET raw = NULL, id = 3 WHERE id = 2")
        .await;
    scene.caught_up().await;
}

/// Hazard 10. A row that moves to another partition arrives as an insert.
#[tokio::test]
async fn a_partitioned_table_is_followed_over_all_its_partitions() {
    let tables = "CREATE TABLE notes (id int, region text, body text, embedding vector(384), PRIMARY KEY (id, region)) \
                    PARTITION BY LIST (region); \
                  CREATE TABLE notes_north PARTITION OF notes FOR VALUES IN ('north'); \
                  CREATE TABLE notes_south (body text, id int NOT NULL, region text NOT NULL, gone int, embedding vector(384), \
                    PRIMARY KEY (id, region)); \
                  ALTER TABLE notes_south DROP COLUMN gone; \
                  ALTER TABLE notes ATTACH PARTITION notes_south FOR VALUES IN ('south');";
    let mut scene = scene_with(tables).await;
    scene.job("notes", "body").await;
    let insert = "INSERT INTO notes VALUES ($1, $2, $3)";
    scene.execute(insert, &[&1, &"north", &TIDES]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    for (id, region, text) in [(2, "north", MOON), (3, "south", CAVES)] {
        scene.execute(insert, &[&id, &region, &text]).await;
    }
    scene.caught_up().await;
    scene
        .sql("UPDATE notes SET region = 'south', embedding = NULL WHERE id = 2")
        .await;
    let update = "UPDATE notes SET body = $1 WHERE id = 3";
    scene.execute(update, &[&DESERT]).await;
    scene.caught_up().await;
    scene
        .sql("CREATE TABLE notes_west PARTITION OF notes FOR VALUES IN ('west')")
        .await;
    scene.execute(insert, &[&4, &"west", &TIDES]).await;
    scene.caught_up().await;
    assert_eq!(scene.value("SELECT count(*) FROM notes").await, "4");
}
