//! Runs that end early, and the runs after them.

use nix::sys::signal::Signal;
use testkit::scene::{DESERT, TIDES};
use testkit::wait::TIMEOUT;

use super::{NOTES, Scene, embed, scene_with, spawn, wait_until_blocked};

/// Holds up the first write-back.
const HELD: &str = "SELECT pg_advisory_lock(1)";
/// Lets it go on.
const RELEASED: &str = "SELECT pg_advisory_unlock(1)";

/// More than what a scan has under way at a time.
const MANY: usize = 5000;

/// Many rows with two texts, and a destination.
async fn many_notes() -> Scene {
    let scene = scene_with(NOTES).await;
    scene
        .sql(
            "ALTER TABLE notes ADD COLUMN embedding vector(384); \
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END'; \
             CREATE TRIGGER waits BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        .await;
    let insert = format!(
        "INSERT INTO notes (id, body) SELECT n, CASE WHEN n % 2 = 0 THEN $1 ELSE $2 END FROM generate_series(1, {MANY}) n"
    );
    scene.execute(&insert, &[&TIDES, &DESERT]).await;
    scene
}

async fn count_vectors(scene: &Scene) -> usize {
    let count = "SELECT count(*) FROM notes WHERE embedding IS NOT NULL";
    scene.value(count).await.parse().expect("a number")
}

#[tokio::test]
async fn ctrl_c_finishes_what_is_under_way_and_says_how_to_go_on() {
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let scene = many_notes().await;
        let held = scene.session(HELD).await;
        let mut command = spawn(&scene, &[]);
        wait_until_blocked(&scene).await;
        command.signal(signal);
        command
            .wait_for_line("stopping: the rows under way are finished first", TIMEOUT)
            .await;
        held.batch_execute(RELEASED).await.expect("it ends");
        let (ended, _) = command.wait(TIMEOUT).await;
        assert_eq!(ended.code(), Some(status), "{}", command.log());
        let said = "stopped before the end; run the same command again: it goes on";
        assert!(command.log().contains(said), "{}", command.log());
        let done = count_vectors(&scene).await;
        assert!(0 < done && done < MANY, "{done}");

        let printed = embed(&scene, &[]).await.succeeded();
        let left = format!("{} rows done", MANY - done);
        assert!(printed.contains(&left), "{left}: {printed}");
        assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_command_at_once() {
    let scene = many_notes().await;
    let _held = scene.session(HELD).await;
    let mut command = spawn(&scene, &[]);
    wait_until_blocked(&scene).await;
    command.signal(Signal::SIGINT);
    command.wait_for_line("stopping: ", TIMEOUT).await;
    command.signal(Signal::SIGINT);
    let (ended, _) = command.wait(TIMEOUT).await;
    assert_eq!(ended.code(), Some(130));
}

#[tokio::test]
async fn a_killed_command_goes_on_where_it_was() {
    let scene = many_notes().await;
    let mut command = spawn(&scene, &["--batch-size", "50"]);
    let begun = "SELECT count(*) > 0 FROM notes WHERE embedding IS NOT NULL";
    scene.wait_for(begun, "true").await;
    let held = scene.session(HELD).await;
    wait_until_blocked(&scene).await;
    command.kill();
    held.batch_execute(RELEASED).await.expect("it ends");
    // What was sent before the end may be written yet.
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lantern-cli: embed-table' \
                    AND datname = current_database()";
    scene.wait_for(sessions, "0").await;
    let done = count_vectors(&scene).await;
    assert!(0 < done && done < MANY, "{done}");
    let printed = embed(&scene, &[]).await.succeeded();
    let left = format!("{} rows done", MANY - done);
    assert!(printed.contains(&left), "{left}: {printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}
