//! Roles that may not do everything: the owner of the table is another one, or there is one for the stream and one for the
//! rows.

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;

use super::{Change, notes, words};
use crate::rights::{Role, role, run_script};

async fn prepare(change: &Change, destination: &str, role: &Role) {
    let variables = [
        ("schema", "public"),
        ("table", "notes"),
        ("key", "id"),
        ("source", "body"),
        ("destination", destination),
        ("type", "real[]"),
        ("role", &role.name),
    ];
    run_script(&change.scene, "sql/prepare_publication.sql", &variables).await;
}

async fn add(change: &Change, role: &Role, model: TinyModel, options: &[(&str, &str)]) {
    let job = Job {
        db_connection: role.uri.clone(),
        embedding_model: model.name(),
        options,
        ..Job::on(&change.scene.database, "notes", "body", "embedding")
    };
    insert_job(&change.scene.client, job).await;
}

/// The statements of the message are all that the owner needs: the column gets what the old one had.
#[tokio::test]
async fn the_owner_of_the_table_can_do_what_the_role_of_the_job_may_not() {
    let mut change = Change::without_job(&notes(10)).await;
    let daemon = role(&change.scene, "daemon", "REPLICATION").await;
    let searcher = role(&change.scene, "searcher", "").await;
    let old = format!(
        "ALTER TABLE notes ADD embedding real[] NOT NULL DEFAULT '{{}}'; GRANT SELECT (embedding) ON notes TO {}",
        searcher.name
    );
    change.scene.sql(&old).await;
    prepare(&change, "embedding", &daemon).await;
    prepare(&change, "embedding_job_2", &daemon).await;
    add(&change, &daemon, TinyModel::One, &[]).await;
    change.scene.start_daemon().await;
    // What holds the owner up is said first.
    change
        .scene
        .sql("CREATE VIEW seen AS SELECT embedding FROM notes")
        .await;
    add(&change, &daemon, TinyModel::Two, &[("replaces", "1")]).await;
    let waits =
        |text: &str| format!("SELECT waits_for LIKE '%person: {text}%' FROM jobs WHERE id = 2");
    let depends = waits("what depends on the old column%view");
    change.scene.wait_for(&depends, "true").await;
    change.scene.sql("DROP VIEW seen").await;
    let statements = waits("only the owner of \"public\".\"notes\" can exchange");
    change.scene.wait_for(&statements, "true").await;
    change
        .wait_for_vectors("embedding_job_2", TinyModel::Two)
        .await;
    change
        .scene
        .sql("UPDATE jobs SET canceled_at = true WHERE id = 1")
        .await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    change.scene.wait_for(slots, "1").await;
    let script = "SELECT substring(waits_for FROM 'BEGIN;.*COMMIT;') FROM jobs WHERE id = 2";
    let script = change.scene.value(script).await;
    change.scene.sql(&script).await;
    change.wait_for_swap(2).await;
    change.scene.put(11, &words(40)).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    let of_new = format!(
        "SELECT has_column_privilege('{}', 'notes', 'embedding', 'SELECT')",
        searcher.name
    );
    assert_eq!(change.scene.value(&of_new).await, "true");
    let of_old = "SELECT concat_ws(' ', attnotnull, atthasdef) FROM pg_attribute \
                  WHERE attrelid = 'notes'::regclass AND attname = 'embedding_before_job_2'";
    assert_eq!(change.scene.value(of_old).await, "f f");
}

/// The role that owns the table is not that of the session to end.
#[tokio::test]
async fn a_job_with_two_roles_ends_the_session_of_the_other_one_as_that_role() {
    let mut change = Change::without_job(&notes(10)).await;
    let stream = role(&change.scene, "stream", "REPLICATION").await;
    let rows = role(&change.scene, "rows", "").await;
    let rights = format!(
        "ALTER TABLE jobs ADD write_connection text; ALTER TABLE notes ADD embedding real[]; \
         GRANT SELECT, UPDATE ON notes TO {rows}; GRANT CREATE ON DATABASE {database} TO {stream}; \
         GRANT CREATE ON SCHEMA public TO {stream}; ALTER TABLE notes OWNER TO {stream}",
        rows = rows.name,
        stream = stream.name,
        database = change.scene.database.name(),
    );
    change.scene.sql(&rights).await;
    let write = ("write_connection", &*format!("'{}'", rows.uri));
    add(&change, &stream, TinyModel::One, &[write]).await;
    change.scene.start_daemon().await;
    add(
        &change,
        &stream,
        TinyModel::Two,
        &[write, ("replaces", "1")],
    )
    .await;
    change.wait_for_swap(2).await;
    change.scene.put(11, &words(40)).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
}
