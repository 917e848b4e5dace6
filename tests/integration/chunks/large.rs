//! Documents of megabytes.

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::{Scene, TestDatabase, data_path, server};

use super::scene::{DOCS, with_options};
use crate::support::program;

/// Asserts that the passages of a document of ASCII are its parts and leave out no word, and that all have a vector. (For
/// each passage, `substr` would read the whole text.)
async fn assert_cut(scene: &Scene, id: i32) {
    let body = scene
        .value(&format!("SELECT body FROM docs WHERE id = {id}"))
        .await;
    let query = "SELECT chunk_seq, chunk_start, chunk_end, chunk, embedding IS NOT NULL FROM docs_chunks WHERE id = $1 ORDER BY 1";
    let rows = scene
        .client
        .query(query, &[&id])
        .await
        .expect("the passages");
    let mut covered = 0;
    for (row, number) in rows.iter().zip(0..) {
        let (seq, start, end): (i32, i32, i32) = (row.get(0), row.get(1), row.get(2));
        let (start, end) = (start as usize, end as usize);
        assert_eq!(
            (seq, &body[start..end]),
            (number, row.get(3)),
            "document {id}"
        );
        let left_out = body.get(covered..start).unwrap_or_default();
        assert_eq!(left_out.trim(), "", "before passage {seq} of document {id}");
        assert!(
            row.get::<_, bool>(4),
            "passage {seq} of document {id} has no vector"
        );
        covered = end;
    }
    assert_eq!(
        body[covered..].trim(),
        "",
        "behind the passages of document {id}"
    );
}

/// Texts of other documents do not wait for it.
#[tokio::test]
async fn a_document_of_megabytes_is_cut_beside_short_ones() {
    let folder = data_path::with_tiny_models();
    let database = TestDatabase::with_vector(server::shared()).await;
    let mut scene = Scene::without_vectors(program().with_data_path(folder.path()), database).await;
    with_options(&scene).await;
    scene.sql(DOCS).await;
    scene
        .sql(
            "INSERT INTO docs (id, body) SELECT 1, string_agg('w' || (n::bigint * 7919) % 400 || CASE WHEN n % 60 = 0 THEN E'.\\n\\n' ELSE ' ' END, '') \
             FROM generate_series(1, 500000) n",
        )
        .await;
    let job = Job {
        embedding_model: TinyModel::One.name(),
        options: &[("chunk_table", "'docs_chunks'")],
        ..Job::on(&scene.database, "docs", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    scene.spawn_daemon();
    scene.wait_for("SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()", "1").await;
    scene.put_into("docs", 2, "w1 w2 w3").await;
    scene.wait_for_backfill().await;
    scene.wait_until_confirmed().await;
    let is_large = "SELECT octet_length(body) > 2000000 AND (SELECT count(*) > 4000 FROM docs_chunks c WHERE c.id = d.id) \
                    FROM docs d WHERE id = 1";
    assert_eq!(scene.value(is_large).await, "true");
    assert_cut(&scene, 1).await;
    assert_cut(&scene, 2).await;
    // An edit writes the passages that it touches.
    let known = "CREATE TABLE known AS SELECT chunk_seq, chunk_fingerprint, embedding FROM docs_chunks WHERE id = 1";
    scene.sql(known).await;
    scene.sql("UPDATE docs SET body = overlay(body PLACING 'w390 w391' FROM 1000000 FOR 9) WHERE id = 1").await;
    scene.wait_until_confirmed().await;
    assert_cut(&scene, 1).await;
    let new = "SELECT count(*) FROM docs_chunks c WHERE id = 1 AND NOT EXISTS \
               (SELECT FROM known k WHERE k.chunk_fingerprint = c.chunk_fingerprint AND k.embedding = c.embedding)";
    let new: u32 = scene.value(new).await.parse().expect("a number");
    assert!((1..=4).contains(&new), "{new} passages were embedded");
}
