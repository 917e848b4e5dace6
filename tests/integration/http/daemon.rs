//! `start-daemon --listen`, as an operator and as Prometheus meet it.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use testkit::client::execute;
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_failure};
use testkit::procfs::command_line;
use testkit::restartable::Stop;
use testkit::scene::{CAVES, MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Process, RestartableServer, Scene, TestDatabase, server};

use super::metrics::parse;
use super::requests::{Answer, get};
use crate::support::{notes_scene, program, start_daemon};

const TOKEN: &str = "an-operator-wrote-this-token";

/// Where a daemon listens, as its log says.
pub async fn address_of(daemon: &Process) -> SocketAddr {
    let line = daemon
        .wait_for_line("status page and metrics at http://", TIMEOUT)
        .await;
    let (_, rest) = line.split_once("http://").expect("an address");
    let (address, _) = rest.split_once('/').expect("a path");
    address.parse().expect("an address with its port")
}

/// Waits until a daemon shows its jobs.
pub async fn wait_for_state(address: SocketAddr) {
    wait_for_answer(address, "/metrics", &[], |answer| answer.status == 200).await;
}

async fn wait_for_answer(
    address: SocketAddr,
    path: &str,
    headers: &[&str],
    is_it: impl Fn(&Answer) -> bool,
) -> Answer {
    wait_until(path, TIMEOUT, async || {
        let answer = get(address, path, headers);
        if is_it(&answer) {
            Ok(answer)
        } else {
            Err(answer)
        }
    })
    .await
}

/// Waits until a sample of `/metrics` has this value.
async fn wait_for_sample(address: SocketAddr, name: &str, value: f64) {
    let has = |answer: &Answer| parse(&answer.body).get(name) == Some(&value);
    wait_for_answer(address, "/metrics", &[], has).await;
}

/// Runs a daemon that cannot start; returns what it says.
async fn refusal(
    database: &TestDatabase,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> String {
    let uri = database.uri();
    let mut program = program();
    for (name, value) in variables {
        program = program.with_env(name, value);
    }
    let output = program
        .run(&[&["start-daemon", "--uri", &uri], arguments].concat())
        .await;
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("it prints UTF-8")
}

#[tokio::test]
async fn metrics_follow_the_jobs() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON]).await;
    let daemon = scene.spawn_daemon_with(&["--listen", "127.0.0.1:0"]);
    let address = address_of(daemon).await;
    wait_for_state(address).await;
    let job = "{job_id=\"1\",table=\"public.notes\"}";
    let written = format!("lantern_job_rows_written_total{job}");
    wait_for_sample(address, &written, 2.0).await;
    scene.put(3, CAVES).await;
    wait_for_sample(address, &written, 3.0).await;
    let streaming = "lantern_job_state{job_id=\"1\",table=\"public.notes\",state=\"streaming\"}";
    wait_for_sample(address, streaming, 1.0).await;
    let samples = parse(&get(address, "/metrics", &[]).body);
    for counter in [
        "texts",
        "tokens",
        "batches",
        "write_backs",
        "inference_seconds",
        "write_back_seconds",
    ] {
        let value = samples.get(&format!("lantern_job_{counter}_total{job}"));
        assert!(
            value.is_some_and(|value| *value > 0.0),
            "{counter}: {value:?}"
        );
    }
    assert_eq!(samples.get("lantern_running_jobs"), Some(&1.0));
    assert_eq!(get(address, "/readyz", &[]).body, "ready: 1 job at work\n");

    scene
        .sql("ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id <> 9)")
        .await;
    scene.put(9, TIDES).await;
    wait_for_sample(address, &format!("lantern_job_quarantined_rows{job}"), 1.0).await;

    scene.stop_daemon().await;
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "it ends with the daemon"
    );
}

#[tokio::test]
async fn an_odd_table_has_metrics_and_a_failed_one_is_not_ready() {
    let (database, client) = articles(server::shared()).await;
    let odd = "we\"ird\\ {table=\"x\"}\n表";
    let quoted = format!("\"{}\"", odd.replace('"', "\"\""));
    execute(
        &client,
        &format!("CREATE TABLE {quoted} (id int PRIMARY KEY, body text)"),
    )
    .await;
    let job = insert_job(&client, Job::on(&database, odd, "body", "embedding")).await;
    let missing = insert_job(&client, Job::on(&database, "missing", "body", "embedding")).await;
    let daemon = start_daemon(&database, &["--listen", "127.0.0.1:0"]);
    let address = address_of(&daemon).await;
    wait_for_backfill(&client, job).await;
    let reason = wait_for_failure(&client, missing).await;
    let escaped = odd
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let label = format!("job_id=\"{job}\",table=\"public.{escaped}\"");
    wait_for_sample(
        address,
        &format!("lantern_job_state{{{label},state=\"streaming\"}}"),
        1.0,
    )
    .await;

    let not_ready = |answer: &Answer| answer.body.starts_with("not ready: 1 job at work, 1 not\n");
    let answer = wait_for_answer(address, "/readyz", &[], not_ready).await;
    let line = format!("job {missing} (public.missing) has failed: ");
    assert!(
        answer.body.contains(&line) && reason.contains("missing"),
        "{}",
        answer.body
    );
    assert_eq!(answer.status, 503);
    assert_eq!(get(address, "/healthz", &[]).status, 200);
}

/// The daemon works on while its jobs database is away: nothing may restart it for that.
#[tokio::test]
async fn it_is_alive_while_the_jobs_database_is_away() {
    let mut jobs = RestartableServer::start(server::installation(), &[]);
    let database = TestDatabase::create(server::shared()).await;
    let client = testkit::client::connect(&jobs.uri("postgres")).await;
    testkit::jobs::create_documented_table(&client).await;
    let target = database.client().await;
    execute(
        &target,
        "CREATE TABLE notes (id int PRIMARY KEY, body text)",
    )
    .await;
    let job = insert_job(&client, Job::on(&database, "notes", "body", "embedding")).await;
    let uri = jobs.uri("postgres");
    let daemon = program().start_daemon(&["--uri", &uri, "--listen", "127.0.0.1:0"]);
    let address = address_of(&daemon).await;
    wait_for_backfill(&client, job).await;
    wait_for_sample(address, "lantern_jobs_database_up", 1.0).await;
    jobs.stop(Stop::Immediate);
    wait_for_sample(address, "lantern_jobs_database_up", 0.0).await;
    assert_eq!(get(address, "/healthz", &[]).status, 200);
    assert_eq!(get(address, "/readyz", &[]).body, "ready: 1 job at work\n");
}

#[tokio::test]
async fn a_port_in_use_and_an_open_one_are_refused_at_the_start() {
    let database = TestDatabase::create(server::shared()).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (address, taken)).unwrap();
    let said = refusal(&database, &["--listen", &taken.0.to_string()], &[]).await;
    assert!(
        said.contains(&format!("cannot listen on {}", taken.0)),
        "{said}"
    );
    assert!(said.contains("choose another one with --listen"), "{said}");

    let said = refusal(&database, &["--listen", "0.0.0.0:0"], &[]).await;
    assert!(
        said.contains("--listen-token-file") && said.contains("--listen-without-token"),
        "{said}"
    );
    let said = refusal(
        &database,
        &["--listen", "192.0.2.1:9187", "--listen-without-token"],
        &[],
    )
    .await;
    assert!(said.contains("this machine has no such address"), "{said}");
    let said = refusal(&database, &["--listen", "9187"], &[]).await;
    assert!(said.contains("such as 127.0.0.1:9187"), "{said}");
}

#[tokio::test]
async fn a_token_that_cannot_be_used_is_refused_and_not_printed() {
    let database = TestDatabase::create(server::shared()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let path = file.to_str().unwrap().to_owned();
    let with_file = ["--listen", "127.0.0.1:0", "--listen-token-file", &path];
    let said = refusal(&database, &with_file, &[]).await;
    assert!(
        said.contains(&path) && said.contains("No such file"),
        "{said}"
    );
    for (text, expected) in [
        ("", "the token has 0 characters"),
        (
            "sh0rt",
            "the token has 5 characters and needs at least 16; make one with: openssl rand",
        ),
        (
            "sh0rt two words of it",
            "a character that is none of ASCII's visible ones",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let said = refusal(&database, &with_file, &[]).await;
        assert!(said.contains(expected) && !said.contains("sh0rt"), "{said}");
        let variable = [("LANTERN_LISTEN_TOKEN", text)];
        let said = refusal(&database, &["--listen", "127.0.0.1:0"], &variable).await;
        assert!(
            said.contains("LANTERN_LISTEN_TOKEN") && said.contains(expected),
            "{said}"
        );
        assert!(!said.contains("sh0rt"), "{said}");
    }
    fs::write(&file, TOKEN).unwrap();
    let said = refusal(&database, &with_file, &[("LANTERN_LISTEN_TOKEN", TOKEN)]).await;
    assert!(
        said.contains("use one of them") && !said.contains(TOKEN),
        "{said}"
    );
}

#[tokio::test]
async fn a_token_opens_the_port_and_stays_secret() {
    let mut scene: Scene = notes_scene().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap().to_owned();
    let arguments = [
        "--listen",
        "0.0.0.0:0",
        "--listen-token-file",
        &path,
        "--log-level",
        "trace",
    ];
    let daemon = scene.spawn_daemon_with(&arguments);
    let port = address_of(daemon).await.port();
    let address = ([127, 0, 0, 1], port).into();
    daemon
        .wait_for_line("every user of this machine can read the token", TIMEOUT)
        .await;
    let authorization = format!("Authorization: Bearer {TOKEN}");
    let admitted = |answer: &Answer| answer.status == 200;
    wait_for_answer(address, "/metrics", &[&authorization], admitted).await;
    assert_eq!(get(address, "/metrics", &[]).status, 401);
    assert!(!daemon.log().contains(TOKEN));
    assert!(!command_line(daemon.id()).contains(TOKEN));
}
