//! Texts of others in the log, in the jobs and failures tables, and on the terminal: each stays on its line, acts on
//! nothing, and is short.

use lantern::shown::{MAX_CHARACTERS, is_misleading};
use serde_json::Value;
use testkit::Scene;
use testkit::jobs::{Job, insert_job, wait_for_failure};
use testkit::scene::{MOON, TIDES};
use testkit::wait::TIMEOUT;

use crate::broken_servers::fake_server::{Behavior, FakeServer};
use crate::support::{notes_scene, program, scene_with};

/// Texts that would begin a line of their own, act on a terminal, reorder a line, or hide in it.
const HOSTILE: &[&str] = &[
    "1)\n2026-01-01T00:00:00.000000Z  INFO job=9: all rows verified (",
    "a\r\nerror: forged",
    "\x1b]0;pwned\x07\x1b[2J\x1b[31mred",
    "\x08\x08\x08\x0b\x0c\x7f",
    "\u{85}next line\u{9b}31m",
    "\u{202e}desrever\u{202c} \u{2066}isolated\u{2069} \u{200e}\u{200f}\u{61c}",
    "line\u{2028}and\u{2029}paragraph",
    "pay\u{200b}pal and\u{feff} adm\u{2060}in \u{ad}",
];

/// A line has nothing in it that a reader would not see as it is.
fn assert_harmless(text: &str, what: &str) {
    for line in text.lines() {
        let mut before = None;
        let mut rest = line.chars();
        while let Some(c) = rest.next() {
            let after = rest.clone().next();
            assert!(
                !is_misleading(c, before, after),
                "{what} has {c:?}: {line:?}"
            );
            before = Some(c);
        }
    }
}

/// No line was begun by a text of others.
fn assert_lines_are_ours(log: &str) {
    assert_harmless(log, "the log");
    for line in log.lines() {
        let is_ours = line.starts_with("20") && line.contains("Z ") || line.trim().is_empty();
        assert!(is_ours, "a line of the log: {line:?}");
        assert!(!line.starts_with("2026-01-01T00:00:00"), "{line:?}");
    }
}

/// A jobs table with ids of type text, and a table with a text key.
const TEXT_KEYS: &str = "CREATE TABLE k (k text PRIMARY KEY, body text); \
                         ALTER TABLE k ADD COLUMN embedding vector(384); \
                         ALTER TABLE k ADD CONSTRAINT refuses CHECK (embedding IS NULL)";

#[tokio::test]
async fn hostile_keys_reach_log_failures_table_and_terminal_escaped() {
    let mut scene = scene_with(TEXT_KEYS).await;
    scene.job("k", "body").await;
    for (number, key) in HOSTILE.iter().enumerate() {
        // The server's message quotes the row: a long text must not fill the failures table.
        let body = format!("{} {number} {key}", MOON.repeat(200));
        let insert = "INSERT INTO k VALUES ($1, $2)";
        scene.execute(insert, &[key, &body.as_str()]).await;
    }
    scene.start_daemon().await;
    let count = HOSTILE.len().to_string();
    let failures = "SELECT count(*) FROM jobs_failures";
    scene.wait_for(failures, &count).await;
    for error in scene
        .value("SELECT string_agg(error, E'\\n') FROM jobs_failures")
        .await
        .lines()
    {
        assert_harmless(error, "the failures table");
        assert!(error.chars().count() <= MAX_CHARACTERS, "{error}");
    }
    // The key itself is what `retry-failed` finds the row by.
    let keys = "SELECT count(*) FROM jobs_failures f JOIN k ON f.key ->> 'k' = k.k";
    assert_eq!(scene.value(keys).await, count);
    assert_lines_are_ours(&scene.daemon().log());
    scene.stop_daemon().await;

    for command in ["retry-failed", "resync", "verify", "search"] {
        let output = of_command(&scene, command, &[]).await;
        assert_harmless(&output, command);
    }
    // What programs read is exact.
    scene.sql("ALTER TABLE k DROP CONSTRAINT refuses").await;
    of_command(&scene, "retry-failed", &[]).await;
    let found = of_command(&scene, "search", &["--format", "json", "--limit", "99"]).await;
    assert_harmless(&found, "search --format json");
    let found: Vec<Value> = serde_json::from_str(&found).expect("JSON");
    let mut keys: Vec<&str> = found.iter().filter_map(|row| row["k"].as_str()).collect();
    let mut expected = HOSTILE.to_vec();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

/// Standard output of a command about job 1, and standard error unless it succeeds.
async fn of_command(scene: &Scene, command: &str, arguments: &[&str]) -> String {
    let uri = scene.database.uri();
    let mut all = vec![command, "--uri", &uri, "--job", "1"];
    all.extend(arguments);
    if command == "search" {
        all.push("the moon");
    }
    let output = program().run(&all).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    let results = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => results.into_owned(),
        false => format!("{results}{errors}"),
    }
}

#[tokio::test]
async fn hostile_names_and_connection_values_reach_log_table_and_terminal_escaped() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    for text in HOSTILE {
        // NUL is the only character that no text of PostgreSQL has.
        let names = Job {
            schema: Some(text),
            embedding_model: text,
            ..Job::on(&scene.database, text, text, text)
        };
        let uri = Job {
            db_connection: format!(
                "host=127.0.0.1 port=1 user='{text}' connect_timeout=1 {text}=1"
            ),
            ..Job::on(&scene.database, "notes", "body", "other")
        };
        let model = Job {
            embedding_model: text,
            ..Job::on(&scene.database, "notes", "body", "other")
        };
        for job in [names, uri, model] {
            let id = insert_job(&scene.client, job).await;
            let reason = wait_for_failure(&scene.client, id).await;
            assert_harmless(&reason, "init_failure_reason");
            assert!(!reason.contains('\n'), "{reason:?}");
            let id = id.to_string();
            let uri = scene.database.uri();
            for command in ["verify", "resync", "retry-failed"] {
                let output = program().run(&[command, "--uri", &uri, "--job", &id]).await;
                let errors = String::from_utf8(output.stderr).expect("UTF-8");
                assert!(errors.contains("error: "), "{errors}");
                assert_harmless(&errors, command);
                assert!(
                    errors.lines().all(|line| !line.starts_with("2026")),
                    "{errors:?}"
                );
            }
        }
        let output = program()
            .run(&["verify", "--uri", &scene.database.uri(), "--job", text])
            .await;
        assert_harmless(&String::from_utf8_lossy(&output.stderr), "verify");
        let output = program().run(&["search", text]).await;
        assert_harmless(&String::from_utf8_lossy(&output.stderr), "the usage");
        let output = program().run(&["embed", "--model", text, "x"]).await;
        assert_harmless(&String::from_utf8_lossy(&output.stderr), "embed");
    }
    assert_lines_are_ours(&scene.daemon().log());
}

/// 5,000 of them are nearly as long as a message may be before the login (30,000 bytes, as in libpq).
const LONG: &str = "long ";

/// The server of a job says what it likes, and as much.
#[tokio::test]
async fn hostile_messages_of_servers_reach_log_and_table_escaped_and_short() {
    for arguments in [&[][..], &["--log-format", "json"]] {
        let mut scene = notes_scene().await;
        let daemon = scene.spawn_daemon_with(arguments);
        daemon.wait_for_line("watching", TIMEOUT).await;
        for text in HOSTILE
            .iter()
            .copied()
            .map(str::to_owned)
            .chain([LONG.repeat(5_000)])
        {
            let fake = FakeServer::start(Behavior::RefusesLoginInWords(text.clone().leak())).await;
            let job = Job {
                db_connection: fake.uri(),
                ..Job::on(&scene.database, "notes", "body", "other")
            };
            let id = insert_job(&scene.client, job).await;
            let reason = wait_for_failure(&scene.client, id).await;
            assert_harmless(&reason, "init_failure_reason");
            assert!(
                reason.chars().count() <= MAX_CHARACTERS,
                "{} characters",
                reason.len()
            );
            let log = scene.daemon().log();
            assert!(
                log.lines()
                    .all(|line| line.chars().count() < 3 * MAX_CHARACTERS)
            );
            match arguments.is_empty() {
                true => assert_lines_are_ours(&log),
                false => {
                    assert_harmless(&log, "the log");
                    for line in log.lines() {
                        serde_json::from_str::<Value>(line).expect("an object a line");
                    }
                }
            }
        }
    }
}

/// An interruption is in `last_error`.
#[tokio::test]
async fn a_hostile_interruption_is_escaped_in_the_row() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS last_error text")
        .await;
    scene.start_daemon().await;
    let fake = FakeServer::start(Behavior::StartsUpInWords(HOSTILE.concat().leak())).await;
    let job = Job {
        db_connection: fake.uri(),
        ..Job::on(&scene.database, "notes", "body", "other")
    };
    let id = insert_job(&scene.client, job).await;
    let error = format!("SELECT last_error FROM jobs WHERE id = {id} AND last_error IS NOT NULL");
    let said = testkit::wait::wait_until("last_error is written", TIMEOUT, async || {
        scene
            .client
            .query_one(&error, &[])
            .await
            .map(|row| row.get::<_, String>(0))
    });
    let said = said.await;
    assert!(said.contains("all rows verified"), "{said}");
    assert_harmless(&said, "last_error");
    assert!(!said.contains('\n'), "{said:?}");
    assert_lines_are_ours(&scene.daemon().log());
}
