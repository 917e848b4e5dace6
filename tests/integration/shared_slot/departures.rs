//! Jobs that leave a shared slot: they remove their own part and nothing else.

use testkit::scene::DESERT;

use super::*;

#[tokio::test]
async fn a_canceled_job_removes_its_table_and_the_others_continue() {
    let scene = streaming().await;
    scene
        .sql("UPDATE jobs SET canceled_at = true WHERE \"table\" = 'plain'")
        .await;
    scene.wait_for(PUBLISHED, "pair parts whole").await;
    put(&scene, 3, NEW_TEXT).await;
    scene.wait_for_vectors("whole", "body").await;
    scene.wait_for_vectors("pair", "body").await;
    scene.wait_until_confirmed().await;
    assert_eq!(
        scene
            .value("SELECT count(*) FROM plain WHERE id = 3 AND embedding IS NULL")
            .await,
        "1"
    );
    // The resumed job embeds what it missed.
    scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    wait_for_all_vectors(&scene).await;
    scene.wait_for(PUBLISHED, "pair parts plain whole").await;
}

/// Of two jobs on one table, one ends.
#[tokio::test]
async fn a_table_stays_published_for_its_other_job() {
    let mut scene = streaming().await;
    scene
        .sql("DELETE FROM jobs WHERE dst_column = 'second'")
        .await;
    let marks = "SELECT cardinality(regexp_split_to_array(obj_description(oid, 'pg_publication'), '@')) - 1 FROM pg_publication";
    scene.wait_for(marks, "4").await;
    put(&scene, 3, NEW_TEXT).await;
    for table in FOLLOWED {
        scene.wait_for_vectors(table, "body").await;
    }
    scene.wait_until_confirmed().await;
    assert_eq!(scene.value(PUBLISHED).await, "pair parts plain whole");
    assert_eq!(scans(scene.daemon()), 5, "the other job was not restarted");
}

#[tokio::test]
async fn the_last_job_leaves_nothing_behind() {
    let scene = streaming().await;
    scene
        .sql("UPDATE jobs SET canceled_at = true WHERE id < 3; DELETE FROM jobs WHERE id >= 3")
        .await;
    scene.wait_for_cleanup().await;
    scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    wait_until_ready(&scene).await;
    put(&scene, 3, NEW_TEXT).await;
    scene.wait_for_vectors("plain", "body").await;
    scene.wait_for_vectors("pair", "body").await;
}

/// One job fails while streaming. Its unfinished rows do not hold back the position.
#[tokio::test]
async fn a_job_that_fails_does_not_stop_others() {
    let scene = streaming().await;
    scene
        .sql(&format!(
            "ALTER TABLE plain RENAME body TO text; INSERT INTO plain (id, text) VALUES (7, '{NEW_TEXT}')"
        ))
        .await;
    let failed = "SELECT string_agg(\"table\", ' ') FROM jobs WHERE init_failed_at IS NOT NULL";
    scene.wait_for(failed, "plain").await;
    scene.wait_for(PUBLISHED, "pair parts whole").await;
    for table in ["pair", "parts", "whole"] {
        scene.put_into(table, 5, DESERT).await;
        scene.wait_for_vectors(table, "body").await;
    }
    scene.wait_until_confirmed().await;
    // After the repair it embeds what it missed.
    scene
        .sql("ALTER TABLE plain RENAME text TO body; UPDATE jobs SET init_failed_at = NULL, init_failure_reason = NULL")
        .await;
    scene.wait_for_vectors("plain", "body").await;
    caught_up(&scene).await;
}
