//! Documents in a partitioned table, from the first partition to the last.

use testkit::Scene;
use testkit::wait::TIMEOUT;

use super::documents::{caught_up, text, wrong};
use super::scene::{chunk_job, chunk_scene};

/// Partitions of tens, one of which is partitioned itself.
const DOCS: &str = "CREATE TABLE docs (id int PRIMARY KEY, title text, body text) PARTITION BY RANGE (id); \
     CREATE TABLE docs_0 PARTITION OF docs FOR VALUES FROM (0) TO (10); \
     CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (10) TO (20); \
     CREATE TABLE docs_2 PARTITION OF docs FOR VALUES FROM (20) TO (40) PARTITION BY RANGE (id); \
     CREATE TABLE docs_20 PARTITION OF docs_2 FOR VALUES FROM (20) TO (30); \
     CREATE TABLE docs_30 PARTITION OF docs_2 FOR VALUES FROM (30) TO (40)";
const SHORT: (&str, &str) = ("runtime_params", r#"'{"chunk_tokens": 48}'"#);
const IDS: &str =
    "SELECT string_agg(id::text, ' ' ORDER BY id) FROM (SELECT DISTINCT id FROM docs_chunks) p";

async fn put(scene: &Scene, table: &str, id: i32) {
    scene.put_into(table, id, &text(id as u64, 4, "end")).await;
}

/// A job that follows documents in all partitions.
async fn followed(ids: &[i32]) -> Scene {
    let mut scene = chunk_scene(DOCS).await;
    for id in ids {
        put(&scene, "docs", *id).await;
    }
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    scene.start_daemon().await;
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    scene
}

#[tokio::test]
async fn documents_that_come_change_move_and_go_in_partitions_are_followed() {
    let scene = followed(&[1, 2, 11, 21, 31]).await;
    assert_eq!(scene.value(IDS).await, "1 2 11 21 31");
    // By way of the table, of a partition, and of one in between.
    for (table, id) in [("docs", 3), ("docs_1", 12), ("docs_2", 22), ("docs_30", 32)] {
        put(&scene, table, id).await;
    }
    scene
        .sql("UPDATE docs SET body = replace(body, 'end', 'changed') WHERE id IN (1, 11); UPDATE docs_30 SET body = 'Short now.' WHERE id = 31")
        .await;
    caught_up(&scene).await;
    assert_eq!(scene.value(IDS).await, "1 2 3 11 12 21 22 31 32");
    // Rows move to other partitions, one with another text, and two change places at once.
    scene
        .sql(
            "UPDATE docs SET id = 33 WHERE id = 3; UPDATE docs SET id = 4, body = body || E'\\n\\nMoved.' WHERE id = 12; \
             BEGIN; UPDATE docs SET id = 39 WHERE id = 2; UPDATE docs SET id = 2 WHERE id = 21; UPDATE docs SET id = 21 WHERE id = 39; COMMIT",
        )
        .await;
    caught_up(&scene).await;
    assert_eq!(scene.value(IDS).await, "1 2 4 11 21 22 31 32 33");
    scene.sql("DELETE FROM docs WHERE id = 11; DELETE FROM docs_20 WHERE id = 22; DELETE FROM docs_2 WHERE id = 33").await;
    caught_up(&scene).await;
    assert_eq!(scene.value(IDS).await, "1 2 4 21 31 32");
    let shown = "SELECT count(DISTINCT id) FROM docs_chunks_documents";
    assert_eq!(scene.value(shown).await, "6");
    scene
        .sql("BEGIN; TRUNCATE docs; INSERT INTO docs (id, body) VALUES (5, 'After.'); COMMIT")
        .await;
    caught_up(&scene).await;
    assert_eq!(scene.value(IDS).await, "5");
    assert_eq!(scene.failures().await, "");
}

/// The stream shows none of this: the daemon sees that files and partitions are others.
#[tokio::test]
async fn passages_go_with_what_is_truncated_detached_or_dropped_and_come_with_what_is_attached() {
    let mut scene = followed(&[1, 2, 11, 12, 21, 31]).await;
    scene.sql("TRUNCATE docs_0").await;
    scene.wait_for(IDS, "11 12 21 31").await;
    put(&scene, "docs", 3).await;
    // A part of the tree, then the other part.
    scene.wait_for_backfill().await;
    scene.sql("TRUNCATE docs_2").await;
    scene.wait_for(IDS, "3 11 12").await;
    scene.wait_for_backfill().await;
    scene.sql("ALTER TABLE docs DETACH PARTITION docs_1").await;
    scene.wait_for(IDS, "3").await;
    scene.wait_for_backfill().await;
    // It is a table of its own now.
    put(&scene, "docs_1", 13).await;
    put(&scene, "docs", 4).await;
    scene.wait_for(IDS, "3 4").await;
    caught_up(&scene).await;
    scene
        .sql("ALTER TABLE docs ATTACH PARTITION docs_1 FOR VALUES FROM (10) TO (20)")
        .await;
    scene.wait_for(IDS, "3 4 11 12 13").await;
    scene.wait_for_backfill().await;
    caught_up(&scene).await;
    scene.sql("DROP TABLE docs_0").await;
    scene.wait_for(IDS, "11 12 13").await;
    scene.wait_for_backfill().await;
    let line = "a partition of \"public\".\"docs\" was truncated";
    scene.daemon().wait_for_line(line, TIMEOUT).await;
    scene
        .sql("UPDATE docs SET body = 'Still followed.' WHERE id = 13")
        .await;
    caught_up(&scene).await;
    assert_eq!(scene.failures().await, "");
}

/// As much of it while no daemon runs, or while it cannot reach its server.
#[tokio::test]
async fn partitions_that_go_while_no_daemon_runs_take_their_passages_along_at_its_next_start() {
    for options in [&[SHORT][..], &[SHORT, ("backfill", "false")]] {
        let mut scene = chunk_scene(DOCS).await;
        chunk_job(&scene, "docs_chunks", options).await;
        scene.start_daemon().await;
        for id in [1, 2, 11, 21, 31] {
            put(&scene, "docs", id).await;
        }
        caught_up(&scene).await;
        scene.stop_daemon().await;
        scene
            .sql(
                "TRUNCATE docs_0; INSERT INTO docs (id, body) VALUES (2, 'Again.'); ALTER TABLE docs DETACH PARTITION docs_1; \
                 ALTER TABLE docs_2 DETACH PARTITION docs_20; DROP TABLE docs_20",
            )
            .await;
        scene.start_daemon().await;
        scene.wait_for(IDS, "2 31").await;
        caught_up(&scene).await;
        assert_eq!(scene.failures().await, "");
    }
}
