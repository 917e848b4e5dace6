//! The SQL files for administrators.

use testkit::jobs::{Job, insert_job};
use testkit::paths;
use testkit::scene::{CAVES, MOON, TIDES};

use crate::support::notes_scene;

/// The role may log in and replicate, and owns nothing.
#[tokio::test]
async fn a_prepared_table_serves_a_role_that_owns_nothing() {
    let mut scene = notes_scene().await;
    scene.sql("DELETE FROM jobs").await;
    let role = format!("reader of {}", scene.database.name());
    scene.sql(&format!("CREATE ROLE \"{role}\" LOGIN REPLICATION PASSWORD 'secret'; REVOKE ALL ON SCHEMA public FROM PUBLIC")).await;
    let variables = [
        ("schema", "public"),
        ("table", "notes"),
        ("key", "id"),
        ("source", "body"),
        ("destination", "embedding"),
        ("type", &scene.database.adapted("vector(384)")),
        ("role", &role),
    ];
    let set = variables
        .map(|(name, value)| format!("\\set {name} '{value}'\n"))
        .concat();
    scene
        .database
        .psql(&(set + &paths::read("sql/prepare_publication.sql")))
        .await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let job = Job {
        db_connection: format!("postgresql://{}:secret@{place}", role.replace(' ', "%20")),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    scene.put(2, MOON).await;
    scene.sql("UPDATE notes SET id = 3 WHERE id = 1").await;
    scene.caught_up().await;
    let owned = format!(
        "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = '\"{role}\"'::regrole"
    );
    assert_eq!(scene.value(&owned).await, "0");

    // The slot is the daemon's own and goes with the job; the publication is the administrator's and stays.
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_no_slot().await;
    assert_eq!(scene.leftovers().await, "1 publications, 0 slots");
    scene.stop_daemon().await;
    scene.database.psql(&paths::read("sql/teardown.sql")).await;
    assert_eq!(scene.leftovers().await, "0 publications, 0 slots");
    scene
        .sql(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\""))
        .await;
}

/// Also after a daemon was killed; the next one starts over and loses nothing.
#[tokio::test]
async fn teardown_leaves_nothing_but_the_vectors() {
    let mut scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.kill_daemon();
    scene.database.psql(&paths::read("sql/teardown.sql")).await;
    assert_eq!(scene.leftovers().await, "0 publications, 0 slots");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    scene.put(1, CAVES).await;
    scene.database.psql(&paths::read("sql/teardown.sql")).await;
    scene.start_daemon().await;
    scene.caught_up().await;
}
