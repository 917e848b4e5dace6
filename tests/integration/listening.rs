//! Existing rows first, then every insert and update; many jobs at once.

use testkit::client::{execute, value};
use testkit::jobs::{
    Job, articles, insert_job, wait_for_backfill, wait_for_failure, wait_for_slots,
};
use testkit::server;
use testkit::vectors::wait_for_vectors;

use crate::support::start_daemon;

#[tokio::test]
async fn existing_rows_are_embedded_and_then_each_insert_and_update() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "INSERT INTO articles (title) VALUES ('one'), ('two'), (NULL), (''), ('three')",
    )
    .await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;

    for change in [
        "INSERT INTO articles (title) VALUES ('four')",
        "INSERT INTO articles (title) SELECT 'article ' || n FROM generate_series(1, 40) n",
        "UPDATE articles SET title = 'another one' WHERE id = 1",
        "UPDATE articles SET title = 'no longer empty' WHERE title IS NULL OR title = ''",
        "UPDATE articles SET title = title || ' again' WHERE id > 10",
        "UPDATE articles SET body = 'not the source'",
        "UPDATE articles SET id = id + 1000, title = 'renumbered ' || id WHERE id < 4",
        "DELETE FROM articles WHERE id = 5",
        "BEGIN; INSERT INTO articles (title) VALUES ('never there'); ROLLBACK",
        "BEGIN; UPDATE articles SET title = 'first' WHERE id = 20; UPDATE articles SET title = 'second' WHERE id = 20; COMMIT",
    ] {
        execute(&client, change).await;
        wait_for_vectors(&client, "articles", "title", "vector").await;
    }
}

#[tokio::test]
async fn jobs_that_are_added_while_others_stream_run_beside_them() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "CREATE TABLE books (isbn TEXT PRIMARY KEY, name TEXT);
         INSERT INTO articles (title, body) VALUES ('a title', 'a body');
         INSERT INTO books VALUES ('1-2-3', 'a book')",
    )
    .await;
    let _daemon = start_daemon(&database, &[]);
    let columns = [
        ("articles", "title", "title_vector"),
        ("articles", "body", "body_vector"),
        ("books", "name", "vector"),
    ];
    for (count, (table, source, destination)) in (1..).zip(columns) {
        let job = insert_job(&client, Job::on(&database, table, source, destination)).await;
        wait_for_backfill(&client, job).await;
        wait_for_slots(&client, count).await;
        execute(
            &client,
            "INSERT INTO articles (title, body) VALUES ('next title', 'next body');
             INSERT INTO books SELECT count(*)::text, 'volume ' || count(*) FROM books",
        )
        .await;
    }
    execute(
        &client,
        "UPDATE articles SET title = body, body = title WHERE id = 1",
    )
    .await;
    for (table, source, destination) in columns {
        wait_for_vectors(&client, table, source, destination).await;
    }
}

#[tokio::test]
async fn a_failing_job_does_not_affect_others() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "CREATE TABLE checked (id INT PRIMARY KEY, name TEXT, vector REAL[] CHECK (id < 100))",
    )
    .await;
    let bad = [
        Job::on(&database, "nowhere", "title", "vector"),
        Job {
            db_connection: "postgres://localhost:not-a-port/x".to_owned(),
            ..Job::on(&database, "articles", "title", "v1")
        },
        Job {
            embedding_model: "acme/no-such-model",
            ..Job::on(&database, "articles", "title", "v2")
        },
    ];
    let mut bad_ids = Vec::new();
    for job in bad {
        bad_ids.push(insert_job(&client, job).await);
    }
    let good = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let checked = insert_job(&client, Job::on(&database, "checked", "name", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    for job in [good, checked] {
        wait_for_backfill(&client, job).await;
    }
    for (id, said) in bad_ids
        .into_iter()
        .zip(["nowhere", "port", "acme/no-such-model"])
    {
        let reason = wait_for_failure(&client, id).await;
        assert!(reason.contains(said), "{said}: {reason}");
    }

    // A failure in mid-stream.
    let rename = "ALTER TABLE checked RENAME COLUMN name TO title";
    execute(&client, rename).await;
    execute(&client, "INSERT INTO checked VALUES (1, 'fine')").await;
    let reason = wait_for_failure(&client, checked).await;
    assert!(reason.contains("\"name\" (src_column)"), "{reason}");
    let insert = "INSERT INTO articles (title) VALUES ('still at work')";
    execute(&client, insert).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    wait_for_slots(&client, 1).await;
    let created = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'articles'::regclass AND attname IN ('v1', 'v2')";
    assert_eq!(value::<i64>(&client, created).await, 0);
}
