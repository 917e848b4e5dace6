//! Keys that change.

use testkit::scene::{CAVES, DESERT, LONG, MOON, TIDES};

use crate::support::notes_scene;

/// Hazard 5. The rows move while their texts are being embedded, with and without a new text.
#[tokio::test]
async fn a_row_whose_key_changes_gets_its_vector_under_the_new_key() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    scene.sql("UPDATE notes SET id = id + 10").await;
    scene
        .sql("UPDATE notes SET id = id + 10, body = (SELECT min(body) FROM truth) WHERE id > 12")
        .await;
    scene.caught_up().await;
    scene
        .sql("UPDATE notes SET id = 1, body = NULL WHERE id = 11")
        .await;
    scene.caught_up().await;
    assert_eq!(
        scene
            .value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM notes")
            .await,
        "1 12 23 24"
    );
}

/// Hazard 5. Each row ends up under a key whose last text was another's.
#[tokio::test]
async fn rows_that_exchange_their_keys_keep_their_own_vectors() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON, TIDES]).await;
    let exchange = "BEGIN; UPDATE notes SET id = -id; UPDATE notes SET id = 4 + id; COMMIT";
    scene.sql(exchange).await;
    scene.caught_up().await;
    // Now the vectors do not move with the rows.
    scene.sql("BEGIN; UPDATE notes SET id = -id, embedding = NULL; UPDATE notes SET id = 4 + id; COMMIT").await;
    scene.caught_up().await;
}

/// Hazard 5. The stream has the new key, and of the text only that it has not changed.
#[tokio::test]
async fn a_long_text_whose_key_changes_before_it_is_embedded_gets_its_vector() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE notes ALTER COLUMN body SET STORAGE EXTERNAL")
        .await;
    scene.start_daemon().await;
    scene.sql("BEGIN").await;
    scene.put(1, &LONG).await;
    scene.sql("UPDATE notes SET id = 2; COMMIT").await;
    scene.caught_up().await;
    scene.put(1, TIDES).await;
    scene.sql("BEGIN; UPDATE notes SET id = 3 WHERE id = 1; UPDATE notes SET id = 1, embedding = NULL WHERE id = 2; COMMIT").await;
    scene.caught_up().await;
    assert_eq!(
        scene
            .value("SELECT count(*) FROM notes WHERE embedding IS NOT NULL")
            .await,
        "2"
    );
}
