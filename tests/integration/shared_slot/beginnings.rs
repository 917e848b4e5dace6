//! One slot and one publication for any number of jobs.

use testkit::client::execute;
use testkit::scene::DESERT;
use testkit::skip;

use super::*;

#[tokio::test]
async fn five_jobs_on_four_tables_share_one_slot_and_one_publication() {
    let mut scene = streaming().await;
    assert_eq!(scene.value(SLOTS).await, "1 slot, 1 read");
    assert_eq!(
        scene.leftovers().await,
        "1 publications, 1 slots",
        "whatever the number of jobs"
    );
    assert_eq!(scene.value(PUBLISHED).await, "pair parts plain whole");
    let names = "SELECT bool_and(slot_name ~ '^lantern_[0-9a-f]{8}_db_[0-9a-f]{16}$' AND slot_name = pubname) \
                 FROM pg_replication_slots, pg_publication WHERE database = current_database()";
    assert_eq!(scene.value(names).await, "true");

    for (id, text) in [(1, MOON), (2, NEW_TEXT), (3, TIDES), (3, DESERT), (4, MOON)] {
        put(&scene, id, text).await;
    }
    scene
        .sql("UPDATE pair SET title = NULL WHERE id = 1; UPDATE parts SET id = 41 WHERE id = 4; UPDATE whole SET body = '' WHERE id = 2")
        .await;
    wait_for_all_vectors(&scene).await;
    caught_up(&scene).await;
    assert_eq!(scans(scene.daemon()), 5, "once for each job");
    assert_eq!(scene.failures().await, "");
}

/// Servers from 15 on publish what some job of the table needs, and no vectors.
#[tokio::test]
async fn a_table_publishes_what_its_jobs_need() {
    let scene = streaming().await;
    let columns = "SELECT string_agg(a.attname, ' ' ORDER BY a.attnum) FROM pg_publication_rel r, pg_attribute a \
                   WHERE r.prrelid = 'pair'::regclass AND a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])";
    if scene.database.version() < 15 {
        skip::does_not_apply("PostgreSQL 14 has no column lists and publishes whole rows");
        return;
    }
    assert_eq!(scene.value(columns).await, "id body title");
}

#[tokio::test]
async fn a_job_is_added_while_others_stream() {
    let mut scene = streaming().await;
    let walsender =
        "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
    let before = scene.value(walsender).await;
    scene.put_into("late", 1, TIDES).await;
    scene.job("late", "body").await;
    put(&scene, 3, NEW_TEXT).await;
    wait_until_ready(&scene).await;
    scene.put_into("late", 1, MOON).await;
    scene.put_into("late", 2, DESERT).await;
    scene.wait_for_vectors("late", "body").await;
    wait_for_all_vectors(&scene).await;
    assert_eq!(scene.value(PUBLISHED).await, "late pair parts plain whole");
    assert_eq!(
        scene.value(walsender).await,
        before,
        "the stream was not interrupted"
    );
    assert_eq!(scans(scene.daemon()), 6);
}

/// The changes of a transaction that was open when its table was published are neither in the stream nor, yet, visible
/// in the table.
#[tokio::test]
async fn a_transaction_that_was_open_when_its_table_was_added_loses_nothing() {
    let scene = streaming().await;
    let writing = scene.database.client().await;
    let insert = format!("BEGIN; INSERT INTO late VALUES (1, '{TIDES}')");
    execute(&writing, &insert).await;
    scene.job("late", "body").await;
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_started_at IS NOT NULL",
            "6",
        )
        .await;
    put(&scene, 3, NEW_TEXT).await;
    wait_for_all_vectors(&scene).await;
    let more = format!("INSERT INTO late VALUES (2, '{MOON}'); COMMIT");
    execute(&writing, &more).await;
    wait_until_ready(&scene).await;
    scene.wait_for_vectors("late", "body").await;
    scene.put_into("late", 1, DESERT).await;
    scene.wait_for_vectors("late", "body").await;
}
