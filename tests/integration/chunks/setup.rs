//! What a job with a `chunk_table` creates before it reads the first document, and what it leaves.

use testkit::client::execute;
use testkit::jobs::{Job, create_documented_table, insert_job, wait_for_failure, wait_for_slots};
use testkit::wait::TIMEOUT;
use testkit::{TestDatabase, server};

use super::scene::{DOCS, chunk_job, chunk_scene};
use crate::support::{program, start_daemon};

const COLUMNS: &str = "SELECT string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY attnum) \
                       FROM pg_attribute a WHERE attrelid = 'search.passages'::regclass AND attnum > 0";
/// What the publication publishes; nothing while there is none, as in the moment in which another one takes its place.
const PUBLISHED: &str = "SELECT string_agg(format('%s%s%s%s', pubinsert, pubupdate, pubdelete, pubtruncate), ' ') FROM pg_publication";

#[tokio::test]
async fn a_table_for_passages_has_the_key_as_it_is_declared_and_is_read_by_who_reads_the_texts() {
    let mut scene = chunk_scene(
        "CREATE DOMAIN tenant AS varchar(20) COLLATE \"C\" CHECK (VALUE <> ''); CREATE SCHEMA search; \
         CREATE TABLE docs (tenant tenant, id numeric(12, 2), body text, PRIMARY KEY (id, tenant))",
    )
    .await;
    let name = scene.database.name().to_owned();
    let (reader, partial) = (format!("reader_{name}"), format!("partial_{name}"));
    scene
        .sql(&format!(
            "CREATE ROLE {reader}; CREATE ROLE {partial}; GRANT SELECT ON docs TO {reader}; GRANT SELECT (id) ON docs TO {partial}"
        ))
        .await;
    chunk_job(&scene, "search.passages", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    let columns = "id numeric(12,2), tenant tenant, chunk_seq integer, chunk_start integer, chunk_end integer, \
                   chunk text, embedding vector(384), chunk_fingerprint uuid, document_fingerprint uuid";
    assert_eq!(scene.value(COLUMNS).await, scene.database.adapted(columns));
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint \
               WHERE conrelid = 'search.passages'::regclass AND contype = 'p'";
    assert_eq!(
        scene.value(key).await,
        "PRIMARY KEY (id, tenant, chunk_seq)"
    );
    let comment = "SELECT obj_description('search.passages'::regclass) LIKE 'passages of \"public\".\"docs\".\"body\" %'";
    assert_eq!(scene.value(comment).await, "true");
    assert_eq!(scene.value(PUBLISHED).await, "tttt");
    for (role, may) in [(&reader, "true"), (&partial, "false")] {
        for relation in ["search.passages", "search.passages_documents"] {
            let asked = format!("SELECT has_table_privilege('{role}', '{relation}', 'SELECT')");
            assert_eq!(scene.value(&asked).await, may, "{role} {relation}");
        }
    }
    // Nothing is on the table of the user's.
    let beside = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'docs'::regclass";
    assert_eq!(scene.value(beside).await, "0");
    scene
        .sql(&format!(
            "DROP OWNED BY {reader}, {partial}; DROP ROLE {reader}, {partial}"
        ))
        .await;
}

/// Triggers and other code of the table then run with the owner's rights.
#[tokio::test]
async fn what_a_superuser_creates_belongs_to_the_owner_of_the_texts() {
    let mut scene = chunk_scene(DOCS).await;
    let owner = format!("owner_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {owner}; ALTER TABLE docs OWNER TO {owner}"
        ))
        .await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    let owners = "SELECT string_agg(pg_get_userbyid(relowner), ' ' ORDER BY relname) FROM pg_class \
                  WHERE relname IN ('docs_chunks', 'docs_chunks_documents')";
    assert_eq!(scene.value(owners).await, format!("{owner} {owner}"));
    let of_function =
        "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'docs_chunks_documents'";
    assert_eq!(scene.value(of_function).await, owner);
    scene
        .sql(&format!(
            "REASSIGN OWNED BY {owner} TO CURRENT_USER; DROP ROLE {owner}"
        ))
        .await;
}

/// A shared publication publishes neither deletes nor truncates.
#[tokio::test]
async fn a_job_with_passages_has_a_slot_of_its_own_also_beside_a_shared_one() {
    let mut scene = chunk_scene(&format!(
        "{DOCS}; CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384))"
    ))
    .await;
    scene.job("notes", "body").await;
    let job = chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.spawn_daemon_with(&["--slots", "database"]);
    wait_for_slots(&scene.client, 2).await;
    let unfinished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NULL";
    scene.wait_for(unfinished, "0").await;
    let own = format!(
        "SELECT string_agg(format('%s%s', pubdelete, pubtruncate), ' ') FROM pg_publication WHERE pubname ~ '^lantern_[0-9a-f]+_{job}_'"
    );
    scene.wait_for(&own, "tt").await;
    let shared = "SELECT string_agg(format('%s%s', pubdelete, pubtruncate), ' ') FROM pg_publication WHERE pubname ~ '_db_'";
    assert_eq!(scene.value(shared).await, "ff");
    scene
        .sql(&format!(
            "UPDATE jobs SET canceled_at = true WHERE id = {job}"
        ))
        .await;
    wait_for_slots(&scene.client, 1).await;
}

#[tokio::test]
async fn a_canceled_job_leaves_the_passages_and_the_view() {
    let mut scene = chunk_scene(DOCS).await;
    let job = chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    wait_for_slots(&scene.client, 1).await;
    scene
        .sql(&format!(
            "UPDATE jobs SET canceled_at = true WHERE id = {job}"
        ))
        .await;
    wait_for_slots(&scene.client, 0).await;
    let left = "SELECT count(*) FROM docs_chunks_documents, docs_chunks";
    assert_eq!(scene.value(left).await, "0");
}

/// A job that published neither deletes nor truncates, as an earlier version of it.
#[tokio::test]
async fn a_publication_of_the_job_without_deletes_is_replaced() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    let publication = scene.value("SELECT pubname FROM pg_publication").await;
    scene
        .sql(&format!(
            "ALTER PUBLICATION {publication} SET (publish = 'insert, update')"
        ))
        .await;
    scene.wait_for(PUBLISHED, "tttt").await;
}

#[tokio::test]
async fn a_table_for_passages_that_is_dropped_is_created_again() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    let oid = scene.value("SELECT 'docs_chunks'::regclass::oid").await;
    scene.sql("DROP TABLE docs_chunks").await;
    let again = format!("SELECT to_regclass('docs_chunks')::oid <> {oid}");
    scene.wait_for(&again, "true").await;
    scene
        .daemon()
        .wait_for_line("looks at every row", TIMEOUT)
        .await;
    scene
        .wait_for("SELECT count(*) FROM docs_chunks_documents", "0")
        .await;
}

/// It was replaced while no daemon ran, by one that looks the same.
#[tokio::test]
async fn a_table_for_passages_that_was_replaced_without_a_daemon_is_noticed() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
        .sql(
            "CREATE TABLE other (LIKE docs_chunks INCLUDING ALL); DROP TABLE docs_chunks; ALTER TABLE other RENAME TO docs_chunks",
        )
        .await;
    let daemon = scene.spawn_daemon();
    daemon
        .wait_for_line("every row is looked at again", TIMEOUT)
        .await;
}

#[tokio::test]
async fn two_jobs_of_one_table_for_passages_are_told_of_each_other() {
    let mut scene = chunk_scene(&format!(
        "{DOCS}; CREATE TABLE others (id int PRIMARY KEY, body text)"
    ))
    .await;
    let first = chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    let second = chunk_job(&scene, "public.docs_chunks", &[("backfill", "false")]).await;
    scene
        .sql(&format!(
            "UPDATE jobs SET \"table\" = 'others' WHERE id = {second}"
        ))
        .await;
    let reason = format!("SELECT init_failure_reason FROM jobs WHERE id = {second}");
    let told = format!(
        "SELECT position('job {first} writes \"public\".\"docs_chunks\"' in ({reason})) > 0"
    );
    scene.wait_for(&told, "true").await;
}

/// The jobs of two jobs tables meet at the locks of the columns.
#[tokio::test]
async fn two_jobs_tables_do_not_share_a_table_for_passages() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    let elsewhere = TestDatabase::create(server::shared()).await;
    let client = elsewhere.client().await;
    create_documented_table(&client).await;
    execute(
        &client,
        "ALTER TABLE jobs ADD chunk_table text, ADD backfill bool",
    )
    .await;
    execute(
        &client,
        &format!(
            "INSERT INTO jobs (db_connection, \"table\", src_column, embedding_model, chunk_table, backfill) \
             VALUES ('{}', 'docs', 'title', '{}', 'docs_chunks', false)",
            scene.database.uri(),
            testkit::engine::MODEL
        ),
    )
    .await;
    let _daemon = start_daemon(&elsewhere, &[]);
    let reason = wait_for_failure(&client, 1).await;
    assert!(reason.contains("is written by job"), "{reason}");
    assert!(reason.contains("name another chunk_table"), "{reason}");
}

#[tokio::test]
async fn jobs_add_writes_the_table_for_passages() {
    let scene = chunk_scene(DOCS).await;
    let uri = scene.database.uri();
    let arguments = [
        "jobs",
        "add",
        "--uri",
        &uri,
        "--db-connection",
        &uri,
        "--table",
        "docs",
        "--column",
        "body",
        "--chunk-table",
        "docs_chunks",
    ];
    let output = program().run(&arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let row = "SELECT concat_ws(' ', \"table\", src_column, dst_column, chunk_table) FROM jobs";
    assert_eq!(scene.value(row).await, "docs body embedding docs_chunks");
}

/// The stream does not show it: `publish_via_partition_root` leaves TRUNCATE of a single partition out.
#[tokio::test]
async fn a_partition_that_is_truncated_makes_the_job_look_at_every_row() {
    let mut scene = chunk_scene(
        "CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id); \
         CREATE TABLE first PARTITION OF docs FOR VALUES FROM (0) TO (10); \
         CREATE TABLE further PARTITION OF docs FOR VALUES FROM (10) TO (20)",
    )
    .await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    scene.sql("TRUNCATE first").await;
    let line = "a partition of \"public\".\"docs\" was truncated";
    scene.daemon().wait_for_line(line, TIMEOUT).await;
    scene.wait_for_backfill().await;
}

/// It keeps others from nothing, and they it from nothing.
#[tokio::test]
async fn the_table_for_passages_may_have_a_job_of_its_own_on_another_column() {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[("backfill", "false")]).await;
    scene.start_daemon().await;
    let job = Job::on(&scene.database, "docs_chunks", "chunk", "other");
    insert_job(&scene.client, job).await;
    wait_for_slots(&scene.client, 2).await;
    scene.wait_for_backfill().await;
    // On the same column it may not.
    let job = Job::on(&scene.database, "docs_chunks", "chunk", "embedding");
    let job = insert_job(&scene.client, job).await;
    let reason = wait_for_failure(&scene.client, job).await;
    assert!(reason.contains("job 1 writes"), "{reason}");
}
