//! Documents of megabytes.

use std::path::Path;

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::{Scene, TestDatabase, data_path, procfs, server};

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

/// A scene whose job has a tiny model, and cuts documents of the table `docs`.
async fn tiny_scene(data_path: &Path) -> Scene {
    let database = TestDatabase::with_vector(server::shared()).await;
    let scene = Scene::without_vectors(program().with_data_path(data_path), database).await;
    with_options(&scene).await;
    scene.sql(DOCS).await;
    scene
}

async fn tiny_job(scene: &Scene, options: &[(&str, &str)]) {
    let mut all = vec![("chunk_table", "'docs_chunks'")];
    all.extend(options);
    let job = Job {
        embedding_model: TinyModel::One.name(),
        options: &all,
        ..Job::on(&scene.database, "docs", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
}

/// Texts of other documents do not wait for it.
#[tokio::test]
async fn a_document_of_megabytes_is_cut_beside_short_ones() {
    let folder = data_path::with_tiny_models();
    let mut scene = tiny_scene(folder.path()).await;
    scene
        .sql(
            "INSERT INTO docs (id, body) SELECT 1, string_agg('w' || (n::bigint * 7919) % 400 || CASE WHEN n % 60 = 0 THEN E'.\\n\\n' ELSE ' ' END, '') \
             FROM generate_series(1, 500000) n",
        )
        .await;
    tiny_job(&scene, &[]).await;
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

/// In the stream a row is one message, which is held once.
#[tokio::test]
async fn a_document_of_a_hundred_megabytes_is_refused_with_its_size_and_held_once_at_most() {
    const WORDS: &str = "w1 w2 w3 w4 and w399 ";
    let folder = data_path::with_tiny_models();
    let mut scene = tiny_scene(folder.path()).await;
    let large = format!("repeat('{WORDS}', (100 << 20) / {})", WORDS.len());
    // Not compressed: it would be small on its way otherwise.
    scene
        .sql("ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
        .await;
    scene.put_into("docs", 2, "w1 w2 w3").await;
    tiny_job(&scene, &[]).await;
    scene.start_daemon().await;
    let process = scene.daemon().id();
    procfs::reset_peak(process);
    let before = procfs::resident(process).peak;
    scene
        .sql(&format!("INSERT INTO docs (id, body) VALUES (1, {large})"))
        .await;
    let reason =
        "(1,\"the text has 104857599 bytes (100.0 MB), more than max_document_bytes (16 MB)\")";
    let columns = "key->>'id', split_part(error, ';', 1)";
    scene.wait_for_failed_rows(columns, reason).await;
    // What follows it is not kept waiting.
    scene.put_into("docs", 3, "w4 w5 w6").await;
    scene.wait_until_confirmed().await;
    assert_cut(&scene, 3).await;
    let grown = procfs::resident(process).peak - before;
    assert!(grown < 130 << 20, "{grown} bytes more");
    // Until it fits.
    scene.put_into("docs", 1, "w7 w8").await;
    scene.wait_until_confirmed().await;
    assert_cut(&scene, 1).await;
    scene
        .wait_for("SELECT count(*) FROM jobs_failures", "0")
        .await;
}
