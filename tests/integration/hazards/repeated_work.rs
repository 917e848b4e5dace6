//! Changes that must not be embedded again, and changes that must although the text looks the same.

use testkit::client::execute;
use testkit::scene::{CAVES, DESERT, LONG, MOON, TIDES};

use crate::support::{notes_scene, scene_with};

/// Counts the updates of each row, those of the daemon included.
const COUNTED: &str = "
    CREATE TABLE updates (id int);
    CREATE FUNCTION count_update() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO public.updates VALUES (NEW.id); RETURN NEW; END $$;
    CREATE TRIGGER counted BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION count_update();";

const COUNTS: &str = "SELECT string_agg(id || ':' || n, ' ' ORDER BY id) \
                      FROM (SELECT id, count(*) AS n FROM updates GROUP BY id) AS c";

/// Hazard 1. The stream does not carry generated texts, so only the marker tells a write-back from a change. The next
/// row comes after the write-back, so when the row is confirmed, the write-back has been processed.
#[tokio::test]
async fn a_write_back_is_not_embedded_again() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, raw text, embedding vector(384), \
                  body text GENERATED ALWAYS AS (raw) STORED)";
    let mut scene = scene_with(tables).await;
    scene.job("notes", "body").await;
    scene.sql(COUNTED).await;
    scene.start_daemon().await;
    for (id, text) in [(1, TIDES), (2, MOON), (3, CAVES)] {
        let insert = "INSERT INTO notes (id, raw) VALUES ($1, $2)";
        scene.execute(insert, &[&id, &text]).await;
        scene.caught_up().await;
    }
    assert_eq!(scene.value(COUNTS).await, "1:1 2:1 3:1");
}

/// Hazard 1, after a crash. A locked row keeps the confirmed position between the texts of the other rows and their
/// write-backs. So the next daemon reads the write-backs without having read the texts.
#[tokio::test]
async fn a_write_back_that_is_streamed_after_a_crash_is_not_embedded_again() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    scene.caught_up().await;
    scene.stop_daemon().await;

    for (id, text) in [(2, TIDES), (3, MOON)] {
        scene.put(id, text).await;
    }
    // Within the transaction: behind it other databases write, too, and the position stays at its end.
    scene.sql("BEGIN").await;
    scene.put(4, CAVES).await;
    let texts = scene.wal_end().await;
    scene.sql("COMMIT").await;
    scene.put(1, MOON).await;
    scene.sql(COUNTED).await;
    let lock = "BEGIN; SELECT FROM notes WHERE id = 1 FOR UPDATE";
    let locking = scene.session(lock).await;
    scene.start_daemon().await;
    scene.wait_for(COUNTS, "2:1 3:1 4:1").await;
    scene.wait_for_confirmation(&texts).await;
    scene.kill_daemon();
    execute(&locking, "COMMIT").await;

    scene.start_daemon().await;
    scene.caught_up().await;
    scene.put(5, DESERT).await;
    scene.caught_up().await;
    assert_eq!(scene.value(COUNTS).await, "1:1 2:1 3:1 4:1 5:1");
}

/// Hazard 4. The version of the row stays the user's.
#[tokio::test]
async fn an_update_of_another_column_writes_nothing() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON]).await;
    scene.caught_up().await;
    scene.sql("UPDATE notes SET views = views + 1").await;
    let versions = scene.row_versions().await;
    scene.put(3, CAVES).await;
    scene.caught_up().await;
    assert!(scene.row_versions().await.starts_with(&versions));
}

/// Hazard 4. The latest text counts, not every earlier one.
#[tokio::test]
async fn a_text_that_comes_back_gets_its_vector_back() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    for text in [TIDES, MOON, TIDES, "", TIDES] {
        scene.put(1, text).await;
        scene.caught_up().await;
    }
    let three = "UPDATE notes SET body = $1 WHERE id = 1";
    for text in [MOON, TIDES, MOON, TIDES] {
        scene.execute(three, &[&text]).await;
    }
    scene.caught_up().await;
}

/// Hazard 4. An insert is a new row, even with the key and the text of one that was there before.
#[tokio::test]
async fn a_row_inserted_again_with_the_same_text_gets_a_vector() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    scene.caught_up().await;
    scene.sql("DELETE FROM notes").await;
    scene.put(1, TIDES).await;
    scene.caught_up().await;
    let again = "BEGIN; DELETE FROM notes; INSERT INTO notes SELECT 1, body FROM truth WHERE body LIKE 'The tides%'; COMMIT";
    scene.sql(again).await;
    scene.caught_up().await;
    assert_eq!(scene.value("SELECT count(*) FROM notes").await, "1");
}

/// Hazard 6. The stream says "unchanged" of a text that is stored out of line.
#[tokio::test]
async fn an_unrelated_update_of_a_long_text_keeps_its_vector() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE notes ALTER COLUMN body SET STORAGE EXTERNAL")
        .await;
    scene.start_daemon().await;
    scene.write(&[&LONG, TIDES]).await;
    scene.caught_up().await;
    let out_of_line =
        "SELECT pg_relation_size(reltoastrelid) > 0 FROM pg_class WHERE oid = 'notes'::regclass";
    assert_eq!(scene.value(out_of_line).await, "true");
    scene.sql("UPDATE notes SET views = views + 1").await;
    let versions = scene.row_versions().await;
    scene.put(3, CAVES).await;
    scene.caught_up().await;
    assert!(scene.row_versions().await.starts_with(&versions));
}
