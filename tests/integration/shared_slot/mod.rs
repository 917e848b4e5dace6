//! Hazard 22: one slot for all jobs of a database (`--slots database`).

mod absence;
mod beginnings;
mod crashes;
mod departures;
mod modes;
mod partitions;
mod several_daemons;

use testkit::scene::{CAVES, MOON, TIDES};
use testkit::{Process, Scene};

use crate::support::scene_with;

const SHARED: &[&str] = &["--slots", "database"];

/// Tables of every shape. `pair` has two jobs, `parts` is partitioned, `whole` has REPLICA IDENTITY FULL.
const TABLES: &str = "
    CREATE TABLE plain (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, embedding vector(384));
    CREATE TABLE pair (id int PRIMARY KEY, body text, title text, embedding vector(384), second vector(384));
    CREATE TABLE parts (id int PRIMARY KEY, body text, embedding vector(384)) PARTITION BY HASH (id);
    CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE whole (id int PRIMARY KEY, body text, embedding vector(384));
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE late (id int PRIMARY KEY, body text, embedding vector(384))";

/// The tables that every job of a scene writes in `embedding` of.
const FOLLOWED: [&str; 4] = ["plain", "pair", "parts", "whole"];

/// Five jobs on four tables, and no daemon yet.
async fn five_jobs() -> Scene {
    let scene = scene_with(TABLES).await;
    for table in FOLLOWED {
        scene.job(table, "body").await;
    }
    second_job(&scene).await;
    scene
}

/// The other job of `pair`.
async fn second_job(scene: &Scene) {
    scene
        .sql(
            "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model) \
             SELECT db_connection, schema, 'pair', 'title', 'second', embedding_model FROM jobs LIMIT 1",
        )
        .await;
}

/// Starts a daemon and waits until everything that is there has its vector and the one slot is read.
async fn start(scene: &mut Scene) {
    scene.spawn_daemon_with(SHARED);
    wait_until_ready(scene).await;
}

async fn wait_until_ready(scene: &Scene) {
    let unfinished = "SELECT count(*) FROM jobs WHERE (init_finished_at IS NULL OR init_finished_at < init_started_at \
                      OR init_failed_at IS NOT NULL) AND canceled_at IS NOT TRUE";
    scene.wait_for(unfinished, "0").await;
    scene.wait_for(SLOTS, "1 slot, 1 read").await;
}

const SLOTS: &str = "SELECT count(*) || ' slot, ' || count(*) FILTER (WHERE active) || ' read' FROM pg_replication_slots \
                     WHERE database = current_database()";

/// Writes a row into each table, new or not.
async fn put(scene: &Scene, id: i32, text: &str) {
    for table in FOLLOWED {
        scene.put_into(table, id, text).await;
    }
    let update = "UPDATE pair SET title = $2 WHERE id = $1";
    scene.execute(update, &[&id, &text]).await;
}

/// Waits until all tables have the right vectors.
async fn wait_for_all_vectors(scene: &Scene) {
    for table in FOLLOWED {
        scene.wait_for_vectors(table, "body").await;
    }
    wait_for_second_vectors(scene).await;
}

async fn wait_for_second_vectors(scene: &Scene) {
    let wrong = "SELECT count(*) FROM pair LEFT JOIN truth ON truth.body = pair.title \
                 WHERE NOT CASE WHEN pair.title IS NULL THEN pair.second IS NULL \
                   ELSE COALESCE(pair.second <-> truth.vector < 0.001, false) END";
    scene.wait_for(wrong, "0").await;
}

/// Waits until everything that has happened is confirmed, and asserts that every vector is right at that moment.
async fn caught_up(scene: &Scene) {
    scene.wait_until_confirmed().await;
    for table in FOLLOWED {
        assert_eq!(scene.wrong_vectors(table, "body").await, "", "{table}");
    }
}

/// The tables of the one publication.
const PUBLISHED: &str = "SELECT string_agg(DISTINCT r.prrelid::regclass::text, ' ' ORDER BY r.prrelid::regclass::text) \
                         FROM pg_publication_rel r";

/// A scene whose daemon streams for five jobs.
async fn streaming() -> Scene {
    let mut scene = five_jobs().await;
    put(&scene, 1, TIDES).await;
    start(&mut scene).await;
    put(&scene, 2, MOON).await;
    wait_for_all_vectors(&scene).await;
    caught_up(&scene).await;
    scene
}

fn is_end_of_scan(line: &str) -> bool {
    line.contains("existing row done") || line.contains("existing rows done")
}

/// How many backfills the daemon has finished.
fn scans(daemon: &Process) -> usize {
    let log = daemon.log();
    log.lines().filter(|line| is_end_of_scan(line)).count()
}

/// As [`scans`], of a daemon that resumes at the confirmed position. The table of the third job, `parts`, does not
/// count: its partitions may have been attached after that position.
fn scans_again(daemon: &Process) -> usize {
    let log = daemon.log();
    log.lines()
        .filter(|line| is_end_of_scan(line) && !line.contains("job=3:"))
        .count()
}

/// A text that no row has before the test begins.
const NEW_TEXT: &str = CAVES;
