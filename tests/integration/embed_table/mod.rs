//! `embed-table`: a table is embedded once, on a server whose `wal_level` allows no logical replication.

mod interrupted;
mod jobs_beside;
mod options;
mod refusals;
mod rights;
mod tables;

use std::process::Output;
use std::sync::LazyLock;

use lantern::embedded::PrivatePostgres;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::{Process, Scene, server};

use crate::support::program;

/// The table of most of these tests. The column for the vectors does not exist.
const NOTES: &str =
    "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0)";

/// A server without logical replication, which these tests share.
fn without_replication() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| {
        let settings = [("wal_level", "replica"), ("max_replication_slots", "0")];
        server::start_with_room(&server::installation(), &settings)
    });
    &SERVER
}

/// A scene there, with these tables.
async fn scene_with(tables: &str) -> Scene {
    Scene::new(program(), without_replication(), tables).await
}

/// A scene there, with the table `notes` and four texts.
async fn four_notes() -> Scene {
    let scene = scene_with(NOTES).await;
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    scene
}

/// What a command has come to.
struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ran {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Everything that was printed, with the status.
    fn all(&self) -> String {
        format!("{:?}\n{}{}", self.status, self.stdout, self.stderr)
    }

    #[track_caller]
    fn succeeded(self) -> String {
        assert_eq!(self.status, Some(0), "{}", self.all());
        self.stdout
    }

    #[track_caller]
    fn failed(self) -> String {
        assert_eq!(self.status, Some(1), "{}", self.all());
        self.stderr
    }
}

/// Runs the command on the column `body` of `notes` with the column `embedding`, as the superuser.
async fn embed(scene: &Scene, more: &[&str]) -> Ran {
    let place = [
        ["--table", "notes"],
        ["--src-column", "body"],
        ["--dst-column", "embedding"],
    ];
    let place = place.iter().filter(|[option, _]| !more.contains(option));
    let place: Vec<&str> = place.flatten().copied().collect();
    embed_as(&scene.database.uri(), &[&place, more].concat()).await
}

/// Runs the command with these arguments.
async fn embed_as(uri: &str, arguments: &[&str]) -> Ran {
    let arguments = [&["embed-table", "--uri", uri], arguments].concat();
    Ran::new(program().run(&arguments).await)
}

/// Starts the command on the column `body` of `notes`, and does not wait.
fn spawn(scene: &Scene, more: &[&str]) -> Process {
    let mut command = program().command("embed-table");
    command
        .args(["--uri", &scene.database.uri(), "--table", "notes"])
        .args(["--src-column", "body", "--dst-column", "embedding"])
        .args(more);
    Process::spawn(command)
}

/// Waits until a write-back of the command waits for a lock.
async fn wait_until_blocked(scene: &Scene) {
    let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'lantern-cli: embed-table' \
                   AND wait_event_type = 'Lock' AND datname = current_database()";
    scene.wait_for(waiting, "true").await;
}

#[tokio::test]
async fn a_table_is_embedded_where_no_replication_is_possible() {
    let scene = four_notes().await;
    scene.sql("INSERT INTO notes (id) VALUES (5)").await;
    let printed = embed(&scene, &[]).await.succeeded();
    for part in [
        "public.notes.body -> embedding with sentence-transformers/all-MiniLM-L6-v2",
        "creating the column \"embedding\"",
        "4 rows done in ",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(!printed.contains("stale"), "{printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    assert_eq!(scene.leftovers().await, "0 publications, 0 slots");

    // The next run is for what has come since, and for texts that were removed.
    scene
        .sql("UPDATE notes SET body = '' WHERE id = 4; UPDATE notes SET body = 'x' WHERE id = 5")
        .await;
    scene.put(5, DESERT).await;
    let untouched = scene
        .value("SELECT xmin::text FROM notes WHERE id = 1")
        .await;
    let printed = embed(&scene, &[]).await.succeeded();
    assert!(printed.contains("2 rows done"), "{printed}");
    assert!(
        printed.contains("stale vectors cannot be told"),
        "{printed}"
    );
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    let still = scene
        .value("SELECT xmin::text FROM notes WHERE id = 1")
        .await;
    assert_eq!(still, untouched);
}

#[tokio::test]
async fn with_a_fingerprint_column_the_next_run_finds_texts_that_have_changed() {
    let scene = four_notes().await;
    let fingerprints = ["--fingerprint-column", "of text"];
    let printed = embed(&scene, &fingerprints).await.succeeded();
    assert!(
        printed.contains("creating the column \"of text\" pg_catalog.uuid"),
        "{printed}"
    );
    scene.put(2, DESERT).await;
    let printed = embed(&scene, &fingerprints).await.succeeded();
    assert!(printed.contains("1 row done"), "{printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    let printed = embed(&scene, &fingerprints).await.succeeded();
    assert!(printed.contains("0 rows done"), "{printed}");
}

#[tokio::test]
async fn a_row_that_fails_is_printed_and_the_others_are_done() {
    let scene = four_notes().await;
    scene
        .sql(
            "ALTER TABLE notes ADD COLUMN embedding vector(384); \
             ALTER TABLE notes ADD CONSTRAINT no_two CHECK (id NOT IN (2, 3) OR embedding IS NULL)",
        )
        .await;
    let ran = embed(&scene, &[]).await;
    assert!(ran.stdout.contains("4 rows done"), "{}", ran.all());
    let printed = ran.failed();
    for part in [
        "left out the row",
        "2 rows could not be embedded or written: ",
        "{\"id\":\"2\"}: ",
        "{\"id\":\"3\"}: ",
        "no_two",
        "run the same command again",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let vectors =
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM notes WHERE embedding IS NOT NULL";
    assert_eq!(scene.value(vectors).await, "1 4");
    scene.sql("ALTER TABLE notes DROP CONSTRAINT no_two").await;
    let printed = embed(&scene, &[]).await.succeeded();
    assert!(printed.contains("2 rows done"), "{printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

#[tokio::test]
async fn a_row_that_changes_while_it_is_embedded_gets_the_vector_of_its_new_text() {
    let scene = four_notes().await;
    scene
        .sql("ALTER TABLE notes ADD COLUMN embedding vector(384)")
        .await;
    // A write-back passes over locked rows, and tries them again.
    let writer = scene
        .session("BEGIN; SELECT FROM notes WHERE id < 4 FOR UPDATE")
        .await;
    let mut command = spawn(&scene, &[]);
    let written = "SELECT count(*) FROM notes WHERE embedding IS NOT NULL";
    scene.wait_for(written, "1").await;
    let change = scene.database.adapted(
        "UPDATE notes SET body = (SELECT body FROM notes WHERE id = 4) WHERE id = 1; DELETE FROM notes WHERE id = 2; \
         UPDATE notes SET body = NULL WHERE id = 3; COMMIT",
    );
    writer
        .batch_execute(&change)
        .await
        .expect("it changes rows");
    let (status, _) = command.wait(testkit::wait::TIMEOUT).await;
    assert!(status.success(), "{status}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}
