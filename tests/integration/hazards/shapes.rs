//! Tables of other shapes.

use super::{CAVES, DESERT, MOON, Scene, TIDES};
use crate::support::{TestDatabase, debian_server, server};

/// Hazard 8. Wide rows stay on the server: key and source are all that is published.
#[tokio::test]
async fn only_key_and_source_are_published() {
    for server in [Some(server()), debian_server()].into_iter().flatten() {
        let tables = "CREATE TABLE notes (\"Shelf No\" int, place text, secret text, body text, embedding real[], \
                      PRIMARY KEY (place, \"Shelf No\"))";
        let mut scene = Scene::in_database(TestDatabase::create(server).await).await;
        scene.sql(tables).await;
        scene.job("notes", "body").await;
        scene.start().await;
        if scene.database.version() >= 15 {
            let published = "SELECT array_to_string(attnames, ', ') FROM pg_publication_tables";
            assert_eq!(scene.value(published).await, "Shelf No, place, body");
        } else {
            println!("passed over: PostgreSQL 14 without column lists, whole rows are published");
        }
        let insert = "INSERT INTO notes VALUES (1, 'north', 'x', $1)";
        scene
            .client
            .execute(insert, &[&TIDES])
            .await
            .expect("inserted");
        scene
            .wait_for("SELECT cardinality(embedding) FROM notes", "384")
            .await;
    }
}

/// Hazard 8. Nothing may stand in the way of REPLICA IDENTITY FULL where the table has it from the beginning.
#[tokio::test]
async fn a_table_with_replica_identity_full_is_followed_whole() {
    let mut scene = Scene::of_notes().await;
    scene.sql("ALTER TABLE notes REPLICA IDENTITY FULL").await;
    scene.start().await;
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
    let mut scene = Scene::on(server(), tables).await;
    scene.job("notes", "body").await;
    let insert = "INSERT INTO notes (id, raw) VALUES ($1, $2)";
    let raw = |text: &'static str| text.strip_suffix('.').expect("a sentence");
    scene
        .client
        .execute(insert, &[&1, &raw(TIDES)])
        .await
        .expect("inserted");
    scene.start().await;
    scene.settled("notes", "body").await;
    scene
        .client
        .execute(insert, &[&2, &raw(CAVES)])
        .await
        .expect("inserted");
    scene.caught_up().await;
    let update = "UPDATE notes SET raw = $1 WHERE id = 1";
    scene
        .client
        .execute(update, &[&raw(DESERT)])
        .await
        .expect("updated");
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
    let mut scene = Scene::on(server(), tables).await;
    scene.job("notes", "body").await;
    let insert = "INSERT INTO notes VALUES ($1, $2, $3)";
    scene
        .client
        .execute(insert, &[&1, &"north", &TIDES])
        .await
        .expect("inserted");
    scene.start().await;
    scene.settled("notes", "body").await;
    for (id, region, text) in [(2, "north", MOON), (3, "south", CAVES)] {
        scene
            .client
            .execute(insert, &[&id, &region, &text])
            .await
            .expect("inserted");
    }
    scene.caught_up().await;
    scene
        .sql("UPDATE notes SET region = 'south', embedding = NULL WHERE id = 2")
        .await;
    let update = "UPDATE notes SET body = $1 WHERE id = 3";
    scene
        .client
        .execute(update, &[&DESERT])
        .await
        .expect("updated");
    scene.caught_up().await;
    scene
        .sql("CREATE TABLE notes_west PARTITION OF notes FOR VALUES IN ('west')")
        .await;
    scene
        .client
        .execute(insert, &[&4, &"west", &TIDES])
        .await
        .expect("inserted");
    scene.caught_up().await;
    assert_eq!(scene.value("SELECT count(*) FROM notes").await, "4");
}
