//! Restarts: changes made in the meantime are embedded, and nothing is embedded twice.

use nix::sys::signal::Signal;
use testkit::client::{connect, execute, value, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_slots};
use testkit::restartable::Stop;
use testkit::vectors::wait_for_vectors;
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{RestartableServer, server};

use crate::support::start_daemon;

#[tokio::test]
async fn rows_added_and_updated_while_the_daemon_was_away_get_their_vectors() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "INSERT INTO articles (title) SELECT 'article ' || n FROM generate_series(1, 20) n",
    )
    .await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let mut daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;

    for (round, signal) in [Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        let untouched = "SELECT xmin::text FROM articles WHERE id = 20";
        let version: String = value(&client, untouched).await;
        daemon.signal(signal);
        let (status, _) = daemon.wait(TIMEOUT).await;
        assert_eq!(status.success(), signal == Signal::SIGTERM, "{status}");
        execute(
            &client,
            &format!(
                "INSERT INTO articles (title) VALUES ('added in round {round}'), (NULL);
                 UPDATE articles SET title = 'updated in round {round}' WHERE id IN (1, 2);
                 UPDATE articles SET title = NULL WHERE id = 3 + {round};
                 DELETE FROM articles WHERE id = 10 + {round};
                 UPDATE articles SET title = 'a text again' WHERE id = 2 + {round}"
            ),
        )
        .await;
        daemon = start_daemon(&database, &[]);
        wait_for_vectors(&client, "articles", "title", "vector").await;
        execute(&client, "INSERT INTO articles (title) VALUES ('live')").await;
        wait_for_vectors(&client, "articles", "title", "vector").await;
        assert_eq!(
            value::<String>(&client, untouched).await,
            version,
            "an unchanged row was written again"
        );
    }
}

#[tokio::test]
async fn an_unfinished_backfill_continues_after_a_restart() {
    let (database, client) = articles(server::shared()).await;
    // Long texts: there is time to stop in the middle.
    let insert = "INSERT INTO articles (title) SELECT n || repeat(' some words', 30) FROM generate_series(1, 160) n";
    execute(&client, insert).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let mut daemon = start_daemon(&database, &[]);
    let some = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'articles'::regclass AND attname = 'vector')";
    wait_for_value(&client, some, true).await;
    let some = "SELECT count(vector) > 0 FROM articles WHERE id <> 7";
    wait_for_value(&client, some, true).await;
    daemon.kill();
    let unfinished =
        "SELECT count(*) FROM jobs WHERE init_started_at IS NOT NULL AND init_finished_at IS NULL";
    assert_eq!(value::<i64>(&client, unfinished).await, 1);
    let done = "SELECT string_agg(id || ':' || xmin, ',' ORDER BY id) FROM articles WHERE vector IS NOT NULL AND id <> 7";
    let before: String = value(&client, done).await;
    execute(
        &client,
        "UPDATE articles SET title = 'changed' WHERE id = 7",
    )
    .await;

    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    let missing = "SELECT count(*) FROM articles WHERE vector IS NULL";
    wait_for_value(&client, missing, 0_i64).await;
    let sample = "(SELECT * FROM articles WHERE id % 20 = 7) sample";
    wait_for_vectors(&client, sample, "title", "vector").await;
    let after: String = value(&client, done).await;
    for row in before.split(',') {
        let again = after.split(',').any(|seen| seen == row);
        assert!(again, "the row {row} was embedded once more");
    }
}

/// A job that is changed while no daemon runs is another job at the next start: nothing of the old one stays, and the
/// new destination is filled.
#[tokio::test]
async fn a_job_changed_while_no_daemon_runs_starts_over() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "INSERT INTO articles (title) VALUES ('The moon pulls the sea'), ('Bread and butter')",
    )
    .await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let mut daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    daemon.terminate().await;
    execute(&client, "UPDATE jobs SET dst_column = 'other'").await;

    let _daemon = start_daemon(&database, &[]);
    let there = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'articles'::regclass AND attname = 'other')";
    wait_for_value(&client, there, true).await;
    wait_for_vectors(&client, "articles", "title", "other").await;
    wait_for_slots(&client, 1).await;
}

/// The target's server is away for as long as several attempts take. Each of them needs the model, which is large and
/// slow to load: it stays where it is.
#[tokio::test]
async fn the_model_stays_loaded_while_the_target_is_away() {
    let (database, client) = articles(server::shared()).await;
    let mut target = RestartableServer::start(server::installation(), &[]);
    let on_target = connect(&target.uri("postgres")).await;
    let create = "CREATE TABLE notes (id INT PRIMARY KEY, body TEXT); INSERT INTO notes VALUES (1, 'before')";
    execute(&on_target, create).await;
    let job = Job {
        db_connection: target.uri("postgres"),
        ..Job::on(&database, "notes", "body", "vector")
    };
    let job = insert_job(&client, job).await;
    let daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;

    target.stop(Stop::Fast);
    wait_until("some attempts have failed", TIMEOUT, async || {
        let failed = daemon.log().matches("retrying in").count();
        if failed >= 5 { Ok(()) } else { Err(failed) }
    })
    .await;
    target.start_again();
    let on_target = connect(&target.uri("postgres")).await;
    execute(&on_target, "INSERT INTO notes VALUES (2, 'afterwards')").await;
    wait_for_vectors(&on_target, "notes", "body", "vector").await;
    let log = daemon.log();
    assert_eq!(log.matches("model loaded").count(), 1, "{log}");
}
