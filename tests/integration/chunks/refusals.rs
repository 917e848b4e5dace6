//! A job with a `chunk_table` that cannot start says why, and its remedy makes it start. `check` says the same.

use testkit::Scene;
use testkit::jobs::wait_for_failure;

use super::scene::{DOCS, chunk_job, chunk_job_at, chunk_scene};
use crate::rights::{role, run_script};
use crate::support::{assert_check_says, check, texts};

/// The statement that a refusal tells to run.
pub fn remedy(reason: &str) -> &str {
    let (_, statement) = reason
        .rsplit_once("run: ")
        .or_else(|| {
            let (_, behind) = reason.rsplit_once("; run as ")?;
            behind.split_once(": ")
        })
        .unwrap_or_else(|| panic!("a remedy in: {reason}"));
    let end = statement
        .rfind(';')
        .unwrap_or_else(|| panic!("a statement in: {reason}"));
    &statement[..=end]
}

/// Whether `check` says that the job would start.
async fn would_start(scene: &Scene, job: i32) -> Result<(), String> {
    let (uri, job) = (scene.database.uri(), job.to_string());
    let checked = check(&["--uri", &uri, "--job", &job]).await;
    match checked["would_start"] == true {
        true => Ok(()),
        false => Err(format!("{:#?}", texts(&checked, "failed"))),
    }
}

/// The job fails with these words, and starts after its remedy.
async fn refused_until_mended(tables: &str, chunk_table: &str, said: &[&str]) {
    let mut scene = chunk_scene(DOCS).await;
    scene.sql(tables).await;
    let job = chunk_job(&scene, chunk_table, &[("backfill", "false")]).await;
    scene.spawn_daemon();
    let reason = wait_for_failure(&scene.client, job).await;
    for part in said {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_check_says(&scene.database.uri(), job, &reason, &[]).await;
    let kept = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(scene.value(kept).await, "0");
    scene.sql(remedy(&reason)).await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    scene.wait_for_backfill().await;
}

/// A table for passages of `docs`, with what is left out or otherwise.
fn passages(columns: &str, key: &str) -> String {
    let key = if key.is_empty() {
        String::new()
    } else {
        format!(", {key}")
    };
    format!(
        "CREATE TABLE docs_chunks ({columns}, embedding vector(384), chunk_fingerprint uuid, document_fingerprint uuid{key})"
    )
}

const PLACES: &str = "chunk_seq int, chunk_start int, chunk_end int, chunk text";
const KEY: &str = "PRIMARY KEY (id, chunk_seq)";

#[tokio::test]
async fn a_schema_that_is_missing_is_named_with_the_statement_that_creates_it() {
    let said = [
        "there is no schema \"search\"",
        "CREATE SCHEMA \"search\" AUTHORIZATION",
    ];
    refused_until_mended("", "search.docs_chunks", &said).await;
}

#[tokio::test]
async fn a_table_that_lacks_columns_or_has_others_is_named_with_what_differs() {
    let table = passages(
        "id int, chunk_seq int, chunk_start text, chunk_end int GENERATED ALWAYS AS (1) STORED",
        KEY,
    );
    let said = [
        "it lacks \"chunk\" text",
        "\"chunk_start\" is text and not integer",
        "\"chunk_end\" is a generated column",
    ];
    refused_until_mended(&table, "docs_chunks", &said).await;
}

#[tokio::test]
async fn a_key_of_another_type_is_refused() {
    let table = passages(&format!("id bigint, {PLACES}"), KEY);
    let said = ["\"id\" is bigint and not integer"];
    refused_until_mended(&table, "docs_chunks", &said).await;
}

#[tokio::test]
async fn a_table_without_a_key_of_passages_gets_one() {
    let table = passages(&format!("id int, {PLACES}"), "");
    let said = ["no unique index of \"id\", \"chunk_seq\""];
    refused_until_mended(&table, "docs_chunks", &said).await;
    let table = passages(
        &format!("id int, {PLACES}, uuid uuid PRIMARY KEY DEFAULT gen_random_uuid()"),
        "",
    );
    refused_until_mended(&table, "docs_chunks", &["CREATE UNIQUE INDEX ON"]).await;
}

#[tokio::test]
async fn a_column_that_demands_a_value_is_refused() {
    let table = passages(&format!("id int, {PLACES}, author text NOT NULL"), KEY);
    refused_until_mended(&table, "docs_chunks", &["the column \"author\" of"]).await;
}

#[tokio::test]
async fn vectors_of_other_dimensions_are_refused() {
    if chunk_scene(DOCS).await.database.skips_vector() {
        return;
    }
    let table = passages(&format!("id int, {PLACES}"), KEY).replace("(384)", "(3)");
    refused_until_mended(
        &table,
        "docs_chunks",
        &["\"docs_chunks\".\"embedding\" holds vectors of 3"],
    )
    .await;
}

#[tokio::test]
async fn an_unlogged_table_for_passages_is_refused() {
    let table = passages(&format!("id int, {PLACES}"), KEY).replace("CREATE", "CREATE UNLOGGED");
    refused_until_mended(&table, "docs_chunks", &["SET LOGGED;"]).await;
}

/// The job's own name has to be another one, so there is no statement.
#[tokio::test]
async fn a_relation_of_another_kind_is_never_written_to() {
    for (relation, said) in [
        (
            "CREATE VIEW docs_chunks AS SELECT 1 AS id",
            "is a view, and passages need",
        ),
        (
            "CREATE TABLE docs_chunks (id int, chunk_seq int) PARTITION BY LIST (id)",
            "is a partitioned table",
        ),
        (
            "CREATE TABLE docs_chunks (id int, name text)",
            "is a table of something else",
        ),
    ] {
        let mut scene = chunk_scene(DOCS).await;
        scene.sql(relation).await;
        let job = chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
        scene.spawn_daemon();
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(reason.contains(said), "{reason}");
        scene
            .sql(&format!(
                "UPDATE jobs SET chunk_table = 'others', init_failed_at = NULL WHERE id = {job}"
            ))
            .await;
        scene.wait_for_backfill().await;
    }
}

#[tokio::test]
async fn a_key_column_with_the_name_of_a_column_of_passages_is_refused() {
    let mut scene = chunk_scene("CREATE TABLE docs (chunk_seq int PRIMARY KEY, body text)").await;
    let job = chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.spawn_daemon();
    let reason = wait_for_failure(&scene.client, job).await;
    assert!(
        reason.contains("ALTER TABLE \"public\".\"docs\" RENAME COLUMN \"chunk_seq\" TO"),
        "{reason}"
    );
    scene
        .sql("ALTER TABLE docs RENAME chunk_seq TO id; UPDATE jobs SET init_failed_at = NULL")
        .await;
    scene.wait_for_backfill().await;
}

#[tokio::test]
async fn options_that_do_not_go_together_say_what_to_change() {
    let scene = chunk_scene(DOCS).await;
    let long_template = format!("'{{\"template\": \"{}{{chunk}}\"}}'", "word ".repeat(250));
    for (chunk_table, options, said, mend) in [
        (
            "docs",
            &[] as &[(&str, &str)],
            "passages need a table of their own",
            "chunk_table = 'docs_chunks'",
        ),
        (
            "a.b.c",
            &[],
            "write it as table or schema.table",
            "chunk_table = 'docs_chunks'",
        ),
        (
            "docs_chunks",
            &[("fingerprint_column", "'f'")],
            "set fingerprint_column to NULL",
            "fingerprint_column = NULL",
        ),
        (
            "docs_chunks",
            &[("replaces", "1")],
            "add a second job with another chunk_table",
            "replaces = NULL",
        ),
        (
            "docs_chunks",
            &[("runtime_params", "'{\"chunk_tokens\": 255}'")],
            "set chunk_tokens to 254",
            "runtime_params = '{\"chunk_tokens\": 254}'",
        ),
        (
            "docs_chunks",
            &[("runtime_params", "'{\"chunk_mode\": \"poetry\"}'")],
            "chunk_mode",
            "runtime_params = '{\"chunk_mode\": \"markdown\"}'",
        ),
        (
            "docs_chunks",
            &[("runtime_params", &long_template)],
            "shorten the template",
            "runtime_params = '{\"template\": \"word {chunk}\"}'",
        ),
        (
            "docs_chunks",
            &[("runtime_params", "'{\"chunk_token\": 40}'")],
            "did you mean chunk_tokens?",
            "runtime_params = '{\"chunk_tokens\": 40}'",
        ),
    ] {
        let job = chunk_job(&scene, chunk_table, options).await;
        let refused = would_start(&scene, job).await.unwrap_err();
        assert!(refused.contains(said), "{said}: {refused}");
        scene
            .sql(&format!("UPDATE jobs SET {mend} WHERE id = {job}"))
            .await;
        assert_eq!(would_start(&scene, job).await, Ok(()), "{mend}");
        scene
            .sql(&format!("DELETE FROM jobs WHERE id = {job}"))
            .await;
    }
}

/// Once a person has run the script that the refusal prints, nothing else is needed; and each right is named by itself.
#[tokio::test]
async fn a_role_that_owns_nothing_gets_what_it_lacks_from_the_script() {
    let mut scene = chunk_scene(&format!("{DOCS}; CREATE SCHEMA search")).await;
    let role = role(&scene, "chunker", "REPLICATION").await;
    let options = [("backfill", "false")];
    let job = chunk_job_at(&scene, &role.uri, "search.docs_chunks", &options).await;
    let refused = would_start(&scene, job).await.unwrap_err();
    assert!(
        refused.contains("-v source=body -v chunk_schema=search -v role="),
        "{refused}"
    );
    let variables = [
        ("schema", "public"),
        ("table", "docs"),
        ("key", "id"),
        ("source", "body"),
        ("chunk_schema", "search"),
        ("role", role.name.as_str()),
    ];
    // It may run again.
    for _ in 0..2 {
        run_script(&scene, "sql/prepare_publication.sql", &variables).await;
    }
    assert_eq!(would_start(&scene, job).await, Ok(()));
    for (taken, said) in [
        (
            format!("REVOKE CREATE ON SCHEMA search FROM {}", role.name),
            "GRANT USAGE, CREATE ON SCHEMA \"search\" TO",
        ),
        (
            "ALTER PUBLICATION lantern_prepared_public_docs_body_chunks SET (publish = 'insert, update')".into(),
            "SET (publish = 'insert, update, delete, truncate');",
        ),
    ] {
        scene.sql(&taken).await;
        let (uri, id) = (scene.database.uri(), job.to_string());
        let checked = check(&["--uri", &uri, "--job", &id]).await;
        let failed = texts(&checked, "failed");
        assert!(failed.len() == 1 && failed[0].contains(said), "{failed:#?}");
        scene.sql(remedy(failed[0])).await;
        assert_eq!(would_start(&scene, job).await, Ok(()));
    }
    scene.start_daemon().await;
    let owner =
        "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'search.docs_chunks'::regclass";
    assert_eq!(scene.value(owner).await, role.name);
}
