//! Progress: a bar on a terminal, and lines without escape codes elsewhere.

use std::process::Command;

use testkit::terminal::Screen;
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Process, Scene, Terminal};

use crate::support::{notes_scene, program};

const ROWS: &str =
    "INSERT INTO notes (id, body) SELECT n, 'row ' || n FROM generate_series(1, 200) n";

/// A job with 200 rows that have no vector, whose daemon has stopped.
async fn behind() -> Scene {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.sql(ROWS).await;
    scene
}

async fn command(scene: &Scene, name: &str, more: &[&str]) -> Command {
    let job = scene.value("SELECT id FROM jobs").await;
    let mut command = program().command(name);
    command.args(["--uri", &scene.database.uri(), "--job", &job]);
    command.args(more).env("TERM", "xterm");
    command
}

/// Runs a command with its output on a terminal.
async fn on_a_terminal(mut command: Command) -> Screen {
    let terminal = Terminal::open();
    command.stdout(terminal.stdio()).stderr(terminal.stdio());
    let mut command = tokio::process::Command::from(command);
    let status = command.kill_on_drop(true).status().await;
    status.expect("lantern-cli starts");
    drop(command);
    terminal.close()
}

#[tokio::test]
async fn a_bar_shows_on_a_terminal_and_leaves_a_summary() {
    let scene = behind().await;
    let screen = on_a_terminal(command(&scene, "resync", &[]).await).await;
    let shown = &screen.raw;
    assert!(
        shown.contains("] resync of job 1: ") && shown.contains(" of 200 rows"),
        "{shown}"
    );
    let lines: Vec<&str> = screen.text.lines().collect();
    assert!(lines[0].starts_with("job "), "{lines:?}");
    assert!(screen.text.contains(": 200 rows in "), "{lines:?}");
    assert!(screen.text.contains("\n200 rows done"), "{lines:?}");
    assert!(!screen.text.contains('['), "{lines:?}");

    let screen = on_a_terminal(command(&scene, "verify", &["--full"]).await).await;
    assert!(screen.raw.contains(" of 200 texts"), "{}", screen.raw);
    assert!(screen.text.contains("200  texts"), "{}", screen.text);
    assert!(!screen.text.contains('['), "{}", screen.text);
}

#[tokio::test]
async fn elsewhere_there_are_no_escape_codes() {
    let scene = behind().await;
    let output = command(&scene, "resync", &[]).await.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed.contains("200 rows done"), "{printed}");
    assert!(!printed.contains(['\x1b', '\r']), "{printed}");

    let mut dumb = command(&scene, "verify", &["--full"]).await;
    dumb.env("TERM", "dumb");
    let screen = on_a_terminal(dumb).await;
    assert!(screen.text.contains("200  texts"), "{}", screen.text);
    assert!(!screen.raw.contains('\x1b'), "{}", screen.raw);
}

#[tokio::test]
async fn the_daemon_shows_a_bar_below_its_log_while_it_backfills() {
    let scene = notes_scene().await;
    scene.sql(ROWS).await;
    // No vector is written until the bar was seen.
    scene
        .sql(
            "CREATE FUNCTION let_pass() RETURNS boolean LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END'; \
             ALTER TABLE notes ADD CHECK (embedding IS NULL OR let_pass())",
        )
        .await;
    let holder = scene.session("SELECT pg_advisory_lock(1)").await;

    let terminal = Terminal::open();
    let mut daemon = program().command("start-daemon");
    daemon
        .args(["--uri", &scene.database.uri()])
        .env("TERM", "xterm");
    let mut daemon = Process::spawn_with_stderr(daemon, terminal.stdio());
    let last_line = async |has: &str| {
        wait_until(has, TIMEOUT, async || {
            let text = terminal.screen().text;
            let last = text.lines().last().unwrap_or_default();
            if last.contains(has) {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await;
    };
    last_line("backfill of job 1 (public.notes): ").await;
    last_line(" of 200 rows").await;
    drop(holder);
    scene
        .wait_for("SELECT count(*) FROM notes WHERE embedding IS NULL", "0")
        .await;
    last_line("existing rows done").await;
    let (status, _) = daemon.terminate().await;
    assert!(status.success(), "{status}");
    drop(daemon);

    let screen = terminal.close();
    assert!(!screen.text.contains("] backfill of"), "{}", screen.text);
    assert!(
        screen.text.contains(" INFO job=1: 200 existing rows done"),
        "{}",
        screen.text
    );
}
