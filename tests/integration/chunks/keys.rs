//! Documents whose keys change, alone and several in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::Scene;

use super::documents::{caught_up, text};
use super::scene::{DOCS, chunk_job, chunk_scene};

const SHORT: (&str, &str) = ("runtime_params", r#"'{"chunk_tokens": 48}'"#);
/// The first word of each document's mark, which its passages have.
const MARKS: &str = "SELECT string_agg(DISTINCT id || ':' || mark, ' ' ORDER BY id || ':' || mark) FROM docs_chunks, \
     LATERAL (SELECT substring(chunk FROM 'mark\\d+') AS mark) m";
/// Exchanges the keys 1 and 2. A key that can be deferred is none for replication, so there is a third one in between.
const SWAP: &str = "BEGIN; UPDATE docs SET id = -1 WHERE id = 1; UPDATE docs SET id = 1 WHERE id = 2; \
     UPDATE docs SET id = 2 WHERE id = -1; COMMIT";

/// Documents 1 to 4 of different lengths, each with a mark of its own in every sentence, and a job that follows them.
async fn marked() -> Scene {
    let mut scene = chunk_scene(DOCS).await;
    for id in 1..=4 {
        let body = text(id, 3 * id, &format!("mark{id}"));
        scene.put_into("docs", id as i32, &body).await;
    }
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.start_daemon().await;
    assert_eq!(scene.value(MARKS).await, "1:mark1 2:mark2 3:mark3 4:mark4");
    scene
}

#[tokio::test]
async fn passages_follow_their_document_to_its_new_key() {
    let scene = marked().await;
    for (statements, expected) in [
        (
            "UPDATE docs SET id = 5 WHERE id = 1",
            "2:mark2 3:mark3 4:mark4 5:mark1",
        ),
        // With another text, to the key of one that went, and along a chain.
        (
            "UPDATE docs SET id = 1, body = replace(body, 'mark1', 'mark9') WHERE id = 5",
            "1:mark9 2:mark2 3:mark3 4:mark4",
        ),
        (
            "BEGIN; DELETE FROM docs WHERE id = 2; UPDATE docs SET id = 2 WHERE id = 4; COMMIT",
            "1:mark9 2:mark4 3:mark3",
        ),
        (
            "BEGIN; UPDATE docs SET id = 4 WHERE id = 3; UPDATE docs SET id = 3 WHERE id = 2; UPDATE docs SET id = 2 WHERE id = 1; COMMIT",
            "2:mark9 3:mark4 4:mark3",
        ),
        // There and back, and to a key that only this transaction knows.
        (
            "BEGIN; UPDATE docs SET id = 9 WHERE id = 2; UPDATE docs SET id = 2 WHERE id = 9; COMMIT",
            "2:mark9 3:mark4 4:mark3",
        ),
        (
            "BEGIN; UPDATE docs SET id = 9 WHERE id = 2; DELETE FROM docs WHERE id = 9; COMMIT",
            "3:mark4 4:mark3",
        ),
    ] {
        scene.sql(statements).await;
        caught_up(&scene).await;
        assert_eq!(scene.value(MARKS).await, expected, "{statements}");
    }
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn two_documents_that_exchange_their_keys_exchange_their_passages() {
    let mut scene = marked().await;
    scene.sql(SWAP).await;
    caught_up(&scene).await;
    assert_eq!(scene.value(MARKS).await, "1:mark2 2:mark1 3:mark3 4:mark4");
    // Again and again while the daemon works, and once while it is gone.
    for _ in 0..6 {
        scene.sql(SWAP).await;
    }
    scene.kill_daemon();
    scene.sql(SWAP).await;
    scene
        .sql("UPDATE docs SET body = replace(body, 'mark1', 'mark7') WHERE id = 1")
        .await;
    scene.start_daemon().await;
    caught_up(&scene).await;
    assert_eq!(scene.value(MARKS).await, "1:mark7 2:mark2 3:mark3 4:mark4");
    assert_eq!(scene.failures().await, "");
}

/// A reader of the view sees each document with its own passages, all of them, or not at all.
#[tokio::test]
async fn a_reader_never_sees_the_passages_of_a_document_with_another_row() {
    let scene = marked().await;
    let reader = scene.session("").await;
    let strange = "SELECT string_agg(format('%s %s', id, chunk_seq), '; ') FROM ( \
        SELECT *, count(*) OVER d = max(chunk_seq) OVER d + 1 AS whole FROM docs_chunks_documents WINDOW d AS (PARTITION BY id)) d \
        WHERE NOT whole OR substr(body, chunk_start + 1, chunk_end - chunk_start) <> chunk";
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let looking = tokio::spawn(async move {
        let (mut looks, mut seen) = (0, String::new());
        while !is_done.load(Ordering::Relaxed) && seen.is_empty() {
            let row = reader.query_one(strange, &[]).await.expect("a look");
            seen += row.get::<_, Option<&str>>(0).unwrap_or_default();
            looks += 1;
        }
        (looks, seen)
    });
    for round in 0..30 {
        scene.sql(SWAP).await;
        if round % 3 == 0 {
            scene.wait_until_confirmed().await;
        }
    }
    caught_up(&scene).await;
    done.store(true, Ordering::Relaxed);
    let (looks, seen) = looking.await.expect("the reader");
    assert_eq!(seen, "", "after {looks} looks");
    assert!(looks > 5, "{looks} looks");
}

/// The key has two columns, of which each may change.
#[tokio::test]
async fn a_column_of_a_key_of_two_changes() {
    let mut scene = chunk_scene(
        "CREATE TABLE docs (tenant text, id int, title text, body text, PRIMARY KEY (tenant, id))",
    )
    .await;
    for (tenant, id) in [("a", 1), ("b", 1)] {
        let body = text(id, 4, &format!("mark{}", if tenant == "a" { 1 } else { 2 }));
        let insert = "INSERT INTO docs (tenant, id, body) VALUES ($1, $2, $3)";
        scene.execute(insert, &[&tenant, &(id as i32), &body]).await;
    }
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.start_daemon().await;
    let marks = "SELECT string_agg(DISTINCT concat(tenant, id, ':', mark), ' ' ORDER BY concat(tenant, id, ':', mark)) \
        FROM docs_chunks, LATERAL (SELECT substring(chunk FROM 'mark\\d+') AS mark) m";
    assert_eq!(scene.value(marks).await, "a1:mark1 b1:mark2");
    for (statements, expected) in [
        (
            "UPDATE docs SET tenant = 'c' WHERE tenant = 'a'",
            "b1:mark2 c1:mark1",
        ),
        (
            "BEGIN; UPDATE docs SET tenant = '' WHERE tenant = 'b'; UPDATE docs SET tenant = 'b' WHERE tenant = 'c'; \
             UPDATE docs SET tenant = 'c', id = 7 WHERE tenant = ''; COMMIT",
            "b1:mark1 c7:mark2",
        ),
    ] {
        scene.sql(statements).await;
        scene.wait_until_confirmed().await;
        assert_eq!(scene.value(marks).await, expected, "{statements}");
        let shown =
            "SELECT count(*) = (SELECT count(*) FROM docs_chunks) FROM docs_chunks_documents";
        assert_eq!(scene.value(shown).await, "true");
    }
}
