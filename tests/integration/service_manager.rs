//! What a service manager hears of the daemon (sd_notify(3)).

use testkit::client::{connect, execute};
use testkit::jobs::{
    Job, articles, create_documented_table, insert_job, wait_for_backfill, wait_for_failure,
};
use testkit::restartable::Stop;
use testkit::wait::TIMEOUT;
use testkit::{NotifySocket, Process, RestartableServer, TestDatabase, server};

use crate::support::{program, start_daemon};

/// The time after which the service manager would restart a daemon, in milliseconds.
const WATCHDOG: u32 = 3000;

fn start(manager: &NotifySocket, database: &TestDatabase) -> Process {
    manager.start_daemon(&program(), WATCHDOG, &["--uri", &database.uri()])
}

#[tokio::test]
async fn a_service_manager_hears_when_the_daemon_is_ready_what_it_does_and_when_it_stops() {
    let (database, client) = articles(server::shared()).await;
    let mut manager = NotifySocket::default();
    let mut daemon = start(&manager, &database);
    manager.wait_for("READY=1").await;
    manager.wait_for("STATUS=0 jobs").await;
    daemon.wait_for_line("watching", TIMEOUT).await;

    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    wait_for_backfill(&client, job).await;
    manager.wait_for("STATUS=1 job").await;
    let failing = insert_job(&client, Job::on(&database, "nowhere", "title", "vector")).await;
    wait_for_failure(&client, failing).await;
    manager.wait_for("STATUS=2 jobs, 1 failed").await;
    let cancel = "UPDATE jobs SET canceled_at = true WHERE init_failed_at IS NOT NULL";
    execute(&client, cancel).await;
    manager.wait_for_more("STATUS=1 job", 1).await;
    manager.wait_for_more("WATCHDOG=1", 2).await;

    assert_eq!(manager.count("STOPPING=1"), 0);
    let (status, _) = daemon.terminate().await;
    assert!(status.success(), "{status}");
    assert_eq!(manager.count("STOPPING=1"), 1);
    assert_eq!(manager.count("READY=1"), 1);
}

#[tokio::test]
async fn a_backlog_is_in_the_status() {
    let (database, client) = articles(server::shared()).await;
    let rows = "INSERT INTO articles (title) SELECT n || repeat(' words', 60) FROM generate_series(1, 3000) n";
    execute(&client, rows).await;
    insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let mut manager = NotifySocket::default();
    let _daemon = start(&manager, &database);
    manager.wait_for("STATUS=1 job, 1 with a backlog").await;
}

#[tokio::test]
async fn a_server_that_answers_late_or_not_at_all_is_no_reason_to_restart_the_daemon() {
    let mut jobs = RestartableServer::start(server::installation(), &[]);
    let client = connect(&jobs.uri("postgres")).await;
    create_documented_table(&client).await;
    let mut manager = NotifySocket::default();
    let uri = jobs.uri("postgres");
    let _daemon = manager.start_daemon(&program(), WATCHDOG, &["--uri", &uri]);
    manager.wait_for("STATUS=0 jobs").await;

    execute(&client, "BEGIN; LOCK TABLE jobs").await;
    manager.wait_for_more("WATCHDOG=1", 4).await;
    execute(&client, "ROLLBACK").await;

    jobs.stop(Stop::Immediate);
    let away = "STATUS=0 jobs; the jobs database does not answer";
    manager.wait_for(away).await;
    manager.wait_for_more("WATCHDOG=1", 2).await;
    jobs.start_again();
    manager.wait_for_more("STATUS=0 jobs", 1).await;
}

#[tokio::test]
async fn a_service_manager_that_is_gone_disturbs_nothing() {
    let (database, client) = articles(server::shared()).await;
    let manager = NotifySocket::default();
    let mut daemon = start(&manager, &database);
    drop(manager);
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    wait_for_backfill(&client, job).await;
    let (status, _) = daemon.terminate().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn without_a_watchdog_no_sign_of_life_is_sent() {
    let (database, client) = articles(server::shared()).await;
    let mut manager = NotifySocket::default();
    let path = manager.path();
    let socket = [("NOTIFY_SOCKET", path.to_str().expect("a readable path"))];
    let daemon = program().start_daemon_with_env(&socket, &["--uri", &database.uri()]);
    manager.wait_for("READY=1").await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    wait_for_backfill(&client, job).await;
    manager.wait_for("STATUS=1 job").await;
    assert_eq!(manager.count("WATCHDOG=1"), 0);
    drop(daemon);

    let mut alone = start_daemon(&database, &[]);
    alone.wait_for_line("watching", TIMEOUT).await;
    assert!(alone.terminate().await.0.success());
}

#[tokio::test]
async fn a_service_without_a_database_says_so_and_starts_no_private_server() {
    let manager = NotifySocket::default();
    let data_path = tempfile::tempdir().expect("a directory");
    let program = program().with_data_path(data_path.path());
    let mut daemon = manager.start_daemon(&program, WATCHDOG, &[]);
    let (status, _) = daemon.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(78));
    let said = daemon.log();
    assert!(said.contains("set --uri or LANTERN_URI"), "{said}");
    assert!(!data_path.path().join("embedded").exists());
}
