//! Which index a search uses, and by which distance.

use testkit::scene::NOTES;
use testkit::{Scene, TestDatabase, server};

use crate::search::{found, ids, reason, search, searchable_notes};
use crate::support::{program, scene_with};

#[tokio::test]
async fn the_distance_is_that_of_the_index() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    let exact = found(&scene, &["--limit", "2"]).await;
    for (class, distance, figure) in [
        ("vector_cosine_ops", "cosine", None),
        ("vector_ip_ops", "inner_product", Some("inner_product")),
        ("vector_l2_ops", "l2", Some("l2_distance")),
        ("vector_l1_ops", "l1", Some("l1_distance")),
    ] {
        scene
            .sql(&format!(
                "DROP INDEX IF EXISTS nearest; CREATE INDEX nearest ON notes USING hnsw (embedding {class})"
            ))
            .await;
        let explained = found(&scene, &["--limit", "2", "--explain"]).await;
        assert_eq!(explained["distance"], distance, "{explained}");
        assert_eq!(explained["indexes"][0], "\"nearest\"", "{explained}");
        let rows = found(&scene, &["--limit", "2"]).await;
        assert_eq!(rows[0]["id"], exact[0]["id"], "{class}: {rows}");
        // The similarity means the same whatever the order is by.
        assert_eq!(rows[0]["similarity"], exact[0]["similarity"], "{class}");
        let similarity = rows[0]["similarity"].as_f64().expect("a number");
        let Some(figure) = figure else { continue };
        let figure = rows[0][figure].as_f64().expect("the figure of the order");
        match distance {
            "inner_product" => assert!((figure - similarity).abs() < 1e-3, "{rows}"),
            "l2" => assert!(
                (figure.powi(2) - (2.0 - 2.0 * similarity)).abs() < 1e-3,
                "{rows}"
            ),
            _ => assert!(figure > 1.0, "{rows}"),
        }
    }
}

#[tokio::test]
async fn of_several_indexes_the_one_for_the_cosine_is_used_and_unfit_ones_are_not() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    // The name and the predicate would let the first ones be found before.
    scene
        .sql(
            "CREATE INDEX a ON notes USING hnsw (embedding vector_l2_ops); \
             CREATE INDEX b ON notes USING hnsw (embedding vector_cosine_ops) WHERE views > 3; \
             CREATE INDEX c ON notes USING hnsw ((subvector(embedding, 1, 8)::vector(8)) vector_cosine_ops)",
        )
        .await;
    let limited = ["--limit", "2"];
    assert!(reason(&scene, &limited).await.starts_with("\"a\" (hnsw)"));
    scene
        .sql("CREATE INDEX d ON notes USING hnsw (embedding vector_cosine_ops)")
        .await;
    assert!(reason(&scene, &limited).await.starts_with("\"d\" (hnsw)"));
    // A build that was interrupted leaves an index like this.
    scene
        .sql(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'd'::regclass; DROP INDEX a",
        )
        .await;
    let said = reason(&scene, &limited).await;
    assert!(
        said.starts_with("none: ") && said.contains("\"public\".\"d\" is invalid"),
        "{said}"
    );
    assert_eq!(ids(&scene, &limited).await.len(), 2);
}

#[tokio::test]
async fn an_index_over_a_cast_is_used_and_odd_names_are_quoted() {
    let scene = scene_with(
        "CREATE SCHEMA \"My ext\"; ALTER EXTENSION vector SET SCHEMA \"My ext\"; \
         CREATE TABLE \"Odd \"\" t\" (\"the id\" int PRIMARY KEY, similarity text, \"Em b\" \"My ext\".vector(384)); \
         INSERT INTO \"Odd \"\" t\" SELECT row_number() OVER (), body, vector FROM truth; \
         CREATE INDEX \"odd \"\" index\" ON \"Odd \"\" t\" USING hnsw ((\"Em b\"::\"My ext\".halfvec(384)) \
           \"My ext\".halfvec_cosine_ops)",
    );
    let probe = TestDatabase::with_vector(server::shared()).await;
    if probe.skips_vector() {
        return;
    }
    let scene = scene.await;
    let job = testkit::jobs::Job::on(&scene.database, "Odd \" t", "similarity", "Em b");
    testkit::jobs::insert_job(&scene.client, job).await;
    scene.set_default("enable_seqscan", "off").await;
    let said = reason(&scene, &["--limit", "1"]).await;
    assert_eq!(said, "\"odd \"\" index\" (hnsw)");
    let rows = found(
        &scene,
        &["--limit", "1", "--where", "\"Odd \"\" t\".\"the id\" > 0"],
    )
    .await;
    assert!(rows[0]["similarity"].is_number(), "{rows}");
    assert!(rows[0]["Odd \" t.similarity"].is_string(), "{rows}");
}

#[tokio::test]
async fn enough_rows_come_although_few_fulfill_the_condition() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    // Ten of a thousand: an index that looks at 40 of them finds hardly one.
    scene
        .sql(
            "SELECT setseed(0.5); INSERT INTO notes (id, body, embedding) \
             SELECT 100 + i, 'noise', (SELECT array_agg(random() - 0.5) FROM generate_series(1, 384) WHERE i > 0)::vector \
             FROM generate_series(1, 1000) i; \
             CREATE INDEX nearest ON notes USING hnsw (embedding vector_cosine_ops)",
        )
        .await;
    let few = ["--where", "id > 100 AND id % 100 = 7", "--limit", "8"];
    let said = reason(&scene, &few).await;
    assert!(said.starts_with("\"nearest\""), "{said}");
    assert_eq!(ids(&scene, &few).await.len(), 8);
    // More than there are: the index gives what it can, and comparing every vector gives the rest.
    let all = ["--where", "id > 100 AND id % 100 = 7", "--limit", "50"];
    assert_eq!(ids(&scene, &all).await.len(), 10);
    let said = reason(&scene, &all).await;
    assert!(said.contains("gave only"), "{said}");
    // More rows than the 40 that an index looks at by default.
    let many = ["--limit", "100"];
    assert!(reason(&scene, &many).await.starts_with("\"nearest\""));
    assert_eq!(ids(&scene, &many).await.len(), 100);
}

#[tokio::test]
async fn the_plan_is_printed_with_short_vectors() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    let (status, printed, said) = search(&scene, &["--explain"]).await;
    assert_eq!(status, Some(0), "{said}");
    let mut lines = printed.lines();
    assert_eq!(lines.next(), Some("distance: cosine (<=>)"), "{printed}");
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("index: none: every vector was compared"))
    );
    assert!(
        printed.contains(",…]'") && printed.contains("actual"),
        "{printed}"
    );
    assert!(printed.lines().all(|line| line.len() < 300), "{printed}");
}

#[tokio::test]
async fn arrays_are_searched_without_pgvector_and_with_a_condition() {
    let Some(server) = server::debian() else {
        return;
    };
    let database = TestDatabase::create(server).await;
    let mut scene = Scene::without_vectors(program(), database).await;
    scene.sql(&NOTES.replace("vector(384)", "real[]")).await;
    scene.job("notes", "body").await;
    scene.write(&testkit::scene::VOCABULARY[..]).await;
    scene.start_daemon().await;
    let all = ids(&scene, &[]).await;
    assert_eq!(all.len(), 5);
    let nearest = format!("id <> {} -- not the best", all[0]);
    let others = ids(&scene, &["--where", &nearest]).await;
    assert_eq!(others[..4], all[1..5]);
    let said = reason(&scene, &[]).await;
    assert!(said.contains("no index for a distance"), "{said}");
}
