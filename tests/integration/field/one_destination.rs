//! Two jobs on one column, by a mistake in the second INSERT or by running it twice. The second would replace all
//! vectors of the first. Hazard 45.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{
    DOCUMENTED_TABLE, Job, articles, insert_job, wait_for_backfill, wait_for_failure,
};
use testkit::vectors::wait_for_vectors;
use testkit::{TestDatabase, server};
use tokio_postgres::Client;

use crate::support::{program, start_daemon};

const ROW: &str = "INSERT INTO articles (title, body) VALUES ('a title', 'a body')";

async fn two_texts() -> (TestDatabase, Client) {
    let (database, client) = articles(server::shared()).await;
    execute(&client, ROW).await;
    execute(&client, "ALTER TABLE jobs ADD fingerprint_column TEXT").await;
    (database, client)
}

#[tokio::test]
async fn the_second_job_on_a_column_is_refused_by_the_name_of_the_first() {
    let (database, client) = two_texts().await;
    let first = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, first).await;
    let other_source = insert_job(&client, Job::on(&database, "articles", "body", "vector")).await;
    let twice = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    for job in [other_source, twice] {
        let reason = wait_for_failure(&client, job).await;
        let said = format!("job {first} writes \"public\".\"articles\".\"vector\"");
        assert!(reason.contains(&said), "{reason}");
    }
    wait_for_vectors(&client, "articles", "title", "vector").await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    wait_for_value(&client, slots, 1_i64).await;

    // Once the first is canceled, the second may have the column.
    execute(
        &client,
        &format!("UPDATE jobs SET canceled_at = true WHERE id = {first}"),
    )
    .await;
    execute(
        &client,
        &format!("UPDATE jobs SET init_failed_at = NULL WHERE id = {other_source}"),
    )
    .await;
    wait_for_vectors(&client, "articles", "body", "vector").await;
    let reason = format!("SELECT init_failure_reason FROM jobs WHERE id = {twice}");
    assert!(value::<String>(&client, &reason).await.contains("already"));
}

/// Both are there when the daemon starts: the one that was inserted first runs.
#[tokio::test]
async fn of_two_new_jobs_on_a_column_the_older_runs() {
    let (database, client) = two_texts().await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        jobs.push(insert_job(&client, Job::on(&database, "articles", "title", "vector")).await);
    }
    let _daemon = start_daemon(&database, &[]);
    wait_for_failure(&client, jobs[1]).await;
    wait_for_backfill(&client, jobs[0]).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
}

/// The same source, or the same table, is no trouble. A shared fingerprint column is.
#[tokio::test]
async fn jobs_with_columns_of_their_own_run_side_by_side() {
    let (database, client) = two_texts().await;
    let with = |destination, options| Job {
        options,
        ..Job::on(&database, "articles", "title", destination)
    };
    let mark = &[("fingerprint_column", "'mark'")];
    let jobs = [
        insert_job(&client, with("one", mark)).await,
        insert_job(&client, with("two", &[])).await,
    ];
    let shares_mark = insert_job(&client, with("three", mark)).await;
    let _daemon = start_daemon(&database, &[]);
    let reason = wait_for_failure(&client, shares_mark).await;
    assert!(
        reason.contains(&format!("job {} writes", jobs[0])),
        "{reason}"
    );
    for (job, destination) in jobs.into_iter().zip(["one", "two"]) {
        wait_for_backfill(&client, job).await;
        wait_for_vectors(&client, "articles", "title", destination).await;
    }
}

/// Two jobs tables in one database, and two ways to write one database's address.
#[tokio::test]
async fn a_job_of_another_jobs_table_or_under_another_address_is_refused_too() {
    let (database, client) = two_texts().await;
    let first = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, first).await;

    let elsewhere = Job {
        db_connection: database.uri().replace("127.0.0.1", "localhost"),
        ..Job::on(&database, "articles", "body", "vector")
    };
    let elsewhere = insert_job(&client, elsewhere).await;
    let reason = wait_for_failure(&client, elsewhere).await;
    let said =
        format!("\"public\".\"articles\".\"vector\" is written by job {first} of this jobs table");
    assert!(reason.contains(&said), "{reason}");

    let create = DOCUMENTED_TABLE.replace("TABLE jobs", "TABLE more_jobs");
    execute(&client, &create).await;
    let copy = format!(
        "INSERT INTO more_jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model) \
         SELECT db_connection, schema, \"table\", 'body', dst_column, embedding_model FROM jobs WHERE id = {first}"
    );
    execute(&client, &copy).await;
    let uri = database.uri();
    let _second = program().start_daemon(&["--uri", &uri, "--table", "more_jobs"]);
    let refused = "SELECT COALESCE(init_failure_reason LIKE '%is written by job % of another jobs table%', false) \
    FROM more_jobs";
    wait_for_value(&client, refused, true).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
}

/// A restart of the daemon, which ends the sessions that hold the locks, is no chance for the second.
#[tokio::test]
async fn the_first_job_keeps_its_column_over_a_restart() {
    let (database, client) = two_texts().await;
    let first = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let mut daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, first).await;
    daemon.kill();
    let second = insert_job(&client, Job::on(&database, "articles", "body", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_failure(&client, second).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('later')").await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
}
