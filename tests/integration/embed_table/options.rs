//! What the options change.

use testkit::StubEngine;
use testkit::scene::DESERT;
use testkit::stub_engine::Behavior;

use super::{Ran, embed, four_notes};
use crate::support::program;

const VECTORS: &str =
    "SELECT string_agg(id::text, ' ' ORDER BY id) FROM notes WHERE embedding IS NOT NULL";

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let scene = four_notes().await;
    let columns =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attnum > 0";
    let dry = [
        "--dry-run",
        "--where",
        "id > 1",
        "--fingerprint-column",
        "mark",
    ];
    let printed = embed(&scene, &dry).await.succeeded();
    for part in [
        "would create the column \"embedding\"",
        "would create the column \"mark\" pg_catalog.uuid",
        "would embed 3 of 3 rows",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(scene.value(columns).await, "3");

    embed(&scene, &["--where", "id > 1"]).await.succeeded();
    let printed = embed(&scene, &["--dry-run"]).await.succeeded();
    assert!(printed.contains("would embed 1 of 4 rows"), "{printed}");
    // A fingerprint column that is new tells nothing of the vectors that are there.
    let printed = embed(&scene, &["--dry-run", "--fingerprint-column", "mark"]).await;
    let printed = printed.succeeded();
    assert!(printed.contains("would embed 4 of 4 rows"), "{printed}");
}

#[tokio::test]
async fn a_condition_chooses_rows() {
    let scene = four_notes().await;
    let condition = "id % 2 = 0 -- the even ones";
    let printed = embed(&scene, &["--where", condition]).await.succeeded();
    assert!(printed.contains("2 rows done"), "{printed}");
    assert_eq!(scene.value(VECTORS).await, "2 4");
}

#[tokio::test]
async fn all_embeds_every_row() {
    let scene = four_notes().await;
    embed(&scene, &[]).await.succeeded();
    scene.put(1, DESERT).await;
    let printed = embed(&scene, &["--all"]).await.succeeded();
    assert!(printed.contains("4 rows done"), "{printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

#[tokio::test]
async fn triggers_fire_unless_they_are_skipped() {
    let scene = four_notes().await;
    scene
        .sql(
            "CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN NEW.views := NEW.views + 1; RETURN NEW; END'; \
             CREATE TRIGGER counted BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION count_it()",
        )
        .await;
    embed(&scene, &["--where", "id < 3", "--skip-triggers"])
        .await
        .succeeded();
    assert_eq!(scene.value("SELECT sum(views) FROM notes").await, "0");
    embed(&scene, &["--batch-size", "1"]).await.succeeded();
    assert_eq!(scene.value("SELECT sum(views) FROM notes").await, "2");
    let transactions = "SELECT count(DISTINCT xmin::text) FROM notes WHERE id > 2";
    assert_eq!(scene.value(transactions).await, "2");
}

#[tokio::test]
async fn an_index_is_built_behind_the_last_row() {
    let scene = four_notes().await;
    if scene.database.skips_vector() {
        return;
    }
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'notes' AND indexdef LIKE '%USING hnsw%'";
    for _ in 0..2 {
        let printed = embed(&scene, &["--create-index", "hnsw"]).await.succeeded();
        assert!(
            printed.contains("the index \"public\".\"notes_embedding"),
            "{printed}"
        );
        assert_eq!(scene.value(indexes).await, "1");
    }
    let printed = embed(&scene, &["--create-index", "ivfflat"]).await.failed();
    assert!(
        printed.contains("--create-index is \"ivfflat\"; only \"hnsw\" is known, and without it no index is created"),
        "{printed}"
    );
}

#[tokio::test]
async fn a_server_of_models_embeds_with_the_key_of_a_variable() {
    let scene = four_notes().await;
    let stub = StubEngine::start();
    stub.set(Behavior {
        key: Some("sk-harbor-1".into()),
        ..Behavior::default()
    });
    let params = format!(
        "{{\"base_url\": \"{}\", \"api_key_env\": \"HARBOR_KEY\"}}",
        stub.url()
    );
    let uri = scene.database.uri();
    let arguments = [
        "embed-table",
        "--uri",
        &uri,
        "--table",
        "notes",
        "--src-column",
        "body",
        "--column-type",
        "real[]",
        "--runtime",
        "openai",
        "--model",
        "stub",
        "--runtime-params",
        &params,
    ];
    let unset = Ran::new(program().run(&arguments).await).failed();
    assert!(
        unset.contains("HARBOR_KEY (api_key_env) is not set"),
        "{unset}"
    );
    let with_key = program().with_env("HARBOR_KEY", "sk-harbor-1");
    let ran = Ran::new(with_key.run(&arguments).await);
    let printed = ran.succeeded();
    assert!(printed.contains("4 rows done"), "{printed}");
    assert!(!printed.contains("sk-harbor"), "{printed}");
}
