//! What is shown of a job with a chunk table: documents, and how many passages they have.

use serde_json::Value;
use testkit::Scene;
use testkit::paths;
use testkit::wait::{TIMEOUT, wait_until};

use super::documents::text;
use super::scene::{DOCS, chunk_job, chunk_scene};
use crate::http::daemon::address_of;
use crate::http::metrics::parse;
use crate::http::requests::get;
use crate::support::{check, program, text as point};

/// A scene whose jobs table has the column for what the daemon records, and the views of `sql/monitoring.sql`.
async fn recording(tables: &str) -> Scene {
    let scene = chunk_scene(tables).await;
    scene
        .sql("ALTER TABLE jobs ADD stats jsonb, ADD last_error text, ADD waits_for text")
        .await;
    // Adds the failures table.
    scene.database.psql(&paths::read("sql/jobs.sql")).await;
    scene
        .database
        .psql(&paths::read("sql/monitoring.sql"))
        .await;
    scene
}

async fn printed(scene: &Scene, command: &[&str]) -> String {
    let uri = scene.database.uri();
    let output = program().run(&[command, &["--uri", &uri]].concat()).await;
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8(printed).expect("text")
}

/// The only job, as `status --json` shows it.
async fn shown(scene: &Scene, more: &[&str]) -> Value {
    let printed = printed(scene, &[&["status", "--json"], more].concat()).await;
    let found: Value = serde_json::from_str(&printed).expect(&printed);
    found["jobs"][0].clone()
}

#[tokio::test]
async fn documents_and_passages_are_the_same_figures_everywhere() {
    let mut scene = recording(DOCS).await;
    let params = r#"'{"chunk_tokens": 40}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", params)]).await;
    for (id, seed) in [(1, 1), (2, 2), (3, 3)] {
        scene.put_into("docs", id, &text(seed, 4, "end")).await;
    }
    scene.sql("INSERT INTO docs VALUES (4, 'empty', '')").await;
    scene.spawn_daemon_with(&["--listen", "127.0.0.1:0"]);
    scene.wait_for_backfill().await;
    let passages = scene.value("SELECT count(*) FROM docs_chunks").await;
    let all: f64 = passages.parse().expect("a number");
    assert!(all > 6.0, "{passages}");

    let job = shown(&scene, &[]).await;
    assert_eq!(job["chunk_table"], "docs_chunks");
    assert_eq!(job["coverage"]["rows_with_text"], 3);
    assert_eq!(job["coverage"]["rows_with_vector"], 3);
    assert_eq!(job["coverage"]["passages"], all);
    assert_eq!(job["coverage"]["is_exact"], true);
    scene
        .wait_for(
            "SELECT passages_written || ' ' || rows_written || ' ' || destination || ' ' || chunk_table FROM jobs_status",
            &format!("{passages} 3 embedding docs_chunks"),
        )
        .await;
    let details = printed(&scene, &["status", "1"]).await;
    for part in [
        "docs_chunks.embedding".to_owned(),
        format!("100%: 3 of 3 documents with a text, in {passages} passages"),
        format!("3 documents written with {passages} passages"),
    ] {
        assert!(details.contains(&part), "{part} in {details}");
    }
    let list = printed(&scene, &["jobs", "list"]).await;
    assert!(
        list.contains("public.docs.body -> docs_chunks.embedding"),
        "{list}"
    );
    let address = address_of(scene.daemon()).await;
    let metric = |name: &str| format!("{name}{{job_id=\"1\",table=\"public.docs\"}}");
    wait_until("the metrics show it", TIMEOUT, async || {
        let answer = get(address, "/metrics", &[]).body;
        let samples = parse(&answer);
        let is = |name: &str, value: f64| samples.get(&metric(name)) == Some(&value);
        let all = is("lantern_job_passages_written_total", all)
            && is("lantern_job_rows_written_total", 3.0);
        if all { Ok(()) } else { Err(answer) }
    })
    .await;
    let page: Value = serde_json::from_str(&get(address, "/api/status", &[]).body).expect("JSON");
    assert_eq!(page["jobs"][0]["chunk_table"], "docs_chunks");

    // The daemon asks at its start, and each minute.
    scene.stop_daemon().await;
    scene.spawn_daemon_with(&["--listen", "127.0.0.1:0"]);
    let recorded =
        "SELECT rows_with_text || ' ' || rows_with_vector || ' ' || passages FROM jobs_status";
    scene.wait_for(recorded, &format!("3 3 {passages}")).await;
    let address = address_of(scene.daemon()).await;
    let gauges = [
        ("lantern_job_rows_with_text", 3.0),
        ("lantern_job_rows_with_vector", 3.0),
        ("lantern_job_passages", all),
    ];
    wait_until("the metrics show it", TIMEOUT, async || {
        let answer = get(address, "/metrics", &[]).body;
        let samples = parse(&answer);
        match gauges
            .iter()
            .all(|(name, value)| samples.get(&metric(name)) == Some(value))
        {
            true => Ok(()),
            false => Err(answer),
        }
    })
    .await;

    scene.sql("DELETE FROM docs_chunks WHERE id = 1").await;
    let job = shown(&scene, &[]).await;
    assert_eq!(job["coverage"]["rows_with_vector"], 2);
    let table = printed(&scene, &["status"]).await;
    assert!(table.contains("66.6%"), "{table}");
}

/// A table that a job could have made, without a daemon.
const MANY: &str = "CREATE TABLE docs (id int PRIMARY KEY, title text, body text) WITH (autovacuum_enabled = off); \
    CREATE TABLE docs_chunks (id int, chunk_seq int, chunk_start int, chunk_end int, chunk text, embedding vector(384), \
      chunk_fingerprint uuid, document_fingerprint uuid, PRIMARY KEY (id, chunk_seq)) WITH (autovacuum_enabled = off); \
    INSERT INTO docs SELECT i, NULL, CASE WHEN i % 4 > 0 THEN 'text ' || i END FROM generate_series(1, 40000) i; \
    INSERT INTO docs_chunks (id, chunk_seq, chunk, document_fingerprint) \
      SELECT i, n, repeat('w ' || i, 60), CASE n WHEN 0 THEN gen_random_uuid() END \
      FROM generate_series(1, 40000) i, generate_series(0, 1) n WHERE i % 4 = 1";

#[tokio::test]
async fn of_many_documents_some_are_looked_at() {
    let scene = recording(MANY).await;
    chunk_job(&scene, "docs_chunks", &[]).await;
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().expect("a number");
        (value / expected - 1.0).abs() < 0.2
    };
    let estimated = |job: &Value| {
        let known = &job["coverage"];
        known["is_exact"] == false
            && near(&known["rows_with_text"], 30_000.0)
            && near(&known["rows_with_vector"], 10_000.0)
            && near(&known["passages"], 20_000.0)
    };
    // Without statistics, and with them.
    let job = shown(&scene, &[]).await;
    assert!(estimated(&job), "{job}");
    scene.sql("ANALYZE docs; ANALYZE docs_chunks").await;
    let job = shown(&scene, &[]).await;
    assert!(estimated(&job), "{job}");
    let exact = shown(&scene, &["--exact"]).await;
    assert_eq!(exact["coverage"]["rows_with_text"], 30_000);
    assert_eq!(exact["coverage"]["rows_with_vector"], 10_000);
    assert_eq!(exact["coverage"]["passages"], 20_000);
    assert_eq!(exact["coverage"]["is_exact"], true);
}

#[tokio::test]
async fn check_advises_on_the_index_and_the_vacuum_of_the_passages() {
    let scene = recording(MANY).await;
    let job = chunk_job(&scene, "docs_chunks", &[]).await.to_string();
    // As if it had so many.
    scene
        .sql(
            "ALTER TABLE docs_chunks RESET (autovacuum_enabled); ANALYZE docs; ANALYZE docs_chunks; \
             UPDATE pg_class SET reltuples = 6000000 WHERE oid = 'docs_chunks'::regclass",
        )
        .await;
    let uri = scene.database.uri();
    let arguments = ["--uri", &uri, "--job", &job];
    let found = check(&arguments).await;
    let (vacuum, index) = (point(&found, "autovacuum"), point(&found, "index"));
    assert!(
        vacuum.contains("replaced passages")
            && vacuum.contains("ALTER TABLE \"public\".\"docs_chunks\""),
        "{found:#}"
    );
    // There is no index for arrays, so nothing is advised.
    if !scene.database.skips_vector() {
        assert!(index.contains("create_index"), "{found:#}");
        scene
            .sql("CREATE INDEX ON docs_chunks USING hnsw (embedding vector_cosine_ops)")
            .await;
    }
    scene
        .sql("ALTER TABLE docs_chunks SET (autovacuum_enabled = off)")
        .await;
    let found = check(&arguments).await;
    assert!(point(&found, "autovacuum").starts_with("off"), "{found:#}");
    assert_eq!(point(&found, "index"), "", "{found:#}");
}
