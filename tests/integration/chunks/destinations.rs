//! Passages with vectors of every type that a column may have.

use testkit::Scene;
use testkit::vectors::{cosine, embed};

use super::documents::{caught_up, passages, text};
use super::scene::{DOCS, chunk_job, chunk_scene};
use crate::support::program;

const SHORT: (&str, &str) = ("runtime_params", r#"'{"chunk_tokens": 48}'"#);
const KIND: &str = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
                    WHERE attrelid = 'docs_chunks'::regclass AND attname = 'embedding'";

/// Documents are followed through all that writes a passage: new vectors, those that move, those that are copied.
async fn is_followed(scene: &mut Scene, job: i32) {
    scene.put_into("docs", 1, &text(1, 30, "first")).await;
    scene.put_into("docs", 2, "Short.").await;
    scene.start_daemon().await;
    caught_up(scene).await;
    let before = passages(scene, "docs_chunks").await;
    let edits = [
        "UPDATE docs SET body = E'New at the beginning, so that all others move.\n\n' || body WHERE id = 1",
        "UPDATE docs SET body = replace(body, 'number 1015', 'changed') WHERE id = 1",
        "UPDATE docs SET body = body || E'\n\n' || body WHERE id = 1",
        "UPDATE docs SET id = 3 WHERE id = 2",
    ];
    for edit in edits {
        scene.sql(edit).await;
        caught_up(scene).await;
    }
    // What was not edited has the vector that it had, to the last bit.
    let after = passages(scene, "docs_chunks").await;
    let kept = before.iter().filter(|old| old.id == "1").filter(|old| {
        after
            .iter()
            .any(|new| new.fingerprint == old.fingerprint && new.vector == old.vector)
    });
    assert!(kept.count() + 4 > before.len(), "of {}", before.len());
    let (uri, job) = (scene.database.uri(), job.to_string());
    for arguments in [
        &["verify", "--full"][..],
        &["resync", "--all"],
        &["verify", "--full"],
    ] {
        let arguments = [arguments, &["--uri", &uri, "--job", &job]].concat();
        program().stdout_of(&arguments).await;
    }
    caught_up(scene).await;
    let found = program()
        .stdout_of(&["search", "--uri", &uri, "--job", &job, "--json", "short"])
        .await;
    assert!(found.contains("Short."), "{found}");
    assert_eq!(scene.failures().await, "");
}

/// The daemon creates the table.
#[tokio::test]
async fn passages_have_vectors_of_the_type_that_the_job_asks_for() {
    for (asked, kind) in [
        ("real[]", "real[]"),
        ("halfvec", "halfvec(384)"),
        ("double precision[]", "double precision[]"),
    ] {
        let mut scene = chunk_scene(DOCS).await;
        if kind.starts_with("halfvec") && scene.database.skips_vector() {
            continue;
        }
        let asked = format!("'{asked}'");
        let job = chunk_job(&scene, "docs_chunks", &[SHORT, ("column_type", &asked)]).await;
        is_followed(&mut scene, job).await;
        assert_eq!(scene.value(KIND).await, kind);
    }
}

/// The users have created the table; a type without dimensions takes vectors of any, and a domain may be over a type.
#[tokio::test]
async fn a_table_that_exists_keeps_the_type_of_its_vectors() {
    for kind in ["halfvec(384)", "halfvec", "vector", "real[]", "doc_vector"] {
        let mut scene = chunk_scene(DOCS).await;
        if kind.contains("vec") && kind != "doc_vector" && scene.database.skips_vector() {
            continue;
        }
        scene
            .sql(&format!(
                "CREATE DOMAIN doc_vector AS real[] CHECK (cardinality(VALUE) = 384); \
                 CREATE TABLE docs_chunks (id int, chunk_seq int, chunk_start int, chunk_end int, chunk text, embedding {kind}, \
                   chunk_fingerprint uuid, document_fingerprint uuid, PRIMARY KEY (id, chunk_seq))"
            ))
            .await;
        let job = chunk_job(&scene, "docs_chunks", &[SHORT]).await;
        is_followed(&mut scene, job).await;
        assert_eq!(scene.value(KIND).await, kind);
    }
}

/// An index of half precision serves the view, too.
#[tokio::test]
async fn passages_of_half_precision_have_an_index_and_are_found_by_it() {
    let mut scene = chunk_scene(DOCS).await;
    if scene.database.skips_vector() {
        return;
    }
    let options = [
        SHORT,
        ("column_type", "'halfvec'"),
        ("create_index", "'hnsw'"),
    ];
    scene.sql("ALTER TABLE jobs ADD index_state text").await;
    chunk_job(&scene, "docs_chunks", &options).await;
    for id in 1..=30 {
        scene.put_into("docs", id, &text(id as u64, 3, "end")).await;
    }
    scene.start_daemon().await;
    scene
        .wait_for("SELECT index_state LIKE 'ready%' FROM jobs", "true")
        .await;
    let index = "SELECT count(*) FROM pg_indexes WHERE tablename = 'docs_chunks' AND indexdef LIKE '%hnsw%halfvec_%'";
    assert_eq!(scene.value(index).await, "1");
    caught_up(&scene).await;
    let nearest = "SELECT chunk, embedding::real[] FROM docs_chunks_documents \
                   ORDER BY embedding <=> (SELECT embedding FROM docs_chunks WHERE id = 7 AND chunk_seq = 0) LIMIT 1";
    let row = scene
        .client
        .query_one(nearest, &[])
        .await
        .expect("a passage");
    let (chunk, vector): (String, Vec<f32>) = (row.get(0), row.get(1));
    assert!(text(7, 3, "end").starts_with(&chunk), "{chunk}");
    let right = embed(vec![chunk]).await;
    assert!(cosine(&vector, &right[0]) > 0.9999);
}
