//! The view of passages with their rows: what it shows, to whom, and what it does not get in the way of.

use testkit::Scene;
use testkit::client::execute;
use testkit::wait::TIMEOUT;

use super::scene::{DOCS, chunk_job, chunk_scene};

const COLUMNS: &str = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute \
                       WHERE attrelid = to_regclass('docs_chunks_documents') AND attnum > 0";

/// A scene with a job that streams, and these passages of the row 1, if they are those of its content.
async fn streaming(tables: &str) -> Scene {
    let mut scene = chunk_scene(tables).await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    scene
}

/// Reads what the function compares with, and writes passages of all rows with it.
async fn fill(scene: &Scene) {
    let body = "SELECT substring(prosrc FROM 'document_fingerprint OPERATOR\\(pg_catalog.=\\) (.*) THEN true') FROM pg_proc \
                WHERE proname = 'docs_chunks_documents'";
    let expected = scene.value(body).await;
    scene
        .sql(&format!(
            "INSERT INTO docs_chunks (id, chunk_seq, chunk_start, chunk_end, chunk, embedding, document_fingerprint) \
             SELECT id, n, 0, 1, n || ' of ' || id, array_fill(0.01::real, '{{384}}')::vector(384), \
                    CASE n WHEN 0 THEN {expected} END \
             FROM docs d, generate_series(0, 1) n WHERE body <> ''"
        ))
        .await;
}

#[tokio::test]
async fn a_row_shows_with_its_passages_until_its_content_changes() {
    let scene = streaming(DOCS).await;
    scene.sql("INSERT INTO docs VALUES (1, 'a', 'one'), (2, 'b', E'zwei\\n\\\\ \"2\"'), (3, 'c', NULL)").await;
    fill(&scene).await;
    let shown = "SELECT string_agg(concat_ws('/', id, title, body, chunk), ',' ORDER BY id, chunk_seq) FROM docs_chunks_documents";
    assert_eq!(
        scene.value(shown).await,
        "1/a/one/0 of 1,1/a/one/1 of 1,2/b/zwei\n\\ \"2\"/0 of 2,2/b/zwei\n\\ \"2\"/1 of 2"
    );
    // Whatever the search path of the reader is.
    let reader = scene
        .session("CREATE SCHEMA odd; CREATE FUNCTION odd.md5(text) RETURNS text LANGUAGE sql AS 'SELECT ''x'''; SET search_path = odd, pg_catalog")
        .await;
    let count: i64 =
        testkit::client::value(&reader, "SELECT count(*) FROM public.docs_chunks_documents").await;
    assert_eq!(count, 4);
    scene.sql("UPDATE docs SET title = 'other' WHERE id = 1; UPDATE docs SET body = 'changed' WHERE id = 2").await;
    let ids = "SELECT string_agg(DISTINCT id::text, ' ') FROM docs_chunks_documents";
    assert_eq!(scene.value(ids).await, "1");
    scene.sql("DELETE FROM docs WHERE id = 1").await;
    assert_eq!(scene.value(ids).await, "");
}

#[tokio::test]
async fn the_users_may_change_and_drop_what_the_view_reads() {
    let mut scene = streaming(DOCS).await;
    assert_eq!(
        scene.value(COLUMNS).await,
        "id title body chunk_seq chunk_start chunk_end chunk embedding"
    );
    scene
        .sql("GRANT SELECT ON docs_chunks_documents TO PUBLIC")
        .await;
    scene
        .sql("ALTER TABLE docs ALTER title TYPE varchar(9)")
        .await;
    scene
        .sql("ALTER TABLE docs DROP title, ADD chunk int, ADD docs_chunk int")
        .await;
    scene
        .wait_for(
            COLUMNS,
            "id body docs_chunk_2 docs_chunk chunk_seq chunk_start chunk_end chunk embedding",
        )
        .await;
    // What others were granted stays.
    let granted = "SELECT has_table_privilege('public', 'docs_chunks_documents', 'SELECT')";
    assert_eq!(scene.value(granted).await, "true");
    scene.sql("DROP TABLE docs").await;
    // The watchdog may notice it first; the next attempt says this.
    scene
        .daemon()
        .wait_for_line(
            "there is no table \"public\".\"docs\" in the target database",
            TIMEOUT,
        )
        .await;
}

#[tokio::test]
async fn a_view_that_is_dropped_is_made_again_while_the_job_runs() {
    let mut scene = streaming(DOCS).await;
    scene.sql("INSERT INTO docs VALUES (0, 'a', 'one')").await;
    let function = "SELECT count(*) FROM pg_proc WHERE proname = 'docs_chunks_documents'";
    // The job streams, and sees what becomes of the view.
    let write = async |scene: &Scene, id: usize| {
        let insert = format!("INSERT INTO docs VALUES ({id}, 'b', 'two')");
        scene.sql(&insert).await;
        let passages = format!("SELECT count(*) FROM docs_chunks WHERE id = {id}");
        scene.wait_for(&passages, "1").await;
    };
    let drops = [
        "DROP VIEW docs_chunks_documents",
        "DROP FUNCTION docs_chunks_documents CASCADE",
        "DROP TYPE docs_chunks_document CASCADE",
    ];
    for (id, drop) in (1..).zip(drops) {
        scene.sql(drop).await;
        let shown = "SELECT to_regclass('docs_chunks_documents')";
        scene.wait_for(shown, "docs_chunks_documents").await;
        assert_eq!(scene.value(function).await, "1");
        write(&scene, id).await;
    }
    let again = "the view of the documents in \"public\".\"docs_chunks\" (chunk_table) is gone; the job makes it again";
    let times = |log: String| log.matches(again).count();
    assert_eq!(times(scene.daemon().log()), drops.len());
    // A view of another name needs the function, so it cannot be made again. That keeps the job from nothing.
    let rename = "ALTER VIEW docs_chunks_documents RENAME TO kept";
    scene.sql(rename).await;
    let said = "is not made, which keeps the job from nothing";
    scene.daemon().wait_for_line(said, TIMEOUT).await;
    write(&scene, 9).await;
    scene.wait_for("SELECT count(*) FROM kept", "5").await;
    assert_eq!(times(scene.daemon().log()), drops.len() + 1);
}

#[tokio::test]
async fn the_nearest_passages_come_from_the_index_through_the_view() {
    let scene = chunk_scene(DOCS).await;
    if scene.database.skips_vector() {
        return;
    }
    let mut scene = scene;
    scene.sql("INSERT INTO docs SELECT i, 't', repeat('word ' || i || ' ', 30) FROM generate_series(1, 2000) i").await;
    chunk_job(
        &scene,
        "docs_chunks",
        &[("backfill", "false"), ("create_index", "'hnsw'")],
    )
    .await;
    scene.start_daemon().await;
    fill(&scene).await;
    let built = "SELECT count(*) FROM pg_index WHERE indrelid = 'docs_chunks'::regclass AND indisvalid AND NOT indisunique";
    scene.wait_for(built, "1").await;
    scene.sql("ANALYZE docs; ANALYZE docs_chunks").await;
    let rows = scene
        .client
        .query(
            "EXPLAIN SELECT id, title, chunk FROM docs_chunks_documents \
             ORDER BY embedding <=> array_fill(0.01::real, '{384}')::vector(384) LIMIT 5",
            &[],
        )
        .await
        .expect("a plan");
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(
        plan.contains("docs_chunks_embedding_cosine_lantern_idx"),
        "{plan}"
    );
    assert!(
        !plan.contains("Sort") && !plan.contains("Function Scan"),
        "{plan}"
    );
}

#[tokio::test]
async fn row_level_security_of_the_texts_applies_to_who_reads_the_view() {
    let scene = chunk_scene(&format!(
        "{DOCS}; ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON docs USING (title = current_user)"
    ))
    .await;
    let mut scene = scene;
    let reader = format!("rls_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {reader}; GRANT SELECT ON docs TO {reader}; \
             INSERT INTO docs VALUES (1, '{reader}', 'mine'), (2, 'other', 'not mine')"
        ))
        .await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.spawn_daemon();
    scene
        .daemon()
        .wait_for_line("row level security of", TIMEOUT)
        .await;
    scene.wait_for_backfill().await;
    fill(&scene).await;
    // Its rows are for the owner to grant.
    let may = format!("SELECT has_table_privilege('{reader}', 'docs_chunks', 'SELECT')");
    assert_eq!(scene.value(&may).await, "false");
    scene
        .sql(&format!(
            "GRANT SELECT ON docs_chunks, docs_chunks_documents TO {reader}"
        ))
        .await;
    let session = scene.session(&format!("SET ROLE {reader}")).await;
    let seen: String = testkit::client::value(
        &session,
        "SELECT string_agg(DISTINCT body, ' ') FROM docs_chunks_documents",
    )
    .await;
    assert_eq!(seen, "mine");
    execute(
        &scene.client,
        &format!("DROP OWNED BY {reader}; DROP ROLE {reader}"),
    )
    .await;
}

#[tokio::test]
async fn a_relation_of_the_views_name_is_left_alone() {
    let mut scene = chunk_scene(&format!(
        "{DOCS}; CREATE TABLE docs_chunks_documents (mine int)"
    ))
    .await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    assert_eq!(scene.value(COLUMNS).await, "mine");
    let log = scene.daemon().log();
    assert!(
        log.contains("something else of this name is there"),
        "{log}"
    );
}
