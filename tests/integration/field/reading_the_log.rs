//! What the readers of the daemon's log do: they end, pause, fill the disk, and search it for a job.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use testkit::client::{execute, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_failure};
use testkit::vectors::wait_for_vectors;
use testkit::wait::TIMEOUT;
use testkit::{Process, TestDatabase, server};
use tokio_postgres::Client;

use crate::support::program;

/// A daemon that stops takes less, whatever the reader of its log does.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A streaming job, and a daemon that logs into `stderr`.
async fn streaming(
    stderr: impl Into<Stdio>,
    arguments: &[&str],
) -> (TestDatabase, Client, Process) {
    let (database, client) = articles(server::shared()).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let mut command = program().command("start-daemon");
    command.args(["--uri", &database.uri()]).args(arguments);
    let daemon = Process::spawn_with_stderr(command, stderr);
    wait_for_backfill(&client, job).await;
    (database, client, daemon)
}

/// A job that fails has something to say.
async fn let_a_job_fail(database: &TestDatabase, client: &Client) {
    let job = Job::on(database, "no_such_table", "title", "vector");
    let job = insert_job(client, job).await;
    wait_for_failure(client, job).await;
}

async fn embeds_rows(client: &Client) {
    execute(
        client,
        "INSERT INTO articles (title) VALUES ('a title'), ('another one')",
    )
    .await;
    wait_for_vectors(client, "articles", "title", "vector").await;
}

async fn stops_at_once(daemon: &mut Process) {
    let (status, took) = daemon.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < AT_ONCE, "it took {took:?}");
}

#[tokio::test]
async fn the_daemon_goes_on_and_stops_when_the_reader_of_its_log_has_ended() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let (database, client, mut daemon) = streaming(writer, &[]).await;
    drop(reader);
    let_a_job_fail(&database, &client).await;
    embeds_rows(&client).await;
    stops_at_once(&mut daemon).await;
}

#[tokio::test]
async fn the_daemon_goes_on_and_stops_while_the_reader_of_its_log_pauses() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let room = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    let (_database, client, mut daemon) = streaming(writer, &["--log-level", "trace"]).await;
    // Each of its own transaction, so that each has much to log.
    let insert = "DO $$ BEGIN FOR n IN 1..1500 LOOP INSERT INTO articles (title) VALUES ('title ' || n % 7); COMMIT; END LOOP; END $$";
    execute(&client, insert).await;
    let missing = "SELECT count(*) FROM articles WHERE vector IS NULL";
    wait_for_value(&client, missing, 0_i64).await;
    stops_at_once(&mut daemon).await;
    // The pipe was full, so that the daemon has met the pause.
    let log = read_all(&mut reader);
    assert!(
        log.len() + 200 > room as usize,
        "{} of {room} bytes",
        log.len()
    );
}

#[tokio::test]
async fn the_daemon_goes_on_and_stops_when_the_disk_of_its_log_is_full() {
    let full = OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("a full disk");
    let (database, client, mut daemon) = streaming(full, &[]).await;
    let_a_job_fail(&database, &client).await;
    embeds_rows(&client).await;
    stops_at_once(&mut daemon).await;
}

#[tokio::test]
async fn the_last_lines_reach_a_reader_that_reads() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let reading = std::thread::spawn(move || read_all(&mut reader));
    let (_database, _client, mut daemon) = streaming(writer, &[]).await;
    stops_at_once(&mut daemon).await;
    let log = reading.join().expect("it was read");
    let last = log.lines().next_back().unwrap_or_default();
    assert!(last.contains("stopped; "), "{log}");

    // So does the reason why a daemon does not start.
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let mut command = program().command("start-daemon");
    command.args(["--uri", "postgresql://nobody@127.0.0.1:1/nothing"]);
    let mut daemon = Process::spawn_with_stderr(command, writer);
    let log = read_all(&mut reader);
    assert!(log.contains("error: cannot connect"), "{log}");
    assert_eq!(daemon.wait(TIMEOUT).await.0.code(), Some(1));
}

/// The last line is for the collector too.
#[test]
fn a_daemon_that_cannot_start_says_so_in_the_form_of_its_log() {
    let mut command = program().command("start-daemon");
    command.args([
        "--uri",
        "postgresql://nobody@127.0.0.1:1/nothing",
        "--log-format",
        "json",
    ]);
    let output = command.output().expect("it starts");
    let line: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one object");
    assert_eq!(line["level"], "ERROR");
    let message = line["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("cannot connect"), "{line}");
    let output = command
        .args(["--log-level", "off"])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("error: cannot connect"), "{said}");
}

fn read_all(reader: &mut PipeReader) -> String {
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .expect("the other end is closed");
    String::from_utf8(bytes).expect("the log is text")
}

#[tokio::test]
async fn a_job_has_one_form_in_the_log() {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let file = File::create(log.path()).expect("a file");
    let (database, client, mut daemon) = streaming(file, &["--log-level", "debug"]).await;
    let_a_job_fail(&database, &client).await;
    embeds_rows(&client).await;
    stops_at_once(&mut daemon).await;
    let text = std::fs::read_to_string(log.path()).expect("the log");
    for line in [
        "INFO job=1: starting public.articles.title",
        "INFO job=1: streaming from",
        "INFO job=1: 0 existing rows done",
        "ERROR job=2: failed: ",
        "DEBUG job=1: wrote ",
        "rows of \"public\".\"articles\"",
    ] {
        assert!(text.contains(line), "no {line}: {text}");
    }
    assert!(
        !text.contains("job{") && !text.contains("a title"),
        "{text}"
    );
}

#[test]
fn a_level_is_one_of_a_list_in_any_case() {
    let start = |level: &str, variables: &[(&str, &str)]| {
        let mut command = program().command("start-daemon");
        let uri = "postgresql://nobody@127.0.0.1:1/nothing";
        command.args(["--uri", uri]).envs(variables.iter().copied());
        if !level.is_empty() {
            command.args(["--log-level", level]);
        }
        let output = command.output().expect("it starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for level in [
        "warning",
        "WARN",
        "Info",
        "off",
        "error",
        "TRACE",
        "debug",
        "info,lantern::jobs=debug",
    ] {
        let (status, said) = start(level, &[]);
        assert!(
            status == Some(1) && said.contains("cannot connect"),
            "{level}: {said}"
        );
    }
    for level in [
        "verbose",
        "lantern",
        "0",
        "warnings",
        "info,lantern=loud",
        "lantren=debug",
    ] {
        for (level, variables) in [(level, &[][..]), ("", &[("LANTERN_LOG", level)][..])] {
            let (status, said) = start(level, variables);
            assert_eq!(status, Some(2), "{level}: {said}");
            assert!(
                said.contains("error, warn, info, debug, trace, off"),
                "{said}"
            );
        }
    }
    assert_eq!(start("", &[("LANTERN_LOG", "")]).0, Some(2));
}

/// no-color.org. `script` gives the daemon a terminal.
#[tokio::test]
async fn colors_are_for_terminals_of_users_who_want_them() {
    // The daemon warns of this file, and ends without the password.
    let passfile = tempfile::NamedTempFile::new().expect("a file");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(passfile.path(), everybody).expect("it is ours");
    let port = server::shared().port();
    let start = format!(
        "{} start-daemon --uri postgresql://postgres@127.0.0.1:{port}/postgres",
        env!("CARGO_BIN_EXE_lantern-cli")
    );
    let log = |variables: &[(&str, &str)]| {
        let mut command = Command::new("script");
        command
            .args(["-qec", &start, "/dev/null"])
            .env("PGPASSFILE", passfile.path())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied());
        let output = command.output().expect("script is part of util-linux");
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(log.contains("WARN") && log.contains("chmod 0600"), "{log}");
        log
    };
    assert!(log(&[]).contains("\x1b[33m WARN\x1b[0m"), "{}", log(&[]));
    for variables in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let log = log(&variables);
        assert!(!log.contains('\x1b'), "{variables:?}: {log}");
    }
}
