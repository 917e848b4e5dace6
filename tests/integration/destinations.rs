//! Destinations: every kind of vector column, existing and created.

use testkit::client::{execute, value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill};
use testkit::server;
use testkit::vectors::wait_for_vectors;

use crate::support::start_daemon;

#[tokio::test]
async fn vectors_go_into_every_kind_of_column() {
    let (database, client) = articles(server::shared()).await;
    if database.skips_vector() {
        return;
    }
    execute(
        &client,
        "CREATE DOMAIN embedding AS REAL[];
         ALTER TABLE articles ADD COLUMN a REAL[], ADD COLUMN b DOUBLE PRECISION[], ADD COLUMN c VECTOR(384),
           ADD COLUMN d HALFVEC(384), ADD COLUMN e VECTOR, ADD COLUMN f REAL[384] NOT NULL DEFAULT '{}', ADD COLUMN g embedding;
         ALTER TABLE articles ADD CHECK (cardinality(f) IN (0, 384)), ALTER COLUMN f DROP NOT NULL;
         INSERT INTO articles (title, f) VALUES ('existing', NULL), (NULL, NULL)",
    )
    .await;
    let destinations = ["a", "b", "c", "d", "e", "f", "g", "created"];
    let mut jobs = Vec::new();
    for destination in destinations {
        jobs.push(
            insert_job(
                &client,
                Job::on(&database, "articles", "title", destination),
            )
            .await,
        );
    }
    let _daemon = start_daemon(&database, &[]);
    for job in jobs {
        wait_for_backfill(&client, job).await;
    }
    execute(&client, "INSERT INTO articles (title) VALUES ('live'); UPDATE articles SET title = 'changed' WHERE id = 1").await;
    for destination in destinations {
        wait_for_vectors(&client, "articles", "title", destination).await;
    }
    execute(&client, "UPDATE articles SET title = NULL").await;
    for destination in destinations {
        wait_for_vectors(&client, "articles", "title", destination).await;
    }
}

#[tokio::test]
async fn without_pgvector_a_real_array_is_created() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "DROP EXTENSION IF EXISTS vector; INSERT INTO articles (title) VALUES ('a title')",
    )
    .await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    let kind = "SELECT pg_typeof(vector)::text FROM articles";
    assert_eq!(value::<String>(&client, kind).await, "real[]");
}
