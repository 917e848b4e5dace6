//! Two daemons with one jobs table: each document has one writer at a time.

use testkit::Scene;

use super::documents::{caught_up, text, wrong};
use super::scene::{DOCS, chunk_job, chunk_scene};

const SHORT: (&str, &str) = ("runtime_params", r#"'{"chunk_tokens": 40}'"#);
/// How many jobs each daemon holds, in ascending order.
const LOADS: &str = "SELECT string_agg(jobs::text, ' ' ORDER BY jobs) FROM ( \
    SELECT count(*) AS jobs FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted \
      AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs' GROUP BY l.pid) held";
/// A trigger of the users notes how often each passage was written.
const NOTED: &str = "CREATE TABLE writes (id int, seq int); \
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
      'BEGIN INSERT INTO public.writes VALUES (NEW.id, NEW.chunk_seq); RETURN NEW; END'; \
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON docs_chunks FOR EACH ROW EXECUTE FUNCTION note()";
/// The passages that were written more than once, or not at all.
const NOT_ONCE: &str = "SELECT string_agg(format('%s/%s: %s', id, seq, n), ', ') FROM ( \
    SELECT c.id, c.chunk_seq AS seq, count(w.id) AS n FROM docs_chunks c LEFT JOIN writes w ON (w.id, w.seq) = (c.id, c.chunk_seq) \
    GROUP BY 1, 2 HAVING count(w.id) <> 1) odd";

/// Two jobs on the same documents, and two daemons that have one of them each.
async fn shared() -> Scene {
    let mut scene = chunk_scene(DOCS).await;
    chunk_job(&scene, "docs_chunks", &[SHORT]).await;
    chunk_job(&scene, "docs_long", &[]).await;
    for id in 1..=4 {
        scene.put_into("docs", id, &text(id as u64, 12, "v0")).await;
    }
    scene.start_daemon().await;
    scene.spawn_daemon();
    scene.wait_for(LOADS, "1 1").await;
    scene.wait_for_backfill().await;
    scene
}

async fn write(scene: &Scene, ids: std::ops::RangeInclusive<i32>, version: &str) {
    for id in ids {
        scene
            .put_into("docs", id, &text(id as u64, 9, version))
            .await;
    }
}

/// Both tables have what the documents say.
async fn are_right(scene: &Scene) {
    caught_up(scene).await;
    let long = "SELECT count(*) FROM (SELECT id, string_agg(chunk, '' ORDER BY chunk_seq) FROM docs_long GROUP BY id) l \
                RIGHT JOIN docs d USING (id) WHERE l.id IS NULL";
    assert_eq!(scene.value(long).await, "0");
    let shown = "SELECT count(*) FROM (SELECT DISTINCT id FROM docs_long_documents) v RIGHT JOIN docs d USING (id) WHERE v.id IS NULL";
    assert_eq!(scene.value(shown).await, "0");
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn two_daemons_share_the_jobs_and_write_each_passage_once() {
    let mut scene = shared().await;
    scene.wait_until_confirmed().await;
    scene.sql(NOTED).await;
    write(&scene, 10..=25, "v1").await;
    are_right(&scene).await;
    assert_eq!(
        scene.value("SELECT count(DISTINCT id) FROM writes").await,
        "16"
    );
    let of_new = NOT_ONCE.replace("GROUP BY", "WHERE c.id >= 10 GROUP BY");
    assert_eq!(scene.value(&of_new).await, "");
    // One of them stops in good order: the other one goes on at the confirmed position, and writes nothing again.
    scene.stop_daemon().await;
    scene.wait_for(LOADS, "2").await;
    scene.wait_for_backfill().await;
    write(&scene, 26..=30, "v1").await;
    are_right(&scene).await;
    assert_eq!(scene.value(&of_new).await, "");
}

/// Documents change while a daemon dies; what it had in hand is what the other one finds.
#[tokio::test]
async fn the_other_daemon_takes_over_where_one_dies_while_documents_change() {
    let mut scene = shared().await;
    for round in 1..=3 {
        write(&scene, 1..=20, &format!("v{round}")).await;
        scene.sql("DELETE FROM docs WHERE id = 20; UPDATE docs SET id = 99 - id WHERE id = 19 AND NOT EXISTS (SELECT FROM docs WHERE id = 80)").await;
        scene.kill_daemon();
        scene.spawn_daemon();
        write(&scene, 3..=6, &format!("w{round}")).await;
        scene.wait_for(LOADS, "1 1").await;
    }
    scene.wait_for_backfill().await;
    are_right(&scene).await;
    assert_eq!(wrong(&scene, "c.chunk").await, "");
}
