//! Keys whose types come from extensions, or whose indexes compare in a way of their own.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Scene, server};

use crate::support::{program, scene_with};

/// A table `notes` with this key, and its job.
async fn keyed(preparation: &str, key: &str) -> Scene {
    let tables = format!(
        "{preparation}; CREATE TABLE notes ({key}, body text, views int NOT NULL DEFAULT 0, embedding vector(384))"
    );
    let scene = scene_with(&tables).await;
    scene.job("notes", "body").await;
    scene
}

/// A backfill of several pages, then changes of texts and keys.
async fn all_rows_get_vectors(scene: &mut Scene, rows: &str, change_key: &str) {
    let insert = format!("INSERT INTO notes SELECT {rows}");
    scene.execute(&insert, &[&TIDES]).await;
    scene.start_daemon().await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    let update = "UPDATE notes SET body = CASE views WHEN 0 THEN $1 ELSE $2 END WHERE views < 3";
    scene.execute(update, &[&MOON, &CAVES]).await;
    scene.sql(change_key).await;
    scene.caught_up().await;
    scene.kill_daemon();
    let update = "UPDATE notes SET body = $1 WHERE views = 1";
    scene.execute(update, &[&DESERT]).await;
    scene.start_daemon().await;
    scene.caught_up().await;
}

/// PostgREST 1183, twenty 24359: pages that are ordered in one way and compared in another leave rows out.
#[tokio::test]
async fn keys_of_the_type_citext_are_all_found() {
    let domain = "CREATE DOMAIN email AS citext CHECK (VALUE <> '')";
    for (preparation, key, rows) in [
        ("", "k citext PRIMARY KEY", "k"),
        (domain, "k email PRIMARY KEY", "k"),
        ("", "k citext, n int, PRIMARY KEY (k, n)", "k, n % 2"),
    ] {
        let preparation = format!("CREATE EXTENSION citext; {preparation}");
        let mut scene = keyed(&preparation, key).await;
        let rows = format!(
            "{rows}, $1, n FROM (SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'B' END || n AS k FROM generate_series(0, 1099) n) s"
        );
        let change = "UPDATE notes SET k = 'C' || views WHERE views IN (2, 3, 4)";
        all_rows_get_vectors(&mut scene, &rows, change).await;
    }
}

/// A write-back finds its row by the index of the key, whatever the type of the key is.
#[tokio::test]
async fn a_write_back_reads_one_entry_of_the_index() {
    let mut scene = keyed("CREATE EXTENSION citext", "k citext PRIMARY KEY").await;
    scene
        .execute(
            "INSERT INTO notes (k, body) SELECT 'k' || n, '' FROM generate_series(1, 5000) n",
            &[],
        )
        .await;
    scene.start_daemon().await;
    let read = "SELECT pg_stat_force_next_flush(), idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'notes_pkey'";
    if scene.database.version() < 15 {
        return;
    }
    let entries = async || {
        let row = scene.client.query_one(read, &[]).await.expect("statistics");
        row.get::<_, i64>(1)
    };
    // A session may report what it has read up to ten seconds later.
    let entries_after = async |least: i64| {
        wait_until("statistics", TIMEOUT, async || {
            let found = entries().await;
            if found >= least {
                Ok(found)
            } else {
                Err(found)
            }
        })
        .await
    };
    let before = entries_after(5000).await;
    for n in 1..=5 {
        let update = "UPDATE notes SET body = $1 WHERE k = ('K' || $2::int)::citext";
        scene.execute(update, &[&TIDES, &n]).await;
    }
    scene.caught_up().await;
    // The users' five updates and the five write-backs.
    assert!(entries_after(before + 10).await - before < 1000);
}

#[tokio::test]
async fn keys_of_types_whose_operators_are_in_a_schema_of_their_own_are_all_found() {
    for (extension, key, rows, change) in [
        (
            "ltree",
            "k extensions.ltree PRIMARY KEY",
            "('top.b' || n)::extensions.ltree",
            "UPDATE notes SET k = ('other.b' || views)::extensions.ltree WHERE views < 2",
        ),
        (
            "isn",
            "k extensions.isbn13 PRIMARY KEY",
            // With the check digit that the type asks for.
            "(SELECT (d || (10 - sum(substr(d, i, 1)::int * CASE i % 2 WHEN 1 THEN 1 ELSE 3 END) % 10) % 10)::extensions.isbn13 \
              FROM (SELECT '978' || lpad(n::text, 9, '0') AS d) x, generate_series(1, 12) i GROUP BY d)",
            "",
        ),
        (
            "hstore",
            "k extensions.hstore PRIMARY KEY",
            "extensions.hstore('n', n::text)",
            "UPDATE notes SET k = extensions.hstore('m', views::text) WHERE views < 2",
        ),
    ] {
        let preparation =
            format!("CREATE SCHEMA extensions; CREATE EXTENSION {extension} SCHEMA extensions");
        let mut scene = keyed(&preparation, key).await;
        let rows = format!("{rows}, $1, n FROM generate_series(0, 600) n");
        all_rows_get_vectors(&mut scene, &rows, change).await;
    }
}

/// The index of a key may compare in another way than its type does.
#[tokio::test]
async fn keys_are_compared_as_their_index_compares() {
    for index in [
        "(k text_pattern_ops)",
        "(k COLLATE \"C\")",
        "(k DESC)",
        "(k text_pattern_ops, n)",
        "(k COLLATE \"C\", n DESC)",
    ] {
        let mut scene = keyed("", "k text NOT NULL, n int NOT NULL DEFAULT 0").await;
        scene
            .sql(&format!(
                "CREATE UNIQUE INDEX key ON notes {index}; ALTER TABLE notes REPLICA IDENTITY USING INDEX key"
            ))
            .await;
        let rows = "CASE v % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'B' ELSE 'ä' END || v, v % 2, $1, v FROM generate_series(0, 700) v";
        let change = "UPDATE notes SET k = 'Z' || views WHERE views IN (2, 3, 4)";
        all_rows_get_vectors(&mut scene, rows, change).await;
    }
}

/// Two keys may be equal for the collation of the column and differ for its index.
#[tokio::test]
async fn keys_that_differ_for_their_index_alone_are_two_rows() {
    // The server that `make setup` fetches is built without ICU.
    let Some(server) = server::debian() else {
        return;
    };
    let tables = "CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
                  CREATE TABLE notes (k text COLLATE ignore_case NOT NULL, body text, embedding vector(384)); \
                  CREATE UNIQUE INDEX key ON notes (k COLLATE \"C\"); ALTER TABLE notes REPLICA IDENTITY USING INDEX key";
    let mut scene = Scene::new(program(), server, tables).await;
    scene.job("notes", "body").await;
    let insert = "INSERT INTO notes (k, body) VALUES ('a', $1), ('A', $2)";
    scene.execute(insert, &[&TIDES, &MOON]).await;
    scene.start_daemon().await;
    let update = "UPDATE notes SET body = $1 WHERE k COLLATE \"C\" = 'A'";
    scene.execute(update, &[&CAVES]).await;
    scene.caught_up().await;
}

#[tokio::test]
async fn keys_that_are_names_of_objects_are_refused() {
    for kind in ["regclass", "regtype", "regprocedure", "regclass[]"] {
        let mut scene = keyed("", &format!("k {kind} PRIMARY KEY")).await;
        scene.spawn_daemon();
        let reason = scene.wait_for_failure().await;
        assert!(
            reason.contains(&format!("has the type {kind}")) && reason.contains("ALTER TABLE"),
            "{reason}"
        );
    }
}

/// The stream and SQL must print such a source in the same way.
#[tokio::test]
async fn sources_that_are_names_of_objects_get_vectors() {
    let mut scene =
        scene_with("CREATE TABLE art (n int); CREATE TABLE notes (id int PRIMARY KEY, body regclass, embedding vector(384))")
            .await;
    scene.job("notes", "body").await;
    scene.sql("INSERT INTO notes VALUES (1, 'art')").await;
    scene.start_daemon().await;
    scene
        .sql("INSERT INTO notes VALUES (2, 'notes'), (3, 'pg_class')")
        .await;
    scene.wait_until_confirmed().await;
    let missing = "SELECT count(*) FROM notes WHERE embedding IS NULL";
    assert_eq!(scene.value(missing).await, "0");
}
