//! Documents of megabytes.

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::{Scene, TestDatabase, data_path, server};

use super::scene::{DOCS, with_options};
use crate::support::program;

/// What is wrong with the passages; "" for nothing.
const WRONG: &str = "SELECT string_agg(format('%s: %s', id, what), '; ') FROM ( \
    SELECT c.id, format('passage %s is not its part of the text', chunk_seq) AS what FROM docs_chunks c LEFT JOIN docs d USING (id) \
      WHERE chunk IS DISTINCT FROM substr(d.body, chunk_start + 1, chunk_end - chunk_start) OR embedding IS NULL \
    UNION ALL SELECT d.id, 'words are missing' FROM docs d LEFT JOIN docs_chunks c ON c.id = d.id GROUP BY d.id, d.body \
      HAVING max(chunk_end) IS DISTINCT FROM length(rtrim(d.body)) OR count(*) <> max(chunk_seq) + 1 LIMIT 5) w";

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
    assert_eq!(scene.value(WRONG).await, "");
    // An edit writes the passages that it touches.
    let known = "CREATE TABLE known AS SELECT chunk_seq, chunk_fingerprint, embedding FROM docs_chunks WHERE id = 1";
    scene.sql(known).await;
    scene.sql("UPDATE docs SET body = overlay(body PLACING 'w390 w391' FROM 1000000 FOR 9) WHERE id = 1").await;
    scene.wait_until_confirmed().await;
    assert_eq!(scene.value(WRONG).await, "");
    let new = "SELECT count(*) FROM docs_chunks c WHERE id = 1 AND NOT EXISTS \
               (SELECT FROM known k WHERE k.chunk_fingerprint = c.chunk_fingerprint AND k.embedding = c.embedding)";
    let new: u32 = scene.value(new).await.parse().expect("a number");
    assert!((1..=4).contains(&new), "{new} passages were embedded");
}
