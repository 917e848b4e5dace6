//! People have tables that inherit from the one that a job follows. Their rows are not in the stream of that table.

use testkit::scene::{MOON, TIDES};
use testkit::wait::TIMEOUT;

use crate::support::{program, scene_with};

/// Hazard 41. efcore #30638, pg_textsearch PR #21.
#[tokio::test]
async fn rows_of_tables_that_inherit_are_not_followed_and_a_warning_says_so() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384)); \
                  CREATE TABLE kid (PRIMARY KEY (id)) INHERITS (notes)";
    let mut scene = scene_with(tables).await;
    scene.job("notes", "body").await;
    scene.put(1, TIDES).await;
    scene.put_into("kid", 2, MOON).await;
    scene.start_daemon().await;
    let daemon = scene.daemon();
    let warning = daemon.wait_for_line("public.kid inherits", TIMEOUT).await;
    assert!(
        warning.contains("WARN") && warning.contains("job of its own"),
        "{warning}"
    );
    scene.sql("CREATE TABLE later () INHERITS (notes)").await;
    let daemon = scene.daemon();
    daemon.wait_for_line("public.later inherits", TIMEOUT).await;

    let uri = scene.database.uri();
    let verified = program()
        .run(&["verify", "--uri", &uri, "--job", "1"])
        .await;
    let printed = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(printed.contains("public.kid inherits"), "{printed}");
    scene.wait_for_vectors("ONLY notes", "body").await;
    let shown = program().stdout_of(&["status", "--uri", &uri]).await;
    assert!(shown.contains("100%"), "{shown}");

    // The remedy.
    scene.job("kid", "body").await;
    scene.wait_for_vectors("ONLY notes", "body").await;
    scene.wait_for_vectors("ONLY kid", "body").await;
}
