//! Tables and columns of all kinds.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};

use super::{NOTES, Ran, Scene, embed, embed_as, scene_with};

/// Writes four texts into a table with these statements, embeds it, and asserts that the vectors are right.
async fn embedded(tables: &str) -> (Scene, String) {
    let scene = scene_with(tables).await;
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    let printed = embed(&scene, &[]).await.succeeded();
    assert!(printed.contains("4 rows done"), "{tables}: {printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "", "{tables}");
    (scene, printed)
}

#[tokio::test]
async fn any_key_that_finds_a_row_will_do() {
    for key in [
        "id int PRIMARY KEY, views int",
        "id int NOT NULL UNIQUE, views int",
        "id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, views int",
    ] {
        let table = format!("CREATE TABLE notes ({key}, body text)");
        let (_, printed) = match key.contains("DEFERRABLE") {
            // No ON CONFLICT there.
            true => {
                let scene = scene_with(&table).await;
                let insert = "INSERT INTO notes (id, body) VALUES (1, $1)";
                scene.execute(insert, &[&TIDES]).await;
                let printed = embed(&scene, &[]).await.succeeded();
                assert_eq!(scene.wrong_vectors("notes", "body").await, "");
                (scene, printed)
            }
            false => embedded(&table).await,
        };
        assert!(printed.contains("done"), "{printed}");
    }
    for identity in ["NOTHING", "FULL"] {
        embedded(&format!(
            "{NOTES}; ALTER TABLE notes REPLICA IDENTITY {identity}"
        ))
        .await;
    }
}

#[tokio::test]
async fn changes_need_not_be_in_the_wal() {
    embedded("CREATE UNLOGGED TABLE notes (id int PRIMARY KEY, body text)").await;
}

#[tokio::test]
async fn partitions_are_embedded_with_their_table_or_by_themselves() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, body text) PARTITION BY RANGE (id); \
                  CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (3); \
                  CREATE TABLE high PARTITION OF notes FOR VALUES FROM (3) TO (99)";
    let (scene, _) = embedded(tables).await;
    scene.sql("UPDATE notes SET embedding = NULL").await;
    let place = [
        "--table",
        "high",
        "--column",
        "body",
        "--dst-column",
        "embedding",
    ];
    let printed = embed_as(&scene.database.uri(), &place).await.succeeded();
    assert!(printed.contains("2 rows done"), "{printed}");
}

#[tokio::test]
async fn a_generated_column_is_a_source() {
    let scene = scene_with(
        "CREATE TABLE notes (id int PRIMARY KEY, raw text, body text GENERATED ALWAYS AS (raw) STORED)",
    )
    .await;
    let insert = "INSERT INTO notes (id, raw) VALUES (1, $1), (2, $2)";
    scene.execute(insert, &[&TIDES, &MOON]).await;
    embed(&scene, &[]).await.succeeded();
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

#[tokio::test]
async fn odd_names_are_names() {
    let scene = scene_with(
        "CREATE SCHEMA \"My \"\"Schema\"; \
         CREATE TABLE \"My \"\"Schema\".\"Ümlaut; DROP\" (\"the key\" uuid PRIMARY KEY, \"Text's\" varchar)",
    )
    .await;
    let insert = "INSERT INTO \"My \"\"Schema\".\"Ümlaut; DROP\" VALUES (gen_random_uuid(), $1)";
    scene.execute(insert, &[&TIDES]).await;
    let place = [
        "--schema",
        "My \"Schema",
        "--table",
        "Ümlaut; DROP",
        "--src-column",
        "Text's",
        "--fingerprint-column",
        "a \"mark\"",
        "--where",
        "\"Text's\" <> '' -- all",
    ];
    let printed = embed_as(&scene.database.uri(), &place).await.succeeded();
    assert!(
        printed.contains("creating the column \"Text's_embedding\""),
        "{printed}"
    );
    assert!(printed.contains("1 row done"), "{printed}");
    let vectors = "SELECT count(\"Text's_embedding\") FROM \"My \"\"Schema\".\"Ümlaut; DROP\"";
    assert_eq!(scene.value(vectors).await, "1");
}

#[tokio::test]
async fn an_empty_table_gets_its_column() {
    let scene = scene_with(NOTES).await;
    let printed = embed(&scene, &[]).await.succeeded();
    assert!(printed.contains("0 rows done"), "{printed}");
    assert_eq!(scene.value("SELECT count(embedding) FROM notes").await, "0");
}

#[tokio::test]
async fn without_pgvector_vectors_are_arrays() {
    let database = testkit::TestDatabase::create(super::without_replication()).await;
    database
        .psql("CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'caves')")
        .await;
    let place = ["--table", "notes", "--src-column", "body"];
    let ran: Ran = embed_as(&database.uri(), &place).await;
    let printed = ran.succeeded();
    assert!(printed.contains("\"body_embedding\" real[]"), "{printed}");
    let lengths = "SELECT array_length(body_embedding, 1) FROM notes";
    assert_eq!(database.psql(lengths).await, "384\n");
}
