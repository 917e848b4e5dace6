//! `search` for jobs with a `chunk_table`: the nearest passage of each document, with its neighbors.

use serde_json::Value;
use testkit::jobs::{Job, insert_job};
use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::{Scene, TestDatabase, server};

use crate::search::{found, ids, reason, search};
use crate::support::{program, scene_with};

const DOCS: &str =
    "CREATE TABLE docs (id int PRIMARY KEY, title text, chunk text DEFAULT 'own', body text)";
const OPTIONS: &str = "ALTER TABLE jobs ADD chunk_table text, ADD runtime_params jsonb, ADD backfill bool, \
                       ADD create_index text, ADD index_state text, ADD column_type text";
/// A sentence is a passage.
const SENTENCES: &str = "'{\"chunk_tokens\": 20, \"chunk_overlap\": 0}'";

/// A scene with the table of documents, and a job with these options besides the table for passages.
async fn scene_of(options: &[(&str, &str)]) -> Option<Scene> {
    let scene = scene_with(DOCS).await;
    if scene.database.skips_vector() {
        return None;
    }
    add_job(&scene, options).await;
    Some(scene)
}

async fn add_job(scene: &Scene, options: &[(&str, &str)]) {
    scene.sql(OPTIONS).await;
    let own = [
        ("chunk_table", "'docs_chunks'"),
        ("runtime_params", SENTENCES),
    ];
    let job = Job {
        options: &[&own, options].concat(),
        ..Job::on(&scene.database, "docs", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
}

/// The third document has the most passages about the moon, and the first one none.
async fn write_documents(scene: &Scene) {
    let moons: Vec<String> = (1..=30).map(|n| format!("{MOON} {n}.")).collect();
    let moons = moons.join("\n\n");
    let paragraphs = |texts: &[&str]| texts.join("\n\n");
    for (id, body) in [
        (1, paragraphs(&[CAVES, DESERT])),
        (2, paragraphs(&[CAVES, TIDES, DESERT])),
        (3, paragraphs(&[DESERT, &moons, TIDES])),
        (4, paragraphs(&[MOON, DESERT])),
        (5, String::new()),
    ] {
        let insert = "INSERT INTO docs (id, title, body) VALUES ($1, 'title ' || $1::int, $2)";
        scene.execute(insert, &[&id, &body]).await;
    }
}

/// A scene whose documents have their passages, and a daemon.
async fn documents(options: &[(&str, &str)]) -> Option<Scene> {
    let mut scene = scene_of(options).await?;
    write_documents(&scene).await;
    scene.start_daemon().await;
    Some(scene)
}

/// The nearest passage of each document as SQL finds it: its key and place, the nearest first.
async fn nearest(scene: &Scene) -> Vec<String> {
    let query = program().stdout_of(&["embed", "--query", "the moon"]).await;
    let nearest = format!(
        "SELECT string_agg(id || '/' || chunk_seq, ' ' ORDER BY distance) FROM ( \
           SELECT DISTINCT ON (id) id, chunk_seq, embedding <=> '{}' AS distance FROM docs_chunks \
           ORDER BY id, embedding <=> '{0}', chunk_seq) n",
        query.trim()
    );
    let nearest = scene.value(&nearest).await;
    nearest.split(' ').map(str::to_owned).collect()
}

/// The same as the command finds it.
fn places(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().expect("an array").iter();
    let place = |row: &Value| {
        format!(
            "{}/{}",
            row["id"].as_str().expect("an id"),
            row["chunk_seq"]
        )
    };
    rows.map(place).collect()
}

#[tokio::test]
async fn each_document_is_found_by_its_nearest_passage_with_the_neighbors() {
    let Some(scene) = documents(&[]).await else {
        return;
    };
    let rows = found(&scene, &["--columns", "title,chunk"]).await;
    assert_eq!(places(&rows), nearest(&scene).await, "{rows}");
    assert_eq!(places(&rows).len(), 4);
    let mut distance = 0.0;
    for row in rows.as_array().expect("an array") {
        let next = row["distance"].as_f64().expect("a distance");
        let similarity = row["similarity"].as_f64().expect("a similarity");
        assert!(
            next >= distance && (1.0 - next - similarity).abs() < 1e-6,
            "{rows}"
        );
        distance = next;
        // As SQL has them, and the text of the row has the passage where it says.
        let id = row["id"].as_str().expect("an id");
        assert_eq!(row["title"], format!("title {id}"));
        assert_eq!(row["docs.chunk"], "own");
        let seq = row["chunk_seq"].as_i64().expect("a place");
        let stored = |seq: i64| {
            format!(
                "SELECT (SELECT to_json(x) FROM (SELECT chunk_seq, chunk_start, chunk_end, chunk FROM docs_chunks \
                     WHERE id = {id} AND chunk_seq = {seq}) x)"
            )
        };
        for (member, seq) in [("before", seq - 1), ("after", seq + 1)] {
            let stored = scene.value(&stored(seq)).await;
            let stored: Value = serde_json::from_str(&stored).unwrap_or_default();
            assert_eq!(row[member], stored, "{member} in {row}");
        }
        let own: Value = serde_json::from_str(&scene.value(&stored(seq)).await).expect("JSON");
        for member in ["chunk_seq", "chunk_start", "chunk_end", "chunk"] {
            assert_eq!(row[member], own[member], "{row}");
        }
    }
    assert_eq!(ids(&scene, &["--limit", "1"]).await.len(), 1);
}

#[tokio::test]
async fn people_see_passages_with_what_is_around_them() {
    let Some(scene) = documents(&[]).await else {
        return;
    };
    let only = ["--where", "docs.id = 2", "--columns", "title"];
    let (status, printed, said) = search(&scene, &only).await;
    assert_eq!(status, Some(0), "{said}");
    let seq = places(&found(&scene, &only).await)[0].clone();
    let seq = seq.split_once('/').expect("a place").1.to_owned();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("similarity 0."), "{printed}");
    let place = format!(", id 2, title title 2, passage {seq} (characters ");
    assert!(lines[0].contains(&place), "{printed}");
    let texts: Vec<&str> = lines[1..]
        .iter()
        .map(|line| line.get(11..).unwrap_or(""))
        .collect();
    let all = [CAVES, TIDES, DESERT].join(" ");
    assert!(texts.iter().all(|text| all.contains(text)), "{printed}");
    assert!(
        lines.iter().any(|line| line.starts_with("  passage  ")),
        "{printed}"
    );
}

#[tokio::test]
async fn only_documents_that_are_up_to_date_are_found() {
    let Some(mut scene) = documents(&[("create_index", "'hnsw'")]).await else {
        return;
    };
    scene
        .wait_for(
            "SELECT COALESCE(index_state LIKE 'ready: %', false) FROM jobs",
            "true",
        )
        .await;
    scene.stop_daemon().await;
    scene.set_default("enable_seqscan", "off").await;
    scene.set_default("enable_sort", "off").await;
    let all = ids(&scene, &[]).await;
    assert_eq!(all.len(), 4);
    scene.sql("UPDATE docs SET title = 'other'; UPDATE docs SET body = body || '!' WHERE id = 3; DELETE FROM docs WHERE id = 4").await;
    // As the view, by the index and without it.
    let shown = "SELECT string_agg(DISTINCT id::text, ' ') FROM docs_chunks_documents";
    assert_eq!(scene.value(shown).await, "1 2");
    for limit in ["2", "9"] {
        assert_eq!(ids(&scene, &["--limit", limit]).await, ["2", "1"]);
    }
    assert!(
        reason(&scene, &["--limit", "2"])
            .await
            .starts_with("\"docs_chunks_embedding")
    );
    let said = reason(&scene, &["--limit", "9"]).await;
    assert!(said.ends_with("gave only 2 documents"), "{said}");
    // Nothing of it needs the view.
    scene
        .sql("DROP VIEW docs_chunks_documents; DROP FUNCTION docs_chunks_documents()")
        .await;
    assert_eq!(ids(&scene, &["--limit", "2"]).await, ["2", "1"]);
}

#[tokio::test]
async fn one_document_with_many_near_passages_does_not_hide_the_others() {
    let Some(scene) = documents(&[("create_index", "'hnsw'")]).await else {
        return;
    };
    scene
        .wait_for(
            "SELECT COALESCE(index_state LIKE 'ready: %', false) FROM jobs",
            "true",
        )
        .await;
    scene.set_default("enable_seqscan", "off").await;
    scene.set_default("enable_sort", "off").await;
    // The nearest passages, more than are taken from the index at first, are of two documents.
    let rows = found(&scene, &["--limit", "3"]).await;
    assert_eq!(places(&rows), nearest(&scene).await[..3]);
    let said = reason(&scene, &["--limit", "3"]).await;
    assert!(said.starts_with("\"docs_chunks_embedding"), "{said}");
    // The order is that of the index, whatever distance it has.
    scene
        .sql(
            "DROP INDEX docs_chunks_embedding_cosine_lantern_idx; \
             CREATE INDEX other ON docs_chunks USING hnsw ((embedding::halfvec(384)) halfvec_l2_ops)",
        )
        .await;
    let said = reason(&scene, &["--limit", "3"]).await;
    assert_eq!(said, "\"other\" (hnsw)");
    let by_l2 = found(&scene, &["--limit", "3"]).await;
    assert_eq!(places(&by_l2), places(&rows));
    let (_, printed, _) = search(&scene, &["--limit", "3"]).await;
    assert!(printed.contains(", l2_distance "), "{printed}");
}

#[tokio::test]
async fn a_condition_is_over_the_columns_of_the_row() {
    let Some(scene) = documents(&[]).await else {
        return;
    };
    // A table with a name that the statement could have for a part of itself.
    scene.sql("CREATE TABLE best AS SELECT 2 AS id").await;
    for (condition, expected) in [
        ("title = 'title 4'", &["4"][..]),
        ("id IN (SELECT id FROM best)", &["2"]),
        ("chunk = 'own' AND id < 2 -- all", &["1"]),
    ] {
        assert_eq!(ids(&scene, &["--where", condition]).await, expected);
    }
    let (status, _, said) = search(&scene, &["--where", "chunk_seq = 0"]).await;
    assert_eq!(status, Some(1));
    assert!(said.contains("it has id, title, chunk, body"), "{said}");
    let (status, printed, _) = search(&scene, &["--where", "id > 9"]).await;
    assert_eq!(status, Some(0));
    assert_eq!(
        printed,
        "no row of \"public\".\"docs\" for which the condition is true has passages of its present text in \
         \"public\".\"docs_chunks\"\n"
    );
}

#[tokio::test]
async fn what_is_not_there_yet_is_named() {
    let Some(mut scene) = scene_of(&[("backfill", "false")]).await else {
        return;
    };
    write_documents(&scene).await;
    let (status, _, said) = search(&scene, &[]).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("there is no table \"public\".\"docs_chunks\" (chunk_table) yet; the job creates it when it runs"),
        "{said}"
    );
    scene.start_daemon().await;
    let (status, printed, said) = search(&scene, &[]).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(
        printed.starts_with("no row of \"public\".\"docs\" has passages of its present text in \"public\".\"docs_chunks\" yet: run"),
        "{printed}"
    );
    assert_eq!(found(&scene, &[]).await, serde_json::json!([]));
}

#[tokio::test]
async fn both_tables_must_be_readable() {
    let Some(mut scene) = documents(&[]).await else {
        return;
    };
    scene.stop_daemon().await;
    let role = format!("searcher_of_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role}; GRANT SELECT (id, body) ON docs TO {role}"
        ))
        .await;
    let target = format!("{}?options=-c%20role%3D{role}", scene.database.uri());
    let (status, _, said) = search(&scene, &["--target", &target, "--columns", "title"]).await;
    let grants = format!(
        "run GRANT SELECT (\"title\") ON \"public\".\"docs\" TO \"{role}\"; \
         GRANT SELECT ON \"public\".\"docs_chunks\" TO \"{role}\";"
    );
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&grants), "{said}");
    scene.sql(grants.trim_start_matches("run ")).await;
    let (status, _, said) = search(&scene, &["--target", &target, "--columns", "title"]).await;
    assert_eq!(status, Some(0), "{said}");
    scene
        .sql("ALTER TABLE docs_chunks ENABLE ROW LEVEL SECURITY")
        .await;
    let (status, _, said) = search(&scene, &["--target", &target, "--columns", "title"]).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("row level security of \"public\".\"docs_chunks\""),
        "{said}"
    );
    scene
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn arrays_are_searched_without_pgvector() {
    let Some(server) = server::debian() else {
        return;
    };
    let database = TestDatabase::create(server).await;
    let mut scene = Scene::without_vectors(program(), database).await;
    scene.sql(DOCS).await;
    add_job(&scene, &[("column_type", "'real[]'")]).await;
    write_documents(&scene).await;
    scene.start_daemon().await;
    let rows = found(&scene, &[]).await;
    assert_eq!(places(&rows).len(), 4, "{rows}");
    let distances = rows.as_array().expect("an array").iter();
    let distances: Vec<f64> = distances
        .map(|row| row["distance"].as_f64().expect("a distance"))
        .collect();
    assert!(distances.is_sorted(), "{rows}");
    let mut others = ids(&scene, &["--where", "id <> 2"]).await;
    others.sort();
    assert_eq!(others, ["1", "3", "4"]);
    assert!(
        rows[0]["before"].is_object() || rows[0]["after"].is_object(),
        "{rows}"
    );
}
