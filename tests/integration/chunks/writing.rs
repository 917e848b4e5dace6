//! From rows to passages: what is in the table after documents came, changed and went.

use super::documents::{caught_up, passages, text, wrong};
use super::scene::{DOCS, chunk_job, chunk_scene};

/// Short passages, so that short documents have many.
const SHORT: (&str, &str) = ("runtime_params", r#"'{"chunk_tokens": 48}'"#);
const COUNTS: &str = "SELECT string_agg(id || ':' || n, ' ' ORDER BY id) FROM (SELECT id, count(*) AS n FROM docs_chunks GROUP BY id) c";

#[tokio::test]
async fn existing_documents_of_all_sizes_get_their_passages() {
    let mut scene = chunk_scene(DOCS).await;
    for (id, paragraphs) in [(1, 1), (2, 7), (3, 60)] {
        scene
            .put_into("docs", id, &text(id as u64, paragraphs, "end"))
            .await;
    }
    scene
        .sql(
            "INSERT INTO docs (id, body) VALUES (4, NULL), (5, ''), (6, 'Short.'), (7, E'\\n\\n  Mondfinsternis über dem Meer: 月食.  \\n'), \
             (8, 'Short.')",
        )
        .await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.start_daemon().await;
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    let ids = "SELECT string_agg(DISTINCT id::text, ' ') FROM docs_chunks";
    assert_eq!(scene.value(ids).await, "1 2 3 6 7 8");
    let many = "SELECT count(*) > 30 FROM docs_chunks WHERE id = 3";
    assert_eq!(scene.value(many).await, "true");
    // A fingerprint says which text and model a vector is of, wherever the passage stands.
    let kinds = "SELECT count(DISTINCT chunk) = count(DISTINCT chunk_fingerprint) AND bool_and(chunk_fingerprint IS NOT NULL) FROM docs_chunks";
    assert_eq!(scene.value(kinds).await, "true");
    let documents =
        "SELECT count(DISTINCT document_fingerprint) FROM docs_chunks WHERE id IN (6, 8)";
    assert_eq!(scene.value(documents).await, "1");
}

#[tokio::test]
async fn documents_that_come_change_and_go_are_followed() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.start_daemon().await;
    for id in 1..=6 {
        scene
            .put_into("docs", id, &text(id as u64, 5, "first"))
            .await;
    }
    caught_up(&scene).await;
    scene
        .sql(
            "UPDATE docs SET body = NULL WHERE id = 1; UPDATE docs SET body = '' WHERE id = 2; DELETE FROM docs WHERE id = 3; \
             UPDATE docs SET id = 40 WHERE id = 4; UPDATE docs SET title = 'no part of it' WHERE id = 5; \
             UPDATE docs SET body = 'Short now.' WHERE id = 6",
        )
        .await;
    caught_up(&scene).await;
    let ids = "SELECT string_agg(DISTINCT id::text, ' ' ORDER BY id::text) FROM docs_chunks";
    assert_eq!(scene.value(ids).await, "40 5 6");
    // Deleted and inserted in one transaction, and back from NULL.
    let again = text(7, 3, "again");
    scene
        .execute(
            "WITH gone AS (DELETE FROM docs WHERE id = 5) UPDATE docs SET body = $1 WHERE id = 1",
            &[&again],
        )
        .await;
    scene
        .sql("BEGIN; DELETE FROM docs WHERE id = 6; INSERT INTO docs (id, body) VALUES (6, 'Another one.'); COMMIT")
        .await;
    caught_up(&scene).await;
    assert_eq!(scene.value(ids).await, "1 40 6");
    scene.sql("TRUNCATE docs").await;
    scene
        .wait_for("SELECT count(*) FROM docs_chunks", "0")
        .await;
    scene.sql("BEGIN; INSERT INTO docs (id, body) VALUES (1, 'Before.'); TRUNCATE docs; INSERT INTO docs (id, body) VALUES (2, 'After.'); COMMIT").await;
    caught_up(&scene).await;
    assert_eq!(scene.value(COUNTS).await, "2:1");
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn a_template_puts_fields_of_the_row_before_each_passage() {
    let mut scene = chunk_scene(DOCS).await;
    scene.put_into("docs", 1, &text(1, 12, "end")).await;
    scene.put_into("docs", 2, &text(2, 3, "end")).await;
    scene
        .sql("UPDATE docs SET title = 'Of tides' WHERE id = 1")
        .await;
    let params = r#"'{"chunk_tokens": 64, "template": "{title}: {chunk}"}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", params)]).await;
    scene.start_daemon().await;
    let embedded = "COALESCE(d.title, '') || ': ' || c.chunk";
    assert_eq!(wrong(&scene, embedded).await, "");
    let before = passages(&scene, "docs_chunks").await;
    scene
        .sql("UPDATE docs SET title = 'Of stones' WHERE id = 1")
        .await;
    scene.wait_until_confirmed().await;
    assert_eq!(wrong(&scene, embedded).await, "");
    let after = passages(&scene, "docs_chunks").await;
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.chunk, after.chunk);
        let is_same = before.fingerprint == after.fingerprint;
        assert_eq!(is_same, before.id == "2", "{} {}", before.id, before.seq);
    }
}

/// Passages leave no room for fields unless the job asks for it.
#[tokio::test]
async fn a_field_that_takes_the_end_of_a_passage_is_told_with_its_remedy() {
    let mut scene = chunk_scene(DOCS).await;
    scene.put_into("docs", 1, &text(1, 60, "end")).await;
    scene
        .sql("UPDATE docs SET title = repeat('a long title ', 60)")
        .await;
    let params = r#"'{"template": "{title}: {chunk}"}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", params)]).await;
    scene.start_daemon().await;
    scene.wait_for_backfill().await;
    let log = scene.daemon().log();
    let remedy = "set chunk_tokens in runtime_params to fewer tokens";
    assert!(log.contains(remedy), "{log}");
    assert!(!log.contains("divide long texts"), "{log}");
}

#[tokio::test]
async fn a_document_that_is_too_large_is_quarantined_with_its_size_until_it_fits() {
    let mut scene = chunk_scene(DOCS).await;
    let params = r#"'{"max_document_bytes": 10000}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", params)]).await;
    scene.put_into("docs", 1, &"Too long. ".repeat(1001)).await;
    scene.put_into("docs", 2, "Short.").await;
    scene.start_daemon().await;
    scene
        .wait_for_failed_rows(
            "key->>'id', left(error, 73)",
            "(1,\"the text has 10010 bytes (9.8 kB), more than max_document_bytes (9.8 kB);\")",
        )
        .await;
    scene
        .put_into("docs", 3, &"Also too long. ".repeat(1000))
        .await;
    caught_up_but(&scene, "1, 3").await;
    assert_eq!(scene.value(COUNTS).await, "2:1");
    scene.put_into("docs", 1, "It fits now.").await;
    scene.put_into("docs", 3, &"It fits. ".repeat(900)).await;
    caught_up(&scene).await;
    scene
        .wait_for("SELECT count(*) FROM jobs_failures", "0")
        .await;
}

/// As [`caught_up`], without these documents.
async fn caught_up_but(scene: &testkit::Scene, ids: &str) {
    scene.wait_until_confirmed().await;
    let held = scene
        .value(&format!(
            "SELECT count(*) FROM docs_chunks WHERE id IN ({ids})"
        ))
        .await;
    assert_eq!(held, "0");
}

#[tokio::test]
async fn a_passage_that_the_table_refuses_quarantines_its_document_alone() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[SHORT, ("backfill", "true")]).await;
    scene.start_daemon().await;
    scene
        .sql(
            "ALTER TABLE docs_chunks ADD CHECK (chunk NOT LIKE '%forbidden%'); \
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF NEW.chunk LIKE '%canceled%' THEN RETURN NULL; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON docs_chunks FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let mut statement = String::from("BEGIN;");
    for id in 1..=40 {
        let tag = match id {
            7 => "forbidden",
            21 => "canceled",
            _ => "end",
        };
        let body = text(id, 3, tag);
        statement += &format!("INSERT INTO docs (id, body) VALUES ({id}, '{body}');");
    }
    scene.sql(&(statement + "COMMIT")).await;
    scene.wait_until_confirmed().await;
    assert_eq!(
        scene
            .value("SELECT string_agg(DISTINCT (key->>'id'), ' ') FROM jobs_failures")
            .await,
        "21 7"
    );
    let reason = "SELECT error LIKE '%a trigger of \"public\".\"docs_chunks\" canceled%' FROM jobs_failures WHERE key->>'id' = '21'";
    assert_eq!(scene.value(reason).await, "true");
    assert_eq!(
        scene
            .value("SELECT count(DISTINCT id) FROM docs_chunks")
            .await,
        "38"
    );
    scene.sql("DROP TRIGGER refuse ON docs_chunks; UPDATE docs SET body = 'Allowed.' WHERE id IN (7, 21)").await;
    caught_up(&scene).await;
    scene
        .wait_for("SELECT count(*) FROM jobs_failures", "0")
        .await;
}

#[tokio::test]
async fn passages_whose_row_went_while_no_daemon_ran_are_deleted() {
    let mut scene = chunk_scene(DOCS).await;
    for id in 1..=4 {
        scene.put_into("docs", id, &text(id as u64, 4, "end")).await;
    }
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
        .sql("DELETE FROM docs WHERE id = 1; UPDATE docs SET body = 'Other.' WHERE id = 2")
        .await;
    scene.drop_slots().await;
    scene.sql("DELETE FROM docs WHERE id = 3").await;
    scene.start_daemon().await;
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    assert_eq!(
        scene
            .value("SELECT string_agg(DISTINCT id::text, ' ') FROM docs_chunks")
            .await,
        "2 4"
    );
}

/// Two jobs cut the same documents in two ways, and a third one embeds the passages of the first.
#[tokio::test]
async fn jobs_on_the_same_documents_and_on_their_passages_do_not_disturb_each_other() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    chunk_job(&scene, "docs_long", &[]).await;
    for id in 1..=5 {
        scene
            .put_into("docs", id, &text(id as u64, 6, "first"))
            .await;
    }
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE docs_chunks ADD other vector(384)")
        .await;
    let job = testkit::jobs::Job::on(&scene.database, "docs_chunks", "chunk", "other");
    testkit::jobs::insert_job(&scene.client, job).await;
    scene.wait_for_backfill().await;
    for id in 1..=5 {
        scene
            .put_into("docs", id, &text(id as u64, 6, "second"))
            .await;
    }
    scene.sql("DELETE FROM docs WHERE id = 3").await;
    caught_up(&scene).await;
    scene
        .wait_for(
            "SELECT count(*) FROM docs_chunks WHERE other IS NULL OR other <-> embedding > 0.001",
            "0",
        )
        .await;
    caught_up(&scene).await;
    assert_eq!(scene.failures().await, "");
    // At rest nothing is written any more.
    let versions =
        "SELECT md5(string_agg(xmin::text, ' ' ORDER BY id, chunk_seq)) FROM docs_chunks";
    let before = scene.value(versions).await;
    scene.put_into("docs", 9, "One more.").await;
    scene.wait_until_confirmed().await;
    scene.sql("DELETE FROM docs WHERE id = 9").await;
    scene.wait_until_confirmed().await;
    assert_eq!(scene.value(versions).await, before);
}

/// The other job's write-back fires the trigger after a restart of the daemon, which so remembers nothing of the text.
#[tokio::test]
async fn a_text_that_a_trigger_changes_in_the_write_back_of_another_job_is_followed() {
    let mut scene = chunk_scene(DOCS).await;
    scene
        .sql(
            "CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS \
               $$ BEGIN NEW.body := substr(NEW.body, length('unclean ') + 1); RETURN NEW; END $$; \
             CREATE TRIGGER clean BEFORE UPDATE ON docs FOR EACH ROW WHEN (NEW.body LIKE 'unclean %') EXECUTE FUNCTION clean()",
        )
        .await;
    chunk_job(&scene, "docs_chunks", &[]).await;
    scene.start_daemon().await;
    scene.put_into("docs", 1, "unclean text").await;
    caught_up(&scene).await;
    let chunk = "SELECT string_agg(chunk, '|') FROM docs_chunks";
    assert_eq!(scene.value(chunk).await, "unclean text");
    scene.stop_daemon().await;
    scene.job("docs", "body").await;
    scene.start_daemon().await;
    scene.wait_for(chunk, "text").await;
    caught_up(&scene).await;
    assert_eq!(scene.failures().await, "");
}
