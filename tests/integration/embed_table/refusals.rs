//! What cannot be embedded, with what to do.

use super::{NOTES, embed, embed_as, scene_with};

/// Asserts that the command on `notes` fails with a text that has these parts.
async fn refused(tables: &str, more: &[&str], parts: &[&str]) {
    let scene = scene_with(tables).await;
    let ran = embed(&scene, more).await;
    assert_eq!(ran.status, Some(1), "{tables} {more:?}: {}", ran.all());
    let printed = ran.failed();
    for part in parts {
        assert!(
            printed.contains(part),
            "{tables} {more:?}: {part}: {printed}"
        );
    }
    assert!(!printed.contains("jobs table"), "{printed}");
    assert!(!printed.contains("init_failed_at"), "{printed}");
}

#[tokio::test]
async fn what_is_no_table_is_refused_with_a_remedy() {
    for (tables, part) in [
        (
            "CREATE VIEW notes AS SELECT 1 AS id, 'x' AS body",
            "is a view; only tables can be embedded: name the table below it",
        ),
        (
            "CREATE MATERIALIZED VIEW notes AS SELECT 1 AS id, 'x' AS body",
            "is a materialized view; ",
        ),
        (
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; \
             CREATE FOREIGN TABLE notes (id int, body text) SERVER s",
            "is a foreign table; ",
        ),
        ("CREATE SEQUENCE notes", "is not a table; "),
        (
            "CREATE TABLE note (id int PRIMARY KEY, body text)",
            "correct --schema and --table (names are case-sensitive there); did you mean \"public\".\"note\"?",
        ),
    ] {
        refused(tables, &[], &[part]).await;
    }
}

#[tokio::test]
async fn a_table_without_a_key_is_refused_with_a_statement_that_gives_it_one() {
    let scene = scene_with("CREATE TABLE notes (number int UNIQUE, body text)").await;
    let printed = embed(&scene, &[]).await.failed();
    let needed = "it needs a primary key, or a unique index of columns that are NOT NULL; run: ";
    let (_, statement) = printed
        .split_once(needed)
        .unwrap_or_else(|| panic!("{printed}"));
    scene.sql(statement).await;
    embed(&scene, &[]).await.succeeded();
}

#[tokio::test]
async fn columns_that_do_not_fit_are_refused() {
    let with = |column: &str| format!("{NOTES}; ALTER TABLE notes ADD COLUMN {column}");
    refused(
        NOTES,
        &["--src-column", "bodi"],
        &[
            "has no column \"bodi\" (--src-column)",
            "did you mean \"body\"?",
        ],
    )
    .await;
    refused(
        NOTES,
        &["--dst-column", "body"],
        &["--src-column and --dst-column are both \"body\""],
    )
    .await;
    refused(
        NOTES,
        &["--dst-column", "views"],
        &["(--dst-column) has the type integer"],
    )
    .await;
    refused(
        NOTES,
        &["--fingerprint-column", "views"],
        &["(--fingerprint-column) must be an ordinary column of the type uuid"],
    )
    .await;
    if !scene_with(NOTES).await.database.skips_vector() {
        let parts = ["holds vectors of 3 dimensions", "ALTER TABLE"];
        refused(&with("embedding vector(3)"), &[], &parts).await;
    }
    refused(
        &with("embedding real[] GENERATED ALWAYS AS ('{1}') STORED"),
        &[],
        &["(--dst-column) is a generated column"],
    )
    .await;
    refused(NOTES, &["--pk", "body"], &["--pk is 'body', but the key of \"public\".\"notes\" is (id); correct --pk or leave it out"]).await;
    refused(
        NOTES,
        &["--column-type", "blob"],
        &["--column-type \"blob\" is not known; use vector"],
    )
    .await;
    refused(
        NOTES,
        &["--runtime", "gpu"],
        &["--runtime \"gpu\" is not known"],
    )
    .await;
    refused(
        NOTES,
        &["--runtime-params", "{\"poling\": 1}"],
        &["--runtime-params: "],
    )
    .await;
    refused(NOTES, &["--model", "no/such-model"], &["no/such-model"]).await;
}

#[tokio::test]
async fn a_condition_must_be_one() {
    for (condition, part) in [
        (
            "readers > 1",
            "--where failed: column \"readers\" does not exist",
        ),
        ("body", "argument of WHERE must be type boolean"),
        ("true) OR (false", "syntax error"),
        ("true ORDER BY id", "syntax error"),
        ("true; DROP TABLE notes", "cannot insert multiple commands"),
    ] {
        refused(NOTES, &["--where", condition], &["--where", part]).await;
    }
    let rows = format!("{NOTES}; INSERT INTO notes VALUES (1, 'caves')");
    refused(
        &rows,
        &["--where", "1 / views > 0"],
        &["division by zero", "1 / views > 0", "correct it"],
    )
    .await;
}

#[tokio::test]
async fn rows_that_a_policy_may_hide_are_not_passed_over() {
    let scene = scene_with(NOTES).await;
    let role = format!("{}_reader", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'x'; ALTER TABLE notes ENABLE ROW LEVEL SECURITY; \
             ALTER TABLE notes ADD COLUMN embedding real[]; GRANT SELECT, UPDATE ON notes TO {role}"
        ))
        .await;
    let uri = super::rights::uri_of(&scene, &role);
    let place = [
        "--table",
        "notes",
        "--src-column",
        "body",
        "--dst-column",
        "embedding",
    ];
    let printed = embed_as(&uri, &place).await.failed();
    assert!(printed.contains("ALTER ROLE"), "{printed}");
    assert!(printed.contains("BYPASSRLS"), "{printed}");
}
