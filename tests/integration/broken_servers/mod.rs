//! Target servers that break the protocol. They fail the jobs that name them, and harm nothing else: the daemon lives,
//! other jobs go on, and the lock of each job is released when the job is canceled.

pub mod fake_server;

use std::time::Duration;

use testkit::client::{connect, execute, value, wait_for_value};
use testkit::jobs::{
    Job, articles, create_documented_table, insert_job, wait_for_backfill, wait_for_failure,
};
use testkit::restartable::Stop;
use testkit::vectors::wait_for_vectors;
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Process, RestartableServer, TestDatabase, server};
use tokio_postgres::Client;

use self::fake_server::{Behavior, FakeServer, MESSAGE};
use crate::support::{LOCKS, program, start_daemon};

/// SQLSTATEs that no server should send: they have five characters of A to Z and 0 to 9.
const MALFORMED: [&[u8]; 6] = [
    b"5",
    b"",
    b"08",
    "é".as_bytes(),
    b"\xff\xfe\xfd\xfc\xfb",
    b"57P011",
];

/// One job on a real server, which streams, and one job on each of some fake servers.
struct Scene {
    // Dropped in this order.
    daemon: Process,
    client: Client,
    database: TestDatabase,
    servers: Vec<(FakeServer, i32)>,
}

impl Scene {
    async fn with(behaviors: impl IntoIterator<Item = Behavior>) -> Scene {
        let (database, client) = articles(server::shared()).await;
        let good = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
        let mut servers = Vec::new();
        for behavior in behaviors {
            let fake = FakeServer::start(behavior).await;
            let job = Job {
                db_connection: fake.uri(),
                ..Job::on(&database, "articles", "body", "other")
            };
            servers.push((fake, insert_job(&client, job).await));
        }
        let daemon = start_daemon(&database, &[]);
        wait_for_backfill(&client, good).await;
        Scene {
            daemon,
            client,
            database,
            servers,
        }
    }

    async fn cancel_jobs_on_fake_servers(&self) {
        execute(
            &self.client,
            "UPDATE jobs SET canceled_at = true WHERE src_column = 'body'",
        )
        .await;
    }

    /// Only the job on the real server holds a lock, and it works.
    async fn only_the_good_job_is_locked(&self) {
        wait_for_value(&self.client, LOCKS, 1_i64).await;
        self.the_good_job_works().await;
    }

    async fn the_good_job_works(&self) {
        let insert = "INSERT INTO articles (title, body) VALUES ('a title', 'a body')";
        execute(&self.client, insert).await;
        wait_for_vectors(&self.client, "articles", "title", "vector").await;
    }

    /// A job that was canceled can be claimed again.
    async fn a_repaired_job_runs(&self) {
        let (_, job) = self.servers.last().expect("a fake server");
        let uri = self.database.uri();
        let repair = format!(
            "UPDATE jobs SET db_connection = '{uri}', canceled_at = NULL, init_failed_at = NULL WHERE id = {job}"
        );
        execute(&self.client, &repair).await;
        wait_for_backfill(&self.client, *job).await;
        wait_for_vectors(&self.client, "articles", "body", "other").await;
    }
}

#[tokio::test]
async fn a_malformed_sqlstate_at_login_fails_the_job_and_leaves_no_lock() {
    malformed_sqlstates_fail_the_jobs(MALFORMED.map(Behavior::RefusesLogin)).await;
}

#[tokio::test]
async fn a_malformed_sqlstate_of_a_statement_fails_the_job_and_leaves_no_lock() {
    malformed_sqlstates_fail_the_jobs(MALFORMED.map(Behavior::RefusesStatements)).await;
}

async fn malformed_sqlstates_fail_the_jobs<const N: usize>(servers: [Behavior; N]) {
    let scene = Scene::with(servers).await;
    for (_, job) in &scene.servers {
        let reason = wait_for_failure(&scene.client, *job).await;
        assert!(reason.contains(MESSAGE), "{reason}");
    }
    scene.cancel_jobs_on_fake_servers().await;
    scene.only_the_good_job_is_locked().await;
    scene.a_repaired_job_runs().await;
    let log = scene.daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Nothing but the row is repaired, neither the job canceled nor the daemon restarted.
#[tokio::test]
async fn a_job_that_a_malformed_sqlstate_has_failed_runs_once_its_row_is_repaired() {
    for behavior in [
        Behavior::RefusesLogin(b"X"),
        Behavior::RefusesStatements("\u{20ac}1".as_bytes()),
    ] {
        let scene = Scene::with([behavior]).await;
        let (_, job) = &scene.servers[0];
        wait_for_failure(&scene.client, *job).await;
        let uri = scene.database.uri();
        let repair = format!("UPDATE jobs SET db_connection = '{uri}' WHERE id = {job}");
        execute(&scene.client, &repair).await;
        wait_for_backfill(&scene.client, *job).await;
        wait_for_vectors(&scene.client, "articles", "body", "other").await;
        let log = scene.daemon.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// The server of the jobs database itself.
#[tokio::test]
async fn a_malformed_sqlstate_of_the_jobs_database_ends_no_daemon() {
    for code in MALFORMED {
        let fake = FakeServer::start(Behavior::RefusesLogin(code)).await;
        let mut daemon = program().start_daemon(&["--uri", &fake.uri()]);
        let (status, _) = daemon.wait(TIMEOUT).await;
        let log = daemon.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(MESSAGE) && !log.contains("panicked"), "{log}");
    }

    let settings = [("wal_level", "logical")];
    let mut server = RestartableServer::start(server::installation(), &settings);
    let uri = server.uri("postgres");
    let client = connect(&uri).await;
    create_documented_table(&client).await;
    drop(client);
    let uri_without_tls = format!("{uri}?sslmode=disable");
    let mut daemon = program().start_daemon(&["--uri", &uri_without_tls]);
    daemon.wait_for_line("watching", TIMEOUT).await;
    for code in MALFORMED {
        let refusals = daemon.log().matches(MESSAGE).count();
        server.stop(Stop::Immediate);
        let fake = FakeServer::start_at(server.port(), Behavior::RefusesLogin(code)).await;
        let again = "connected to the jobs database again";
        let count = daemon.log().matches(again).count();
        wait_until("the refusal is in the log", TIMEOUT, async || {
            let log = daemon.log();
            if log.matches(MESSAGE).count() > refusals {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
        fake.stop().await;
        server.start_again();
        wait_until("the daemon is connected again", TIMEOUT, async || {
            let log = daemon.log();
            if log.matches(again).count() > count {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }
    assert!(daemon.exit_status().is_none());
}

/// Whatever is asked, in a job as well as in its teardown. What was asked is named, and the likeliest cause.
#[tokio::test]
async fn an_answer_of_another_type_fails_the_job_and_leaves_no_lock() {
    let scene = Scene::with([
        Behavior::AnswersNonsense,
        Behavior::AnswersNonsenseAfterTheVersion,
    ])
    .await;
    let asked = ["cannot connect to", "checking the target server failed"];
    for ((_, job), asked) in scene.servers.iter().zip(asked) {
        let reason = wait_for_failure(&scene.client, *job).await;
        for part in [asked, "is the server PostgreSQL?"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
    }
    scene.cancel_jobs_on_fake_servers().await;
    scene.only_the_good_job_is_locked().await;
    scene.a_repaired_job_runs().await;
    let log = scene.daemon.log();
    assert!(
        !log.contains("panicked") && !log.contains("bug in lantern-cli"),
        "{log}"
    );
}

/// The server of `--uri`, and of the commands.
#[tokio::test]
async fn a_jobs_database_that_answers_another_type_is_told_from_postgresql() {
    for behavior in [
        Behavior::AnswersNonsense,
        Behavior::AnswersNonsenseAfterTheVersion,
    ] {
        let fake = FakeServer::start(behavior).await;
        let uri = fake.uri();
        for arguments in [
            &["start-daemon", "--uri", &uri][..],
            &["verify", "--uri", &uri, "--job", "1"],
            &["search", "--uri", &uri, "--job", "1", "tides"],
        ] {
            let output = program().run(arguments).await;
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{errors}");
            assert!(errors.contains("is the server PostgreSQL?"), "{errors}");
            assert!(!errors.contains("panicked"), "{errors}");
        }
    }
}

/// A server that does not answer may be back in a moment. The job retries, and so does the teardown: the lock is held
/// until the slot is gone.
#[tokio::test]
async fn a_server_that_does_not_answer_is_retried_and_holds_up_nothing_else() {
    let behaviors = [Behavior::Hangs, Behavior::IsSilent, Behavior::FallsSilent];
    let mut scene = Scene::with(behaviors).await;
    let retrying = "retrying in";
    let patience = Duration::from_secs(60);
    scene.daemon.wait_for_line(retrying, patience).await;
    scene.the_good_job_works().await;
    let failed = "SELECT count(*) FROM jobs WHERE init_failed_at IS NOT NULL";
    assert_eq!(value::<i64>(&scene.client, failed).await, 0);

    // They have never run, so there is nothing to clean up.
    scene.cancel_jobs_on_fake_servers().await;
    scene.only_the_good_job_is_locked().await;
    assert!(!scene.daemon.log().contains("clean up"));
    let (status, took) = scene.daemon.terminate().await;
    assert!(
        status.success() && took < Duration::from_secs(10),
        "{status} after {took:?}"
    );
}
