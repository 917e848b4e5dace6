//! `create_index`: the daemon builds the index of a job's vectors.

use testkit::jobs::{Job, insert_job, wait_for_failure};
use testkit::scene::{MOON, NOTES, TIDES, VOCABULARY};
use testkit::{Scene, TestDatabase, server};

use crate::search::reason;
use crate::support::{program, scene_with};

/// The optional columns of the jobs table.
pub const COLUMNS: &str =
    "ALTER TABLE jobs ADD create_index text, ADD index_params jsonb, ADD index_state text";

/// The names of the valid indexes of the vectors.
pub const INDEXES: &str = "SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_index i \
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'hnsw' AND i.indisvalid";

/// What the row says of the index.
pub const STATE: &str = "SELECT index_state FROM jobs";

pub const NAME: &str = "notes_embedding_cosine_lantern_idx";
pub const READY: &str = "ready: \"public\".\"notes_embedding_cosine_lantern_idx\" (hnsw, cosine)";

/// A scene with `notes`, of which job 1 keeps an index; `None` where the server has no pgvector, which is reported.
pub async fn indexed_notes(tables: &str) -> Option<Scene> {
    if TestDatabase::with_vector(server::shared())
        .await
        .skips_vector()
    {
        return None;
    }
    let scene = scene_with(tables).await;
    scene.sql(COLUMNS).await;
    let job = Job {
        options: &[("create_index", "'hnsw'")],
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    Some(scene)
}

#[tokio::test]
async fn the_index_is_built_after_the_backfill_and_search_uses_it() {
    let Some(mut scene) = indexed_notes(NOTES).await else {
        return;
    };
    scene.write(&VOCABULARY[..]).await;
    scene.start_daemon().await;
    scene.wait_for(STATE, READY).await;
    assert_eq!(scene.value(INDEXES).await, NAME);
    let log = scene.daemon().log();
    assert!(
        log.contains(&format!(
            "building the index \"public\".\"{NAME}\" of \"public\".\"notes\""
        )),
        "{log}"
    );
    let built = log.find("building the index").expect("a line");
    assert!(
        log.find("existing rows done")
            .is_some_and(|scanned| scanned < built),
        "{log}"
    );
    scene.put(1, TIDES).await;
    scene.caught_up().await;
    scene.set_default("enable_seqscan", "off").await;
    assert!(
        reason(&scene, &["--limit", "1"])
            .await
            .starts_with(&format!("\"{NAME}\""))
    );

    // Neither another distance nor no option at all drops an index.
    scene
        .sql("UPDATE jobs SET index_params = '{\"distance\": \"l2\", \"m\": 4, \"ef_construction\": 8, \"maintenance_work_mem\": \"32MB\"}'")
        .await;
    let both = format!("{NAME} notes_embedding_l2_lantern_idx");
    scene.wait_for(INDEXES, &both).await;
    let options =
        "SELECT reloptions::text FROM pg_class WHERE relname = 'notes_embedding_l2_lantern_idx'";
    assert_eq!(scene.value(options).await, "{m=4,ef_construction=8}");
    scene.sql("UPDATE jobs SET create_index = NULL").await;
    scene.wait_for(STATE, "").await;
    assert_eq!(scene.value(INDEXES).await, both);
    scene.put(1, MOON).await;
    scene.caught_up().await;
}

/// The remedy for vectors of more than 2,000 dimensions.
#[tokio::test]
async fn an_index_of_half_precision_is_built_and_used() {
    let Some(mut scene) = indexed_notes(NOTES).await else {
        return;
    };
    scene
        .sql("UPDATE jobs SET index_params = '{\"type\": \"halfvec\", \"distance\": \"inner_product\"}'")
        .await;
    scene.write(&VOCABULARY[..]).await;
    scene.start_daemon().await;
    let name = "notes_embedding_inner_product_lantern_idx";
    let ready = format!("ready: \"public\".\"{name}\" (hnsw, inner_product)");
    scene.wait_for(STATE, &ready).await;
    let definition = format!("SELECT indexdef FROM pg_indexes WHERE indexname = '{name}'");
    let definition = scene.value(&definition).await;
    assert!(
        definition.contains("::halfvec(384)) halfvec_ip_ops"),
        "{definition}"
    );
    scene.set_default("enable_seqscan", "off").await;
    let used = reason(&scene, &["--limit", "1"]).await;
    assert!(used.starts_with(&format!("\"{name}\"")), "{used}");
}

#[tokio::test]
async fn an_index_of_the_users_counts_if_it_serves_the_distance() {
    let Some(mut scene) = indexed_notes(NOTES).await else {
        return;
    };
    scene
        .sql(
            "CREATE INDEX own_l2 ON notes USING hnsw (embedding vector_l2_ops); \
             CREATE INDEX own ON notes USING hnsw ((embedding::halfvec(384)) halfvec_cosine_ops)",
        )
        .await;
    scene.start_daemon().await;
    scene
        .wait_for(STATE, "ready: \"public\".\"own\" (hnsw, cosine)")
        .await;
    assert_eq!(scene.value(INDEXES).await, "own own_l2");
    scene.stop_daemon().await;
    // Without it the job needs one.
    scene.sql("DROP INDEX own").await;
    scene.start_daemon().await;
    scene.wait_for(STATE, READY).await;
    assert_eq!(scene.value(INDEXES).await, format!("{NAME} own_l2"));
}

#[tokio::test]
async fn a_partitioned_table_gets_one_index_of_those_of_its_partitions() {
    const TABLES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, \
          embedding vector(384)) PARTITION BY RANGE (id); \
        CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (3); \
        CREATE TABLE \"High \"\"er\" PARTITION OF notes FOR VALUES FROM (3) TO (100) PARTITION BY RANGE (id); \
        CREATE TABLE high_1 PARTITION OF \"High \"\"er\" FOR VALUES FROM (3) TO (5); \
        CREATE TABLE high_2 PARTITION OF \"High \"\"er\" FOR VALUES FROM (5) TO (100); \
        CREATE INDEX own ON low USING hnsw (embedding vector_cosine_ops)";
    let Some(mut scene) = indexed_notes(TABLES).await else {
        return;
    };
    scene.write(&VOCABULARY[..]).await;
    scene.start_daemon().await;
    scene.wait_for(STATE, READY).await;
    let parts = "SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text) FROM pg_inherits \
                 JOIN pg_class ON oid = inhparent WHERE relkind = 'I' AND relname LIKE '%cosine_lantern_idx'";
    assert_eq!(
        scene.value(parts).await,
        "\"High \"\"er_embedding_cosine_lantern_idx\" high_1_embedding_cosine_lantern_idx \
         high_2_embedding_cosine_lantern_idx own"
    );
    // A partition that comes later gets its index from the server.
    scene
        .sql("CREATE TABLE far PARTITION OF notes FOR VALUES FROM (100) TO (200)")
        .await;
    let count =
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'far' AND indexdef LIKE '%hnsw%'";
    assert_eq!(scene.value(count).await, "1");
}

#[tokio::test]
async fn a_partition_whose_index_belongs_to_another_one_gets_a_second() {
    const TABLES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, \
          embedding vector(384)) PARTITION BY RANGE (id); \
        CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (3); \
        CREATE TABLE high PARTITION OF notes FOR VALUES FROM (3) TO (9); \
        CREATE INDEX own ON ONLY notes USING hnsw (embedding vector_cosine_ops); \
        CREATE INDEX own_low ON low USING hnsw (embedding vector_cosine_ops); \
        ALTER INDEX own ATTACH PARTITION own_low";
    let Some(mut scene) = indexed_notes(TABLES).await else {
        return;
    };
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene.wait_for(STATE, READY).await;
    let indexes = scene.value(INDEXES).await;
    assert_eq!(
        indexes,
        format!(
            "high_embedding_cosine_lantern_idx low_embedding_cosine_lantern_idx {NAME} own_low"
        )
    );
}

#[tokio::test]
async fn a_role_that_does_not_own_the_table_is_told_at_the_start_what_the_owner_can_run() {
    let Some(mut scene) = indexed_notes(NOTES).await else {
        return;
    };
    let owner = format!("owner_of_{}", scene.database.name());
    let role = format!("daemon_of_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {owner}; CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'p'; ALTER TABLE notes OWNER TO {owner}; \
             GRANT SELECT (id, body, embedding), UPDATE (embedding) ON notes TO {role}; \
             GRANT USAGE ON SCHEMA public TO {role}; GRANT USAGE, CREATE ON SCHEMA public TO {owner}"
        ))
        .await;
    scene
        .database
        .psql(&format!(
            "\\set schema public\n\\set table notes\n\\set key id\n\\set source body\n\\set destination embedding\n\
             \\set type vector(384)\n\\set role {role}\n{}",
            testkit::paths::read("sql/prepare_publication.sql")
        ))
        .await;
    let uri = scene.database.uri();
    let (user, rest) = uri
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .expect("a URI");
    assert!(!user.is_empty());
    scene
        .execute(
            "UPDATE jobs SET db_connection = $1",
            &[&format!("postgresql://{role}:p@{rest}")],
        )
        .await;
    scene.start_daemon().await;
    let statement = format!(
        "CREATE INDEX CONCURRENTLY \"{NAME}\" ON \"public\".\"notes\" USING hnsw (\"embedding\" \"public\".\"vector_cosine_ops\")"
    );
    let log = scene.daemon().log();
    assert!(
        log.contains(&format!("let the owner run: {statement};")),
        "{log}"
    );
    scene
        .wait_for(
            &format!("SELECT strpos(index_state, '{statement}') > 0 FROM jobs"),
            "true",
        )
        .await;
    scene.sql(&format!("SET ROLE {owner}")).await;
    scene
        .client
        .batch_execute(&statement)
        .await
        .expect("the statement works");
    scene.sql("RESET ROLE").await;
    scene.wait_for(STATE, READY).await;
    scene.stop_daemon().await;
    scene
        .sql(&format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database(); \
                       DROP TABLE notes; DROP OWNED BY {owner}, {role}; DROP ROLE {owner}, {role}"))
        .await;
}

#[tokio::test]
async fn what_cannot_be_indexed_is_refused_when_a_job_starts_for_the_first_time() {
    for (change, expected) in [
        (
            "UPDATE jobs SET create_index = 'btree'",
            "only \"hnsw\" is known",
        ),
        (
            "UPDATE jobs SET index_params = '{\"m\": 1}'",
            "the job's index_params: m is 1; it must be a whole number from 2 to 100",
        ),
        (
            "ALTER TABLE notes ALTER embedding TYPE vector",
            "ALTER COLUMN \"embedding\" TYPE \"public\".vector(384) USING \"embedding\"::\"public\".vector(384);",
        ),
        (
            "ALTER TABLE notes ALTER embedding TYPE real[]",
            "ALTER COLUMN \"embedding\" TYPE vector(384) USING \"embedding\"::vector(384);",
        ),
    ] {
        let Some(mut scene) = indexed_notes(NOTES).await else {
            return;
        };
        scene.sql(change).await;
        scene.spawn_daemon();
        let reason = scene.wait_for_failure().await;
        assert!(reason.contains(expected), "{change}: {reason}");
    }
}

#[tokio::test]
async fn a_job_that_has_run_goes_on_where_its_vectors_cannot_be_indexed() {
    let Some(mut scene) = indexed_notes(&NOTES.replace("vector(384)", "real[]")).await else {
        return;
    };
    scene.sql("UPDATE jobs SET create_index = NULL").await;
    scene.start_daemon().await;
    scene.sql("UPDATE jobs SET create_index = 'hnsw'").await;
    scene
        .wait_for(
            "SELECT index_state LIKE 'not built: create_index is hnsw, but %' FROM jobs",
            "true",
        )
        .await;
    assert_eq!(scene.failures().await, "");
    // The remedy that it names.
    scene
        .sql("ALTER TABLE notes ALTER embedding TYPE vector(384) USING embedding::vector(384)")
        .await;
    scene.wait_for(STATE, READY).await;
}

#[tokio::test]
async fn without_pgvector_an_index_is_refused_with_the_remedy() {
    let Some(server) = server::debian() else {
        return;
    };
    let database = TestDatabase::create(server).await;
    let scene = Scene::without_vectors(program(), database).await;
    scene.sql(COLUMNS).await;
    scene
        .sql("CREATE TABLE notes (id int PRIMARY KEY, body text)")
        .await;
    let job = Job {
        options: &[("create_index", "'hnsw'")],
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    let job = insert_job(&scene.client, job).await;
    let _daemon = crate::support::start_daemon(&scene.database, &[]);
    let reason = wait_for_failure(&scene.client, job).await;
    assert!(reason.contains("CREATE EXTENSION vector;"), "{reason}");
}
