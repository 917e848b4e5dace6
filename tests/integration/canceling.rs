//! Jobs that are canceled, deleted and resumed.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_slots};
use testkit::vectors::wait_for_vectors;
use testkit::{Process, TestDatabase, server};
use tokio_postgres::Client;

use crate::support::start_daemon;

/// Two jobs on `articles`, of title and body, that stream.
async fn two_jobs() -> (TestDatabase, Client, Process, i32) {
    let (database, client) = articles(server::shared()).await;
    let row = "INSERT INTO articles (title, body) VALUES ('a title', 'a body')";
    execute(&client, row).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let other = insert_job(&client, Job::on(&database, "articles", "body", "other")).await;
    let daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    wait_for_backfill(&client, other).await;
    wait_for_slots(&client, 2).await;
    (database, client, daemon, job)
}

/// The job of the titles has ended: only the other job embeds a later insert.
async fn only_the_other_job_works(client: &Client) {
    wait_for_slots(client, 1).await;
    let insert = "INSERT INTO articles (title, body) VALUES ('a late title', 'a late body')";
    execute(client, insert).await;
    wait_for_vectors(client, "articles", "body", "other").await;
    let late = "SELECT count(vector) FROM articles WHERE title = 'a late title'";
    assert_eq!(value::<i64>(client, late).await, 0);
    let early = "SELECT count(vector) FROM articles WHERE title = 'a title'";
    assert_eq!(value::<i64>(client, early).await, 1, "vectors stay");
}

#[tokio::test]
async fn a_canceled_job_stops_and_a_resumed_job_embeds_what_it_missed() {
    let (_database, client, _daemon, job) = two_jobs().await;
    let set = async |canceled: &str| {
        let update = format!("UPDATE jobs SET canceled_at = {canceled} WHERE id = {job}");
        execute(&client, &update).await;
    };
    set("true").await;
    only_the_other_job_works(&client).await;
    execute(
        &client,
        "UPDATE articles SET title = 'changed meanwhile' WHERE id = 1",
    )
    .await;

    set("false").await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    wait_for_slots(&client, 2).await;
    execute(
        &client,
        "INSERT INTO articles (title, body) VALUES ('live again', 'as well')",
    )
    .await;
    wait_for_vectors(&client, "articles", "title", "vector").await;

    // NULL means false, too, and a quick change back and forth does no harm.
    set("true").await;
    set("NULL").await;
    execute(&client, "INSERT INTO articles (title) VALUES ('and again')").await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
}

#[tokio::test]
async fn deleting_the_row_of_a_job_cancels_it() {
    let (_database, client, _daemon, job) = two_jobs().await;
    execute(&client, &format!("DELETE FROM jobs WHERE id = {job}")).await;
    only_the_other_job_works(&client).await;
}

/// The slot is dropped first: a daemon that dies right after it leaves a publication without a slot.
#[tokio::test]
async fn a_publication_without_a_slot_is_removed_when_no_job_asks_for_it() {
    let (database, client, mut daemon, job) = two_jobs().await;
    daemon.kill();
    let slot = format!(
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND split_part(slot_name, '_', 3) = '{job}'"
    );
    let idle = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = ({slot})");
    wait_for_value(&client, &idle, true).await;
    execute(
        &client,
        &format!("SELECT pg_drop_replication_slot(({slot}))"),
    )
    .await;
    execute(&client, &format!("DELETE FROM jobs WHERE id = {job}")).await;
    let _daemon = start_daemon(&database, &[]);
    only_the_other_job_works(&client).await;
}

#[tokio::test]
async fn a_job_canceled_while_no_daemon_ran_is_cleaned_up_at_the_next_start() {
    let (database, client, mut daemon, job) = two_jobs().await;
    assert!(daemon.terminate().await.0.success());
    execute(
        &client,
        &format!("UPDATE jobs SET canceled_at = true WHERE id = {job}"),
    )
    .await;
    let _daemon = start_daemon(&database, &[]);
    only_the_other_job_works(&client).await;
}

#[tokio::test]
async fn a_timestamp_in_canceled_at_cancels() {
    for kind in ["TIMESTAMP", "TIMESTAMPTZ"] {
        let (database, client) = articles(server::shared()).await;
        let alter = format!("ALTER TABLE jobs ALTER COLUMN canceled_at TYPE {kind} USING NULL");
        execute(&client, &alter).await;
        let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
        insert_job(&client, Job::on(&database, "articles", "body", "other")).await;
        execute(
            &client,
            "UPDATE jobs SET canceled_at = now() WHERE src_column = 'body'",
        )
        .await;
        let _daemon = start_daemon(&database, &[]);
        wait_for_backfill(&client, job).await;
        wait_for_slots(&client, 1).await;
        execute(&client, "UPDATE jobs SET canceled_at = now()").await;
        wait_for_slots(&client, 0).await;
        execute(&client, "INSERT INTO articles (title) VALUES ('late')").await;
        execute(
            &client,
            "UPDATE jobs SET canceled_at = NULL WHERE src_column = 'title'",
        )
        .await;
        wait_for_vectors(&client, "articles", "title", "vector").await;
        let started =
            "SELECT count(*) FROM jobs WHERE src_column = 'body' AND init_started_at IS NOT NULL";
        assert_eq!(value::<i64>(&client, started).await, 0);
    }
}

#[tokio::test]
async fn canceling_stops_an_initial_backfill() {
    let (database, client) = articles(server::shared()).await;
    let insert = "INSERT INTO articles (title) SELECT n || repeat(' some words', 60) FROM generate_series(1, 600) n";
    execute(&client, insert).await;
    insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let column = "ALTER TABLE articles ADD COLUMN vector vector(384)";
    execute(&client, &database.adapted(column)).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_value(&client, "SELECT count(vector) > 0 FROM articles", true).await;
    execute(&client, "UPDATE jobs SET canceled_at = true").await;
    wait_for_slots(&client, 0).await;
    let left = "SELECT count(*) > 0 FROM articles WHERE vector IS NULL";
    assert!(value::<bool>(&client, left).await);
    let finished = "SELECT count(init_finished_at) FROM jobs";
    assert_eq!(value::<i64>(&client, finished).await, 0);
}
