//! Databases are copied, for staging or for a test, and the jobs table with them. Then two daemons have the same jobs.
//! Hazard 37.

use testkit::client::{connect, execute, value, wait_for_value};
use testkit::jobs::{
    Job, create_documented_table, insert_job, wait_for_backfill, wait_for_failure,
};
use testkit::psql::psql;
use testkit::restartable::RestartableServer;
use testkit::server::client_program;
use testkit::wait::TIMEOUT;
use testkit::{Process, TestDatabase, server};
use tokio_postgres::Client;

use crate::support::{program, start_daemon};

const ARTICLES: &str = "CREATE TABLE articles (id SERIAL PRIMARY KEY, title TEXT, embedding REAL[]); \
                        INSERT INTO articles (title) VALUES ('a title')";

const WALSENDER: &str = "SELECT active_pid FROM pg_replication_slots WHERE active_pid IS NOT NULL";

fn daemon_on(uri: &str) -> Process {
    program().start_daemon(&["--uri", uri])
}

fn own_server() -> RestartableServer {
    RestartableServer::start(server::installation(), &[("wal_level", "logical")])
}

/// A jobs table with the columns for interruptions.
async fn jobs_table(uri: &str) -> Client {
    let client = connect(uri).await;
    create_documented_table(&client).await;
    execute(&client, "ALTER TABLE jobs ADD last_error TEXT").await;
    client
}

async fn stands_back(copy: &Client, daemon: &Process) {
    let waits = "SELECT COALESCE(last_error LIKE '%copy a database of its own%' AND init_failed_at IS NULL, false) \
    FROM jobs";
    wait_for_value(copy, waits, true).await;
    daemon.wait_for_line("waiting: ", TIMEOUT).await;
}

/// The vectors of the original follow its texts, by the same walsender.
async fn works(original: &Client, walsender: i32) {
    let insert = "INSERT INTO articles (title) VALUES ('another title')";
    execute(original, insert).await;
    let missing = "SELECT count(*) FROM articles WHERE embedding IS NULL";
    wait_for_value(original, missing, 0_i64).await;
    assert_eq!(value::<i32>(original, WALSENDER).await, walsender);
}

/// A clone of the server (dimagi/commcare-connect PR #1388: a snapshot carries replication objects). Its rows still
/// name the original.
#[tokio::test]
async fn the_daemon_of_a_cloned_server_leaves_the_original_alone() {
    let original = own_server();
    let uri = original.uri("postgres");
    let client = jobs_table(&uri).await;
    execute(&client, ARTICLES).await;
    let job = insert_job(
        &client,
        Job::at(uri.clone(), "articles", "title", "embedding"),
    )
    .await;
    let _production = daemon_on(&uri);
    wait_for_backfill(&client, job).await;
    wait_for_value(
        &client,
        "SELECT count(*) FROM pg_replication_slots WHERE active",
        1_i64,
    )
    .await;
    let walsender = value::<i32>(&client, WALSENDER).await;

    let copy = original.copy();
    let copied = connect(&copy.uri("postgres")).await;
    let staging = daemon_on(&copy.uri("postgres"));
    stands_back(&copied, &staging).await;
    works(&client, walsender).await;

    // Neither canceling nor deleting the job in the copy takes anything from the original.
    execute(&copied, "UPDATE jobs SET canceled_at = true").await;
    staging.wait_for_line("not cleaned up: ", TIMEOUT).await;
    works(&client, walsender).await;
    execute(&copied, "UPDATE jobs SET canceled_at = NULL").await;
    stands_back(&copied, &staging).await;
    execute(&copied, "DELETE FROM jobs").await;
    drop(staging);
    // The daemon searches for slots of deleted jobs when it starts.
    let staging = daemon_on(&copy.uri("postgres"));
    staging.wait_for_line("watching", TIMEOUT).await;
    works(&client, walsender).await;

    // The remedy: a database of its own.
    let own = Job::at(copy.uri("postgres"), "articles", "title", "embedding");
    let own = insert_job(&copied, own).await;
    execute(
        &copied,
        "INSERT INTO articles (title) VALUES ('of the copy')",
    )
    .await;
    wait_for_backfill(&copied, own).await;
    wait_for_value(
        &copied,
        "SELECT count(*) FROM articles WHERE embedding IS NULL",
        0_i64,
    )
    .await;
    works(&client, walsender).await;
    assert_eq!(
        value::<i64>(&client, "SELECT count(*) FROM pg_publication").await,
        1
    );
}

/// The original comes first also where the daemon of the copy was there before it.
#[tokio::test]
async fn the_original_takes_its_job_back_from_a_copy() {
    let original = own_server();
    let uri = original.uri("postgres");
    let client = jobs_table(&uri).await;
    execute(&client, ARTICLES).await;
    insert_job(
        &client,
        Job::at(uri.clone(), "articles", "title", "embedding"),
    )
    .await;
    let copy = original.copy();
    let copied = connect(&copy.uri("postgres")).await;
    let staging = daemon_on(&copy.uri("postgres"));
    // There is no slot yet, so nothing tells that this job is also the original's.
    wait_for_value(
        &client,
        "SELECT count(*) FROM pg_replication_slots WHERE active",
        1_i64,
    )
    .await;
    let _production = daemon_on(&uri);
    stands_back(&copied, &staging).await;
    wait_for_value(
        &client,
        "SELECT count(*) FROM pg_replication_slots WHERE active",
        1_i64,
    )
    .await;
    let walsender = value::<i32>(&client, WALSENDER).await;
    works(&client, walsender).await;
}

/// Only the server of the jobs table was cloned; the target is a third one.
#[tokio::test]
async fn the_daemon_of_a_cloned_jobs_server_leaves_the_targets_of_the_original_alone() {
    let target = TestDatabase::create(server::shared()).await;
    let articles = target.client().await;
    execute(&articles, ARTICLES).await;
    let original = own_server();
    let uri = original.uri("postgres");
    let client = jobs_table(&uri).await;
    let job = insert_job(&client, Job::on(&target, "articles", "title", "embedding")).await;
    let _production = daemon_on(&uri);
    wait_for_backfill(&client, job).await;
    let walsender = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database() AND active_pid \
    IS NOT NULL";
    wait_for_value(
        &articles,
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active",
        1_i64,
    )
    .await;
    let before = value::<i32>(&articles, walsender).await;

    let copy = original.copy();
    let copied = connect(&copy.uri("postgres")).await;
    let staging = daemon_on(&copy.uri("postgres"));
    stands_back(&copied, &staging).await;
    execute(&copied, "UPDATE jobs SET canceled_at = true").await;
    staging.wait_for_line("not cleaned up: ", TIMEOUT).await;
    execute(
        &articles,
        "INSERT INTO articles (title) VALUES ('another title')",
    )
    .await;
    let missing = "SELECT count(*) FROM articles WHERE embedding IS NULL";
    wait_for_value(&articles, missing, 0_i64).await;
    assert_eq!(value::<i32>(&articles, walsender).await, before);
}

/// `pg_dump shop | psql shop2`: the jobs of the copy name the original.
#[tokio::test]
async fn the_jobs_of_a_restored_dump_are_refused_while_the_original_runs() {
    let shop = TestDatabase::create(server::shared()).await;
    let client = jobs_table(&shop.uri()).await;
    execute(&client, ARTICLES).await;
    let job = insert_job(&client, Job::on(&shop, "articles", "title", "embedding")).await;
    let _daemon = start_daemon(&shop, &[]);
    wait_for_backfill(&client, job).await;
    let active =
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
    wait_for_value(&client, active, 1_i64).await;

    let copy = TestDatabase::create(server::shared()).await;
    let dump = tokio::process::Command::new(client_program(server::shared(), "pg_dump"))
        .args(["--no-publications", "--no-owner", "--dbname", &shop.uri()])
        .output()
        .await
        .expect("pg_dump starts");
    assert!(dump.status.success(), "{dump:?}");
    let dump = String::from_utf8(dump.stdout).expect("SQL");
    // Older servers do not know this setting.
    let dump = dump.replace("SET transaction_timeout = 0;", "");
    psql(server::shared(), copy.name(), &dump).await;
    let copied = copy.client().await;
    let _staging = start_daemon(&copy, &[]);
    let reason = wait_for_failure(&copied, job).await;
    for part in [
        "\"public\".\"articles\".\"embedding\" is written by",
        &format!("job {job} of another jobs table"),
        "let db_connection name the copy's own database",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    wait_for_value(&client, slots, 1_i64).await;

    // The remedy works.
    let uri = copy.uri();
    let own = format!("UPDATE jobs SET db_connection = '{uri}'");
    execute(&copied, &own).await;
    execute(
        &copied,
        "INSERT INTO articles (title) VALUES ('of the copy')",
    )
    .await;
    wait_for_value(
        &copied,
        "SELECT count(*) FROM articles WHERE embedding IS NULL",
        0_i64,
    )
    .await;
    assert_eq!(value::<i64>(&client, active).await, 1);
}
