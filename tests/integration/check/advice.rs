//! What a person should know, though it keeps no job from starting.

use testkit::Scene;
use testkit::scene::NOTES;

use crate::support::{check, scene_with, text, texts};

async fn checked(scene: &Scene, arguments: &[&str]) -> serde_json::Value {
    let uri = scene.database.uri();
    let subject = [
        "--uri",
        &uri,
        "--db-connection",
        &uri,
        "--table",
        "notes",
        "--column",
        "body",
    ];
    let found = check(&[&subject[..], arguments].concat()).await;
    assert_eq!(found["would_start"], true, "{found:#}");
    found
}

#[tokio::test]
async fn triggers_children_and_storage_are_mentioned_by_name() {
    let scene = scene_with(NOTES).await;
    scene
        .sql(
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
             CREATE TRIGGER \"the first\" BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch(); \
             CREATE TRIGGER of_body AFTER UPDATE OF body ON notes FOR EACH ROW EXECUTE FUNCTION touch(); \
             CREATE TRIGGER on_insert BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION touch(); \
             CREATE TRIGGER off BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch(); \
             ALTER TABLE notes DISABLE TRIGGER off; ALTER TABLE notes SET (autovacuum_enabled = false); \
             CREATE TABLE kept (PRIMARY KEY (id)) INHERITS (notes); \
             INSERT INTO notes (id, body) SELECT n, 'text ' || n FROM generate_series(1, 20000) n; \
             INSERT INTO notes (id) SELECT -n FROM generate_series(1, 20000) n; ANALYZE notes",
        )
        .await;
    let found = checked(&scene, &["--dst-column", "embedding"]).await;
    let triggers = text(&found, "triggers");
    assert!(
        triggers.contains("\"the first\"") && triggers.contains("skip_triggers"),
        "{triggers}"
    );
    for other in ["of_body", "on_insert", "off"] {
        assert!(!triggers.contains(other), "{triggers}");
    }
    assert!(text(&found, "children").contains("kept"), "{found:#}");
    assert!(text(&found, "autovacuum").starts_with("off"), "{found:#}");
    assert!(
        text(&found, "fillfactor").contains("SET (fillfactor = 85);"),
        "{found:#}"
    );
    assert!(
        text(&found, "fingerprint").contains("fingerprint_column"),
        "{found:#}"
    );
    let rows = text(&found, "rows");
    assert!(
        rows.starts_with("about 20000 to embed, of about 40000"),
        "{rows}"
    );

    let skipping = checked(&scene, &["--dst-column", "embedding", "--skip-triggers"]).await;
    assert!(text(&skipping, "triggers").contains("none"), "{skipping:#}");
}

/// Measured: users keep a quarter of their transactions beside 50 slots.
#[tokio::test]
async fn from_five_slots_on_one_for_all_is_advised() {
    let scene = scene_with(NOTES).await;
    let create = |number: i32| {
        format!(
            "SELECT pg_create_logical_replication_slot('lantern_0000000a_{number}_00000001', 'pgoutput')"
        )
    };
    for number in 1..4 {
        scene.sql(&create(number)).await;
    }
    let advises = |found: &serde_json::Value| {
        texts(found, "advice")
            .iter()
            .any(|text| text.contains("--slots database"))
    };
    assert!(!advises(&checked(&scene, &[]).await));
    scene.sql(&create(4)).await;
    assert!(advises(&checked(&scene, &[]).await));
    assert!(!advises(&checked(&scene, &["--slots", "database"]).await));
}

#[tokio::test]
async fn an_open_transaction_that_delays_the_slot_is_named() {
    let scene = scene_with(NOTES).await;
    let session = scene
        .session("BEGIN; INSERT INTO notes (id) VALUES (1)")
        .await;
    // Those of a moment are not worth a word.
    let aged = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL \
                AND datname = current_database() AND clock_timestamp() - xact_start > '3 s'";
    scene.wait_for(aged, "1").await;
    let found = checked(&scene, &["--dst-column", "embedding"]).await;
    let said = text(&found, "transactions");
    assert!(said.contains("idle in transaction"), "{said}");
    drop(session);
}

#[tokio::test]
async fn a_model_that_is_not_here_is_downloaded_or_refused_as_by_the_daemon() {
    let scene = scene_with(NOTES).await;
    let uri = scene.database.uri();
    let subject = |model| {
        [
            "--uri",
            &uri,
            "--db-connection",
            &uri,
            "--table",
            "notes",
            "--column",
            "body",
            "--model",
            model,
        ]
    };
    // Tests are offline.
    let found = check(&subject("BAAI/bge-small-en-v1.5")).await;
    let failed = texts(&found, "failed");
    assert!(
        failed.len() == 1 && failed[0].contains("is not on this machine"),
        "{failed:#?}"
    );

    let online = crate::support::program().with_env("LANTERN_OFFLINE", "0");
    for (model, said) in [
        (
            "BAAI/bge-small-en-v1.5",
            "the daemon downloads it when the job starts",
        ),
        (
            "BAAI/bge-smal-en-v1.5",
            "did you mean BAAI/bge-small-en-v1.5",
        ),
    ] {
        let output = online
            .run(&[&["check", "--json"], &subject(model)[..]].concat())
            .await;
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(text(&found, "model").contains(said), "{found:#}");
        assert_eq!(found["would_start"], true, "{found:#}");
    }
}
