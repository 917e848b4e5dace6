//! What knows the column by its number would keep the old vectors: it is found, and the swap waits.

use testkit::tiny_model::TinyModel;

use super::{Change, VECTOR_COLUMNS, notes};
use crate::support::{check, text};

/// What depends on the column, how the server calls it, and how it goes.
const DEPENDENTS: [(&str, &str, &str); 9] = [
    (
        "CREATE VIEW v AS SELECT embedding FROM notes",
        "view public.v",
        "DROP VIEW v",
    ),
    (
        "CREATE MATERIALIZED VIEW m AS SELECT embedding FROM notes",
        "materialized view public.m",
        "DROP MATERIALIZED VIEW m",
    ),
    (
        "CREATE RULE r AS ON DELETE TO notes WHERE OLD.embedding IS NULL DO NOTHING",
        "rule r on table public.notes",
        "DROP RULE r ON notes",
    ),
    (
        "CREATE POLICY p ON notes USING (embedding IS NOT NULL)",
        "policy p on table public.notes",
        "DROP POLICY p ON notes",
    ),
    (
        "ALTER TABLE notes ADD has bool GENERATED ALWAYS AS (embedding IS NOT NULL) STORED",
        "column has of table public.notes",
        "ALTER TABLE notes DROP has",
    ),
    (
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(embedding) FROM notes; END",
        "function public.f()",
        "DROP FUNCTION f()",
    ),
    (
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TRIGGER t AFTER UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION t()",
        "trigger t on table public.notes",
        "DROP TRIGGER t ON notes",
    ),
    (
        "ALTER TABLE notes ADD CONSTRAINT c CHECK (embedding IS NULL OR id > 0)",
        "constraint c on table public.notes",
        "ALTER TABLE notes DROP CONSTRAINT c",
    ),
    (
        "CREATE PUBLICATION theirs FOR TABLE notes (id, embedding)",
        "publication of table public.notes in publication theirs",
        "DROP PUBLICATION theirs",
    ),
];

#[tokio::test]
async fn each_object_that_would_keep_the_old_vectors_is_named_and_holds_the_swap_up() {
    let mut change = Change::new(&notes(5), &[]).await;
    change.scene.start_daemon().await;
    change.wait_for_vectors("embedding", TinyModel::One).await;
    // Neither an index nor a function whose body is text does harm.
    change
        .scene
        .sql(
            "CREATE INDEX theirs ON notes (id) WHERE embedding IS NOT NULL;
             CREATE FUNCTION g() RETURNS bigint LANGUAGE sql AS 'SELECT count(embedding) FROM notes'",
        )
        .await;
    let has_lists = change
        .scene
        .value("SELECT current_setting('server_version_num')::int >= 150000")
        .await;
    let there: Vec<_> = DEPENDENTS
        .iter()
        .filter(|(create, ..)| has_lists == "true" || !create.contains("PUBLICATION"))
        .collect();
    for (create, ..) in &there {
        change.scene.sql(create).await;
    }
    let output = change
        .command(&["--job", "1", "--to", "chaos/two", "--no-wait"])
        .await;
    let (_, warned) = super::texts(&output);
    assert!(
        warned.contains("warning: before the new job can take over: what depends"),
        "{warned}"
    );
    change
        .wait_for_vectors("embedding_job_2", TinyModel::Two)
        .await;
    let uri = change.scene.database.uri();
    for (_, name, drop) in &there {
        let checked = check(&["--uri", &uri, "--job", "2"]).await;
        let said = text(&checked, "replaces");
        assert!(
            said.contains("would keep it, and so the old vectors"),
            "{said}"
        );
        let is_named = said.contains(name) || said.contains("…");
        assert!(is_named, "{name} is not in: {said}");
        change.scene.sql(drop).await;
    }
    change.wait_for_swap(2).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    assert_eq!(
        change.scene.value(VECTOR_COLUMNS).await,
        "embedding embedding_before_job_2"
    );
}

#[tokio::test]
async fn the_last_object_is_named_in_the_row_of_the_job() {
    let mut change = Change::new(&notes(5), &[]).await;
    change.scene.start_daemon().await;
    for (create, name, drop) in DEPENDENTS.iter().take(8) {
        change.scene.sql(create).await;
        let id = change.replace(&[]).await;
        let said = format!(
            "SELECT waits_for LIKE '%: {name}; drop it, and create it again%' FROM jobs WHERE id = {id}"
        );
        change.scene.wait_for(&said, "true").await;
        // Given up before the last obstacle goes: the columns are not exchanged any more.
        let cancel = format!("UPDATE jobs SET canceled_at = true WHERE id = {id}; {drop}");
        change.scene.sql(&cancel).await;
        change.scene.wait_for(VECTOR_COLUMNS, "embedding").await;
    }
}
