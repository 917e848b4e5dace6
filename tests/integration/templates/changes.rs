//! Which changes of a row give it another vector, and which cost nothing.

use testkit::Scene;
use testkit::client::execute;
use testkit::jobs::{Job, insert_job};
use testkit::scene::{CAVES, LONG, MOON, TIDES};
use testkit::vectors::{cosine, wait_for_vectors};

use super::{COMPOSED, NOTES, TITLE_AND_BODY, caught_up, job, stop, templated, templated_with};
use crate::support::{program, scene_with};

/// Rows 1 to 3, each with a title and a text.
async fn write(scene: &Scene) {
    for (id, body) in [(1, TIDES), (2, MOON), (3, CAVES)] {
        let insert = "INSERT INTO notes (id, title, body) VALUES ($1, 'Note ' || $1::int, $2)";
        scene.execute(insert, &[&id, &body]).await;
    }
}

#[tokio::test]
async fn the_vector_is_that_of_the_text_which_the_template_makes() {
    let template = "{title} ({views} {{times}})\n{body}";
    let mut scene = templated(NOTES, template).await;
    write(&scene).await;
    scene.start_daemon().await;
    scene
        .sql("INSERT INTO notes (id, title, body) VALUES (4, 'it''s \\ \"quoted\" {title} $1', 'Sand')")
        .await;
    scene.wait_until_confirmed().await;
    for (id, text) in [
        (1, format!("Note 1 (0 {{times}})\n{TIDES}")),
        (3, format!("Note 3 (0 {{times}})\n{CAVES}")),
        (4, "it's \\ \"quoted\" {title} $1 (0 {times})\nSand".into()),
    ] {
        let printed = program().stdout_of(&["embed", "--json", &text]).await;
        let expected: Vec<f32> = serde_json::from_str(&printed).expect(&printed);
        let found = format!("SELECT embedding::real[] FROM notes WHERE id = {id}");
        let found: Vec<f32> = testkit::client::value(&scene.client, &found).await;
        let cosine = cosine(&expected, &found);
        assert!(cosine > 0.9999, "{text}: {cosine}");
    }
}

#[tokio::test]
async fn a_change_of_any_named_column_is_embedded_and_of_no_other() {
    for identity in ["DEFAULT", "FULL"] {
        let mut scene = templated(NOTES, TITLE_AND_BODY).await;
        scene
            .sql(&format!("ALTER TABLE notes REPLICA IDENTITY {identity}"))
            .await;
        write(&scene).await;
        scene.start_daemon().await;
        caught_up(&scene, COMPOSED).await;
        for changes in [
            "UPDATE notes SET views = views + 1",
            "UPDATE notes SET title = title, body = body",
            "UPDATE notes SET title = 'Another title' WHERE id = 1",
            "UPDATE notes SET body = 'Another text' WHERE id = 2",
            "UPDATE notes SET title = 'Both', body = 'of them' WHERE id = 3",
            "UPDATE notes SET views = views + 1",
            "UPDATE notes SET views = -1, embedding = embedding",
        ] {
            scene.sql(changes).await;
            caught_up(&scene, COMPOSED).await;
        }
        assert_eq!(scene.failures().await, "");
        assert_eq!(stop(&mut scene).await, 3 + 3, "{identity}");
    }
}

/// The table is locked while the changes are worked on: whoever read a row would wait.
#[tokio::test]
async fn an_update_of_another_column_reads_no_row() {
    for storage in ["PLAIN", "EXTERNAL"] {
        let mut scene = templated(NOTES, TITLE_AND_BODY).await;
        let alter = format!("ALTER TABLE notes ALTER body SET STORAGE {storage}");
        scene.sql(&alter).await;
        write(&scene).await;
        if storage == "EXTERNAL" {
            scene
                .execute("UPDATE notes SET body = $1 WHERE id = 2", &[&LONG.as_str()])
                .await;
        }
        scene.start_daemon().await;
        scene.sql("UPDATE notes SET title = 'Changed'").await;
        caught_up(&scene, COMPOSED).await;
        let user = scene
            .session("BEGIN; UPDATE notes SET views = views + 1")
            .await;
        let locking = scene.database.client().await;
        let lock = async {
            execute(&locking, "BEGIN; LOCK TABLE notes IN ACCESS EXCLUSIVE MODE").await;
        };
        let commit = async {
            let waiting =
                "SELECT count(*) FROM pg_locks WHERE relation = 'notes'::regclass AND NOT granted";
            scene.wait_for(waiting, "1").await;
            execute(&user, "COMMIT").await;
        };
        tokio::join!(lock, commit);
        scene.wait_until_confirmed().await;
        execute(&locking, "COMMIT").await;
        assert_eq!(scene.failures().await, "");
        caught_up(&scene, COMPOSED).await;
    }
}

#[tokio::test]
async fn a_row_without_a_text_has_no_vector_and_a_field_that_is_null_is_empty() {
    let mut scene = templated(NOTES, TITLE_AND_BODY).await;
    write(&scene).await;
    scene
        .sql("INSERT INTO notes (id, title, body) VALUES (4, NULL, 'No title'), (5, 'No text', NULL), (6, 'No text', '')")
        .await;
    scene.start_daemon().await;
    let with_vector =
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM notes WHERE embedding IS NOT NULL";
    caught_up(&scene, COMPOSED).await;
    assert_eq!(scene.value(with_vector).await, "1 2 3 4");
    scene
        .sql("UPDATE notes SET body = NULL WHERE id = 1; UPDATE notes SET body = '' WHERE id = 2; \
              UPDATE notes SET title = NULL WHERE id = 3; UPDATE notes SET title = 'A title' WHERE id > 3")
        .await;
    caught_up(&scene, COMPOSED).await;
    assert_eq!(scene.value(with_vector).await, "3 4");
    scene
        .sql("UPDATE notes SET body = 'Again' WHERE id IN (1, 5)")
        .await;
    caught_up(&scene, COMPOSED).await;
    assert_eq!(scene.value(with_vector).await, "1 3 4 5");
}

/// Hazards 5 and 6: a text that is stored out of line is not in the stream unless it changes.
#[tokio::test]
async fn a_text_out_of_line_counts_with_a_changed_title_and_under_another_key() {
    for identity in ["DEFAULT", "FULL"] {
        let tables = format!(
            "{NOTES}; ALTER TABLE notes ALTER body SET STORAGE EXTERNAL; ALTER TABLE notes REPLICA IDENTITY {identity}"
        );
        let mut scene = templated(&tables, TITLE_AND_BODY).await;
        write(&scene).await;
        scene
            .execute("UPDATE notes SET body = $1", &[&LONG.as_str()])
            .await;
        scene.start_daemon().await;
        caught_up(&scene, COMPOSED).await;
        scene
            .sql("UPDATE notes SET title = 'Changed' WHERE id = 1")
            .await;
        caught_up(&scene, COMPOSED).await;
        scene.sql("UPDATE notes SET views = views + 1").await;
        scene
            .sql("UPDATE notes SET id = 10, title = 'Moved' WHERE id = 2")
            .await;
        scene
            .sql("UPDATE notes SET id = 11, embedding = NULL WHERE id = 3")
            .await;
        caught_up(&scene, COMPOSED).await;
        // Two rows exchange their keys, so what was seen last of a key is that of the other row.
        scene
            .sql("BEGIN; UPDATE notes SET id = -1 WHERE id = 10; UPDATE notes SET id = 10, embedding = NULL WHERE id = 11; \
                  UPDATE notes SET id = 11, embedding = NULL WHERE id = -1; COMMIT")
            .await;
        caught_up(&scene, COMPOSED).await;
        scene
            .execute("UPDATE notes SET body = $1 WHERE id = 10", &[&TIDES])
            .await;
        caught_up(&scene, COMPOSED).await;
        assert_eq!(scene.failures().await, "");
    }
}

/// Hazard 4. The rows tell by their fingerprints, and the daemon need not read them.
#[tokio::test]
async fn with_fingerprints_an_update_of_another_column_writes_nothing_after_a_restart() {
    let options = [("fingerprint_column", "'mark'")];
    let mut scene = templated_with(NOTES, TITLE_AND_BODY, &options).await;
    write(&scene).await;
    scene.start_daemon().await;
    caught_up(&scene, COMPOSED).await;
    let expected = "SELECT count(DISTINCT mark) FROM notes";
    assert_eq!(scene.value(expected).await, "3");
    scene.stop_daemon().await;
    scene.start_daemon().await;
    scene.sql("UPDATE notes SET views = views + 1").await;
    let versions = scene.row_versions().await;
    scene.wait_until_confirmed().await;
    assert_eq!(scene.row_versions().await, versions, "written again");
    scene
        .sql("UPDATE notes SET title = 'Changed' WHERE id = 1")
        .await;
    caught_up(&scene, COMPOSED).await;
    assert_eq!(stop(&mut scene).await, 1);
}

/// Hazard 16. What changed while the slot was gone is told by the fingerprints.
#[tokio::test]
async fn after_a_lost_slot_a_changed_title_is_found_by_its_fingerprint() {
    let options = [("fingerprint_column", "'mark'")];
    let mut scene = templated_with(NOTES, TITLE_AND_BODY, &options).await;
    write(&scene).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.drop_slots().await;
    scene
        .sql("UPDATE notes SET title = 'Changed' WHERE id = 1")
        .await;
    scene.start_daemon().await;
    caught_up(&scene, COMPOSED).await;
    assert_eq!(stop(&mut scene).await, 1);
}

/// Hazard 9. The server does not publish the column, so each change has its row read; only another text is embedded.
#[tokio::test]
async fn a_generated_column_and_the_key_are_fields() {
    let version = scene_with("SELECT").await.database.version();
    let kinds: &[&str] = match version >= 18 {
        true => &["STORED", "VIRTUAL"],
        false => &["STORED"],
    };
    for kind in kinds {
        let tables = format!(
            "CREATE TABLE notes (id int PRIMARY KEY, name text, body text, views int NOT NULL DEFAULT 0, \
             title text GENERATED ALWAYS AS (upper(name)) {kind}, embedding vector(384))"
        );
        let mut scene = templated(&tables, "{id}: {title}. {chunk}").await;
        let composed = "id || ': ' || COALESCE(upper(name), '') || '. ' || body";
        scene
            .sql("INSERT INTO notes (id, name, body) VALUES (1, 'one', 'First'), (2, NULL, 'Second')")
            .await;
        scene.start_daemon().await;
        caught_up(&scene, composed).await;
        scene.sql("UPDATE notes SET views = views + 1").await;
        caught_up(&scene, composed).await;
        scene
            .sql("UPDATE notes SET name = 'two' WHERE id = 2")
            .await;
        caught_up(&scene, composed).await;
        scene.sql("UPDATE notes SET id = 3 WHERE id = 2").await;
        caught_up(&scene, composed).await;
        scene.sql("UPDATE notes SET views = views + 1").await;
        scene.wait_until_confirmed().await;
        assert_eq!(scene.failures().await, "");
        assert_eq!(stop(&mut scene).await, 4, "{kind}");
    }
}

#[tokio::test]
async fn a_trigger_that_changes_a_field_in_the_write_back_is_followed() {
    let tables = format!(
        "{NOTES}; \
         CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS \
           $$ BEGIN IF NEW.title NOT LIKE '%seen' THEN NEW.title := NEW.title || ' seen'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER seen BEFORE UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION seen()"
    );
    let mut scene = templated(&tables, TITLE_AND_BODY).await;
    write(&scene).await;
    scene.start_daemon().await;
    scene
        .sql("INSERT INTO notes (id, title, body) VALUES (4, 'Later', 'Sand')")
        .await;
    caught_up(&scene, COMPOSED).await;
    let seen = "SELECT bool_and(title LIKE '%seen') FROM notes";
    assert_eq!(scene.value(seen).await, "true");
    assert_eq!(scene.failures().await, "");
}

/// The jobs' write-backs are changes of the table for each other, and their publications list other columns.
#[tokio::test]
async fn jobs_with_other_templates_share_a_table() {
    for arguments in [&[][..], &["--slots", "database"]] {
        let tables = NOTES.replace(
            "embedding vector(384)",
            "embedding vector(384), plain vector(384), swapped vector(384)",
        );
        let mut scene = templated(&tables, TITLE_AND_BODY).await;
        let plain = Job::on(&scene.database, "notes", "body", "plain");
        insert_job(&scene.client, plain).await;
        let params = r#"'{"template": "{chunk} / {views}"}'"#;
        let swapped = Job {
            options: &[("runtime_params", params)],
            ..Job::on(&scene.database, "notes", "title", "swapped")
        };
        insert_job(&scene.client, swapped).await;
        write(&scene).await;
        scene.spawn_daemon_with(arguments);
        let unfinished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NULL";
        scene.wait_for(unfinished, "0").await;
        for changes in [
            "UPDATE notes SET views = views + 1",
            "UPDATE notes SET title = 'Changed' WHERE id = 1",
            "UPDATE notes SET body = 'Changed' WHERE id = 2",
            "INSERT INTO notes (id, title, body) VALUES (4, 'New', 'Sand')",
        ] {
            scene.sql(changes).await;
            caught_up(&scene, COMPOSED).await;
            wait_for_vectors(&scene.client, "notes", "body", "plain").await;
            wait_for_vectors(&scene.client, "notes", "title || ' / ' || views", "swapped").await;
        }
        assert_eq!(scene.failures().await, "");
        // 3 jobs of 3 rows; 3 rows with other views; a title in two jobs, a text in two, a row in three.
        assert_eq!(stop(&mut scene).await, 9 + 3 + 2 + 2 + 3, "{arguments:?}");
    }
}

#[tokio::test]
async fn partitions_and_rows_that_move_between_them_have_their_vectors() {
    let tables = "CREATE TABLE notes (id int, title text, body text, part int, embedding vector(384), \
                    PRIMARY KEY (id, part)) PARTITION BY LIST (part); \
                  CREATE TABLE low PARTITION OF notes FOR VALUES IN (1); \
                  CREATE TABLE high PARTITION OF notes FOR VALUES IN (2)";
    let mut scene = scene_with(tables).await;
    job(&scene, TITLE_AND_BODY, &[]).await;
    scene
        .sql("INSERT INTO notes (id, part, title, body) VALUES (1, 1, 'One', 'First'), (2, 2, 'Two', 'Second')")
        .await;
    scene.start_daemon().await;
    scene
        .sql("UPDATE notes SET title = 'Changed' WHERE id = 1; UPDATE notes SET part = 1, title = 'Moved' WHERE id = 2")
        .await;
    caught_up(&scene, COMPOSED).await;
    assert_eq!(scene.failures().await, "");
}
