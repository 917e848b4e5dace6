//! One slot and one publication, however many jobs.

use super::*;
use crate::hazards::scene::DESERT;

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

    for (id, text) in [(1, MOON), (2, NEWS), (3, TIDES), (3, DESERT), (4, MOON)] {
        put(&scene, id, text).await;
    }
    scene
        .sql("UPDATE pair SET title = NULL WHERE id = 1; UPDATE parts SET id = 41 WHERE id = 4; UPDATE whole SET body = '' WHERE id = 2")
        .await;
    settled(&scene).await;
    caught_up(&scene).await;
    assert_eq!(scans(scene.daemon()), 5, "once for each job");
    no_failure(&scene).await;
}

/// Servers from 15 on publish what some job of the table needs, and no vectors.
#[tokio::test]
async fn a_table_publishes_what_its_jobs_need() {
    let scene = streaming().await;
    let columns = "SELECT string_agg(a.attname, ' ' ORDER BY a.attnum) FROM pg_publication_rel r, pg_attribute a \
                   WHERE r.prrelid = 'pair'::regclass AND a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])";
    let version = "SELECT current_setting('server_version_num')";
    if scene.value(version).await.as_str() >= "150000" {
        assert_eq!(scene.value(columns).await, "id body title");
    }
}

#[tokio::test]
async fn a_job_comes_while_the_others_stream() {
    let mut scene = streaming().await;
    let walsender =
        "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
    let before = scene.value(walsender).await;
    put_into(&scene, "late", 1, TIDES).await;
    scene.job("late", "body").await;
    put(&scene, 3, NEWS).await;
    ready(&scene).await;
    put_into(&scene, "late", 1, MOON).await;
    put_into(&scene, "late", 2, DESERT).await;
    scene.settled("late", "body").await;
    settled(&scene).await;
    assert_eq!(scene.value(PUBLISHED).await, "late pair parts plain whole");
    assert_eq!(scene.value(walsender).await, before, "nobody was disturbed");
    assert_eq!(scans(scene.daemon()), 6);
}

/// What a transaction has changed that was open when its table was published is neither in the stream nor, yet, in the table.
#[tokio::test]
async fn a_transaction_that_was_open_when_its_table_came_loses_nothing() {
    let scene = streaming().await;
    let writing = scene.database.client().await;
    let insert = format!("BEGIN; INSERT INTO late VALUES (1, '{TIDES}')");
    writing.batch_execute(&insert).await.expect("inserted");
    scene.job("late", "body").await;
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_started_at IS NOT NULL",
            "6",
        )
        .await;
    put(&scene, 3, NEWS).await;
    settled(&scene).await;
    let more = format!("INSERT INTO late VALUES (2, '{MOON}'); COMMIT");
    writing.batch_execute(&more).await.expect("committed");
    ready(&scene).await;
    scene.settled("late", "body").await;
    put_into(&scene, "late", 1, DESERT).await;
    scene.settled("late", "body").await;
}
