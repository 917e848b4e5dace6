//! Tables of other shapes: partitions, odd names, other types; what a column has besides its values; two databases.

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::{TestDatabase, server};

use super::{Change, VECTOR_COLUMNS, is_of, notes, words};

#[tokio::test]
async fn the_new_column_gets_what_users_gave_the_old_one() {
    let mut change = Change::new(
        "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding real[] NOT NULL DEFAULT '{}');
         INSERT INTO notes (id, body) VALUES (1, 'w1 w2'), (2, 'w3 w4');
         COMMENT ON COLUMN notes.embedding IS 'it''s a vector';
         ALTER TABLE notes ALTER embedding SET STATISTICS 7, ALTER embedding SET STORAGE EXTERNAL;
         CREATE ROLE change_reader; GRANT SELECT (embedding) ON notes TO change_reader WITH GRANT OPTION;
         GRANT SELECT (embedding) ON notes TO PUBLIC",
        &[],
    )
    .await;
    change.scene.start_daemon().await;
    change.replace(&[]).await;
    change.wait_for_swap(2).await;
    let of_new = "SELECT concat_ws(' ', col_description(attrelid, attnum), attstattarget, attstorage, attnotnull, \
        (SELECT string_agg(privilege_type || ' ' || is_grantable || ' ' || (grantee = 0), ',' ORDER BY grantee) \
         FROM aclexplode(attacl) WHERE grantee <> attrelid)) \
        FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attname = 'embedding'";
    assert_eq!(
        change.scene.value(of_new).await,
        "it's a vector 7 e f SELECT false true,SELECT true false"
    );
    // The old column must not keep users from inserting.
    change.scene.put(3, &words(3)).await;
    change.wait_for_vectors("embedding", TinyModel::Two).await;
    let old = "SELECT embedding_before_job_2 IS NULL FROM notes WHERE id = 3";
    assert_eq!(change.scene.value(old).await, "true");
    change
        .scene
        .sql("REVOKE ALL (embedding, embedding_before_job_2) ON notes FROM change_reader; DROP ROLE change_reader")
        .await;
}

#[tokio::test]
async fn an_index_is_there_when_the_column_takes_its_name_and_follows_it() {
    let database = TestDatabase::with_vector(server::shared()).await;
    if database.skips_vector() {
        return;
    }
    let tables = notes(10) + "ALTER TABLE notes ADD embedding halfvec(8);";
    let mut change = Change::new(&tables, &[("create_index", "'hnsw'")]).await;
    change.scene.start_daemon().await;
    let state = |id: i32| format!("SELECT index_state LIKE 'ready%' FROM jobs WHERE id = {id}");
    change.scene.wait_for(&state(1), "true").await;
    change.succeeds(&["--job", "1", "--to", "chaos/two"]).await;
    let indexes = "SELECT string_agg(indexname || ' ' || substring(indexdef FROM 'hnsw .*'), '; ' ORDER BY indexname) \
                   FROM pg_indexes WHERE tablename = 'notes' AND indexdef ~ 'hnsw'";
    assert_eq!(
        change.scene.value(indexes).await,
        "notes_embedding_before_job_2_cosine_lantern_idx hnsw (embedding_before_job_2 halfvec_cosine_ops); \
         notes_embedding_cosine_lantern_idx hnsw (embedding halfvec_cosine_ops)"
    );
    change.scene.wait_for(&state(2), "true").await;
    // Dimensions may differ.
    let default = "sentence-transformers/all-MiniLM-L6-v2";
    change.succeeds(&["--job", "2", "--to", default]).await;
    let kind = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
                WHERE attrelid = 'notes'::regclass AND attname = 'embedding'";
    assert_eq!(change.scene.value(kind).await, "halfvec(384)");
    change.succeeds(&["--job", "3", "--drop-old"]).await;
    change.succeeds(&["--job", "2", "--drop-old"]).await;
    assert_eq!(change.scene.value(VECTOR_COLUMNS).await, "embedding");
}

#[tokio::test]
async fn names_that_need_quotes_and_partitions_are_changed_too() {
    let mut change = Change::without_job(
        "CREATE SCHEMA \"an \"\" odd\";
         CREATE TABLE \"an \"\" odd\".\"Ta'ble\" (id int, part int, \"a text\" text, PRIMARY KEY (id, part)) \
           PARTITION BY LIST (part);
         CREATE TABLE \"an \"\" odd\".p1 PARTITION OF \"an \"\" odd\".\"Ta'ble\" FOR VALUES IN (1);
         CREATE TABLE \"an \"\" odd\".p2 PARTITION OF \"an \"\" odd\".\"Ta'ble\" FOR VALUES IN (2);
         INSERT INTO \"an \"\" odd\".\"Ta'ble\" VALUES (1, 1, 'w1 w2'), (2, 2, 'w3 w4')",
    )
    .await;
    let long = "v\"'ecs ".to_owned() + &"ü".repeat(28);
    let job = |model: TinyModel, options| Job {
        schema: Some("an \" odd"),
        embedding_model: model.name(),
        options,
        ..Job::on(&change.scene.database, "Ta'ble", "a text", &long)
    };
    let first = job(TinyModel::One, &[]);
    insert_job(&change.scene.client, first).await;
    let second = job(TinyModel::Two, &[("replaces", "1")]);
    change.scene.spawn_daemon();
    let finished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL";
    change.scene.wait_for(finished, "1").await;
    let uri = change.scene.database.uri();
    let second = Job {
        db_connection: uri,
        ..second
    };
    insert_job(&change.scene.client, second).await;
    change.wait_for_swap(2).await;
    let table = "\"an \"\" odd\".\"Ta'ble\"";
    change
        .scene
        .sql(&format!("INSERT INTO {table} VALUES (3, 1, 'w7')"))
        .await;
    let column = format!("\"{}\"", long.replace('"', "\"\""));
    let missing = format!("SELECT count(*) FROM {table} WHERE {column} IS NULL");
    change.scene.wait_for(&missing, "0").await;
    let rows = format!("SELECT \"a text\", {column}::real[] FROM {table}");
    for row in change.scene.client.query(&rows, &[]).await.expect("rows") {
        assert!(is_of(
            TinyModel::Two,
            row.get(0),
            &row.get::<_, Vec<f32>>(1)
        ));
    }
}

#[tokio::test]
async fn jobs_and_table_may_be_in_two_databases() {
    let mut change = Change::without_job("SELECT 1").await;
    let target = TestDatabase::with_vector(server::shared()).await;
    let client = target.client().await;
    testkit::client::execute(&client, &notes(10)).await;
    let job = Job {
        embedding_model: TinyModel::One.name(),
        ..Job::on(&target, "notes", "body", "embedding")
    };
    insert_job(&change.scene.client, job).await;
    change.scene.spawn_daemon();
    let finished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL";
    change.scene.wait_for(finished, "1").await;
    change.succeeds(&["--job", "1", "--to", "chaos/two"]).await;
    let rows = "SELECT body, embedding::real[] FROM notes";
    for row in client.query(rows, &[]).await.expect("rows") {
        assert!(is_of(
            TinyModel::Two,
            row.get(0),
            &row.get::<_, Vec<f32>>(1)
        ));
    }
    // The other direction is one more change.
    change.succeeds(&["--job", "2", "--to", "chaos/one"]).await;
    change.scene.kill_daemon();
}
