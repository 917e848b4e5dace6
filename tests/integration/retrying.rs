//! A failed job waits for a person, and is retried after a change.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{
    Job, articles, insert_job, wait_for_backfill, wait_for_failure, wait_for_slots,
};
use testkit::vectors::wait_for_vectors;
use testkit::{Process, TestDatabase, server};
use tokio_postgres::Client;

use crate::support::start_daemon;

/// A job on a table that is not there, failed.
async fn failed_job() -> (TestDatabase, Client, Process, i32) {
    let (database, client) = articles(server::shared()).await;
    let job = insert_job(&client, Job::on(&database, "late", "title", "vector")).await;
    let daemon = start_daemon(&database, &[]);
    let reason = wait_for_failure(&client, job).await;
    assert!(reason.contains("\"public\".\"late\""), "{reason}");
    (database, client, daemon, job)
}

async fn no_failure_is_left(client: &Client) {
    let left = "SELECT count(*) FROM jobs WHERE init_failed_at IS NOT NULL OR init_failure_reason IS NOT NULL";
    assert_eq!(value::<i64>(client, left).await, 0);
}

#[tokio::test]
async fn a_failed_job_is_retried_when_its_failure_is_cleared() {
    let (database, client, mut daemon, job) = failed_job().await;
    execute(
        &client,
        "CREATE TABLE late (id INT PRIMARY KEY, title TEXT); INSERT INTO late VALUES (1, 'here now')",
    )
    .await;
    // Neither time nor a restart retries it.
    assert!(daemon.terminate().await.0.success());
    let _daemon = start_daemon(&database, &[]);
    let other = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    wait_for_backfill(&client, other).await;
    let failed = format!("SELECT init_failed_at IS NOT NULL FROM jobs WHERE id = {job}");
    assert!(value::<bool>(&client, &failed).await);
    wait_for_slots(&client, 1).await;

    execute(&client, "UPDATE jobs SET init_failed_at = NULL").await;
    wait_for_backfill(&client, job).await;
    no_failure_is_left(&client).await;
    wait_for_vectors(&client, "late", "title", "vector").await;
}

#[tokio::test]
async fn a_failed_job_is_retried_with_a_new_definition_and_may_fail_again() {
    let (database, client, daemon, job) = failed_job().await;
    let row = "INSERT INTO articles (title, body) VALUES ('a title', 'a body')";
    execute(&client, row).await;
    execute(&client, "UPDATE jobs SET \"table\" = 'later'").await;
    let said = "SELECT init_failure_reason LIKE '%\"later\"%' FROM jobs";
    wait_for_value(&client, said, true).await;
    // It was retried once: later jobs are started, and this one is not.
    for column in ["first", "second"] {
        let locks = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' \
                     AND l.objsubid = 1 AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs'";
        wait_for_value(&client, locks, 0_i64).await;
        let other = insert_job(&client, Job::on(&database, "articles", "title", column)).await;
        wait_for_backfill(&client, other).await;
        execute(&client, &format!("DELETE FROM jobs WHERE id = {other}")).await;
    }
    let log = daemon.log();
    assert_eq!(log.matches("starting public.later.").count(), 1, "{log}");

    execute(&client, "UPDATE jobs SET \"table\" = 'articles'").await;
    wait_for_backfill(&client, job).await;
    no_failure_is_left(&client).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    wait_for_slots(&client, 1).await;

    // A job that works starts over too; every row gets the vector of the new source.
    execute(&client, "UPDATE jobs SET src_column = 'body'").await;
    wait_for_vectors(&client, "articles", "body", "vector").await;
    execute(&client, "INSERT INTO articles (body) VALUES ('live')").await;
    wait_for_vectors(&client, "articles", "body", "vector").await;
    wait_for_slots(&client, 1).await;
}

#[tokio::test]
async fn a_job_that_failed_while_streaming_embeds_what_it_missed() {
    let (database, client) = articles(server::shared()).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    execute(
        &client,
        "INSERT INTO articles (title) VALUES ('one'), ('two')",
    )
    .await;
    wait_for_vectors(&client, "articles", "title", "vector").await;

    execute(
        &client,
        "ALTER TABLE articles RENAME COLUMN title TO headline",
    )
    .await;
    execute(
        &client,
        "UPDATE articles SET headline = 'changed' WHERE id = 1",
    )
    .await;
    let reason = wait_for_failure(&client, job).await;
    assert!(reason.contains("title"), "{reason}");
    wait_for_slots(&client, 0).await;
    execute(
        &client,
        "UPDATE articles SET headline = 'changed as well' WHERE id = 2;
         UPDATE jobs SET src_column = 'headline'",
    )
    .await;
    wait_for_vectors(&client, "articles", "headline", "vector").await;
}
