//! Names with characters that have a meaning in SQL, shells, formats or connection strings.

use testkit::Scene;
use testkit::jobs::{Job, insert_job};
use testkit::scene::{CAVES, MOON, TIDES};

use crate::support::{notes_scene, scene_with};

const NAMES: &[&str] = &[
    r#""; DROP TABLE jobs; --"#,
    r"it's \ 100% $1 $$ {} {0} %s%n",
    "new\nline\tand\rreturn",
    "ünïcode 表 🦀 U&\\0041 \u{202e}thgir",
    // 63 bytes, with a character that a cut in the middle would break.
    "ééééééééééééééééééééééééééééééé!",
    r#"E'\x41' "" ''' \"#,
    " SELECT ",
    "a.b,c(d)::text/*e*/",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Schema, table, two key columns, source and destination, each with another one of the names.
struct Place {
    table: String,
    names: [&'static str; 6],
}

fn place(first: usize) -> Place {
    let names = std::array::from_fn(|number| NAMES[(first + number) % NAMES.len()]);
    let table = format!("{}.{}", quoted(names[0]), quoted(names[1]));
    Place { table, names }
}

impl Place {
    fn column(&self, number: usize) -> String {
        quoted(self.names[number])
    }

    async fn put(&self, scene: &Scene, key: &str, text: &str) {
        let upsert = format!(
            "INSERT INTO {table} ({k1}, {k2}, {source}) VALUES ($1, 7, $2) \
             ON CONFLICT ({k1}, {k2}) DO UPDATE SET {source} = $2",
            table = self.table,
            k1 = self.column(2),
            k2 = self.column(3),
            source = self.column(4),
        );
        scene.execute(&upsert, &[&key, &text]).await;
    }

    async fn wait_for_vectors(&self, scene: &Scene) {
        let wrong = format!(
            "SELECT count(*) FROM {table} n LEFT JOIN truth ON body = {source} \
             WHERE {destination} IS NULL OR NOT {destination} <-> vector < 0.001",
            table = self.table,
            source = self.column(4),
            destination = self.column(5),
        );
        scene.wait_for(&wrong, "0").await;
    }
}

#[tokio::test]
async fn vectors_are_written_into_tables_of_any_name() {
    let mut scene = scene_with("ALTER TABLE jobs ALTER id DROP DEFAULT, ALTER id TYPE text").await;
    let places: Vec<Place> = (0..NAMES.len()).map(place).collect();
    for (number, place) in places.iter().enumerate() {
        assert!(place.names.iter().all(|name| name.len() <= 63));
        scene
            .sql(&format!(
                "CREATE SCHEMA {}; CREATE TABLE {} ({} text, {} int, {} text, {} vector(384), PRIMARY KEY ({}, {}))",
                quoted(place.names[0]),
                place.table,
                place.column(2),
                place.column(3),
                place.column(4),
                place.column(5),
                place.column(2),
                place.column(3),
            ))
            .await;
        if number % 2 == 0 {
            // The others' destinations are the daemon's to create.
            continue;
        }
        scene
            .sql(&format!(
                "ALTER TABLE {} DROP COLUMN {}",
                place.table,
                place.column(5)
            ))
            .await;
    }
    // A prepared publication has such a name, too.
    let prepared = quoted(r#"lantern_prepared_"; DROP TABLE jobs; -- '\ %"#);
    scene
        .sql(&format!(
            "CREATE PUBLICATION {prepared} FOR TABLE {} WITH (publish = 'insert, update')",
            places[0].table
        ))
        .await;
    for (number, place) in places.iter().enumerate() {
        let insert = "INSERT INTO jobs (id, db_connection, schema, \"table\", src_column, dst_column, embedding_model) \
                      VALUES ($1, $2, $3, $4, $5, $6, 'sentence-transformers/all-MiniLM-L6-v2')";
        let id = format!("{} {number}", place.names[0]);
        let [schema, table, _, _, source, destination] = place.names;
        let uri = scene.database.uri();
        scene
            .execute(insert, &[&id, &uri, &schema, &table, &source, &destination])
            .await;
        for key in NAMES {
            place.put(&scene, key, TIDES).await;
        }
    }
    scene.spawn_daemon();
    let unfinished = "SELECT string_agg(COALESCE(init_failure_reason, id), '; ') FROM jobs WHERE init_finished_at IS NULL";
    scene.wait_for(unfinished, "").await;
    let published = "SELECT count(*) FROM pg_publication";
    assert_eq!(
        scene.value(published).await,
        NAMES.len().to_string(),
        "the prepared one is used"
    );
    for place in &places {
        place.wait_for_vectors(&scene).await;
        for key in NAMES {
            place.put(&scene, key, MOON).await;
        }
        place.put(&scene, r#"new '"\; -- key"#, CAVES).await;
        let moved = format!(
            "UPDATE {} SET {} = 'moved '' \\ \" ' || {} WHERE {} = $1",
            place.table,
            place.column(2),
            place.column(2),
            place.column(2)
        );
        scene.execute(&moved, &[&NAMES[0]]).await;
    }
    for place in &places {
        place.wait_for_vectors(&scene).await;
    }
    scene.wait_until_confirmed().await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_no_slot().await;
    scene.wait_for(published, "1").await;
}

/// Names that do not exist are quoted in the reason, and never executed.
#[tokio::test]
async fn names_that_do_not_exist_are_rejected() {
    let mut scene = notes_scene().await;
    scene.sql("DELETE FROM jobs").await;
    for name in NAMES
        .iter()
        .chain(&["notes\"; DROP TABLE notes; --", "x' OR true --"])
    {
        for (schema, table, source) in [
            (*name, "notes", "body"),
            ("public", *name, "body"),
            ("public", "notes", *name),
        ] {
            let job = Job {
                schema: Some(schema),
                ..Job::on(&scene.database, table, source, "embedding")
            };
            insert_job(&scene.client, job).await;
        }
    }
    scene.spawn_daemon();
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_failed_at IS NULL",
            "0",
        )
        .await;
    let unnamed = "SELECT string_agg(init_failure_reason, '; ') FROM jobs WHERE init_failure_reason NOT LIKE '%does not exist%' \
                   AND init_failure_reason NOT LIKE '%no table%' AND init_failure_reason NOT LIKE '%no column%'";
    assert_eq!(scene.value(unnamed).await, "");
    assert_eq!(scene.value("SELECT count(*) FROM notes").await, "0");
}
