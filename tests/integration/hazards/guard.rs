//! The guard: a vector is written to a row only while the row has the text that it was computed from.

use testkit::scene::{CAVES, DESERT, MOON, TIDES, VOCABULARY};

use crate::support::notes_scene;

/// Hazard 3. Two hundred updates in a row, faster than any embedder.
#[tokio::test]
async fn an_update_during_embedding_never_leaves_the_old_vector() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    for round in 0..200 {
        let text = VOCABULARY[round % 5];
        let update = "UPDATE notes SET body = $1 WHERE id = $2";
        let id = (round % 3) as i32 + 1;
        scene.execute(update, &[&text, &id]).await;
    }
    scene.caught_up().await;
}

/// Hazard 3. NULL and '' clear the vector, also when it is still on its way.
#[tokio::test]
async fn a_text_cleared_during_embedding_leaves_no_vector() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    scene
        .sql("UPDATE notes SET body = NULL WHERE id = 1; UPDATE notes SET body = '' WHERE id = 2")
        .await;
    scene.caught_up().await;
    scene
        .sql("UPDATE notes SET body = NULL WHERE id = 3; UPDATE notes SET body = '' WHERE id = 4")
        .await;
    scene.caught_up().await;
    let cleared = "SELECT count(*) FROM notes WHERE embedding IS NULL";
    assert_eq!(scene.value(cleared).await, "4");
}

/// Hazard 11.
#[tokio::test]
async fn rows_deleted_or_truncated_during_embedding_hold_nothing_up() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    let many = "INSERT INTO notes (id, body) SELECT 10 + n, body FROM generate_series(1, 40) AS n, truth WHERE body LIKE 'The tides%'";
    scene
        .sql(&format!("{many}; DELETE FROM notes WHERE id % 2 = 0"))
        .await;
    scene.sql("DELETE FROM notes WHERE id % 3 = 0").await;
    scene.caught_up().await;
    scene.sql("TRUNCATE notes").await;
    scene.sql(many).await;
    scene.sql("TRUNCATE notes").await;
    scene.put(1, MOON).await;
    scene.caught_up().await;
    assert_eq!(scene.value("SELECT count(*) FROM notes").await, "1");
}
