//! Thousands of rows, written during their initial backfill.

use std::collections::HashMap;

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill};
use testkit::server;
use testkit::vectors::cosine;

use crate::support::{program, start_daemon};

/// A short text with a number in words of its own, so that many rows share a text and others differ.
const TEXT: &str = "(ARRAY['red', 'green', 'blue', 'old', 'new', 'warm', 'cold'])[1 + n % 7] || ' ' ||
     (ARRAY['house', 'river', 'bridge', 'song', 'engine'])[1 + n % 5] || CASE WHEN n % 3 = 0 THEN ' ' || n % 200 ELSE '' END";

/// Each text with the vector of one row of it, and how far from that the vectors of its other rows are.
const BY_TEXT: &str = "WITH one AS (
       SELECT DISTINCT ON (title) title, vector FROM articles WHERE title <> '' ORDER BY title, id)
     SELECT title, one.vector::real[], max(articles.vector <=> one.vector) FROM one JOIN articles USING (title)
     GROUP BY title, one.vector ORDER BY md5(title)";

#[tokio::test]
async fn thousands_of_rows_written_during_the_initial_backfill_are_right() {
    let (database, client) = articles(server::shared()).await;
    if database.skips_vector() {
        return;
    }
    let insert = |from: u32, to: u32| {
        format!("INSERT INTO articles (title) SELECT {TEXT} FROM generate_series({from}, {to}) n")
    };
    execute(&client, &insert(1, 3000)).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let column = "ALTER TABLE articles ADD COLUMN vector vector(384)";
    execute(&client, &database.adapted(column)).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_value(&client, "SELECT count(vector) > 0 FROM articles", true).await;
    for round in 0..20 {
        let first = 3001 + round * 50;
        execute(&client, &insert(first, first + 49)).await;
        // Rows the scan has seen, rows it has not, and rows of this very moment.
        execute(
            &client,
            &format!(
                "UPDATE articles SET title = 'updated ' || id % 90 WHERE id % 97 = {round};
                 UPDATE articles SET title = CASE id % 2 WHEN 0 THEN NULL ELSE '' END WHERE id % 211 = {round};
                 UPDATE articles SET title = 'once and ' || {round} WHERE id = 1 OR id = {first}"
            ),
        )
        .await;
    }
    let unfinished = "SELECT init_finished_at IS NULL FROM jobs";
    assert!(
        value::<bool>(&client, unfinished).await,
        "too late: the first run is over"
    );
    wait_for_backfill(&client, job).await;
    // The mark is the last change of all: once it has its vector, so have all before.
    execute(
        &client,
        "INSERT INTO articles (title) VALUES ('the last one')",
    )
    .await;
    let apart =
        "SELECT count(*) FROM articles WHERE (COALESCE(title, '') = '') <> (vector IS NULL)";
    wait_for_value(&client, apart, 0_i64).await;
    wait_for_confirmed(&client).await;

    assert_eq!(
        value::<i64>(&client, "SELECT count(*) FROM articles").await,
        4001
    );
    assert_eq!(value::<i64>(&client, apart).await, 0);
    let texts = "SELECT count(DISTINCT title) FROM articles WHERE title <> ''";
    let texts: i64 = value(&client, texts).await;
    let rows = client.query(BY_TEXT, &[]).await;
    let rows = rows.expect("the vectors are read");
    assert_eq!(rows.len() as i64, texts);
    let mut by_vector: HashMap<Vec<i32>, String> = HashMap::new();
    for row in &rows {
        let (text, vector, apart): (String, Vec<f32>, f64) = (row.get(0), row.get(1), row.get(2));
        assert!(apart <= 0.0001, "{text:?} has vectors {apart} apart");
        let rounded = vector.iter().map(|value| (value * 1000.0) as i32).collect();
        if let Some(other) = by_vector.insert(rounded, text.clone()) {
            panic!("{text:?} and {other:?} have one vector");
        }
    }

    let sample: Vec<(String, Vec<f32>)> = rows[..40]
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut arguments = vec!["embed", "--format", "json"];
    arguments.extend(sample.iter().map(|(text, _)| text.as_str()));
    let embedded = program().stdout_of(&arguments).await;
    assert_eq!(embedded.lines().count(), sample.len());
    for ((text, vector), line) in sample.iter().zip(embedded.lines()) {
        let exact: Vec<f32> = serde_json::from_str(line).expect("a list of numbers");
        let cosine = cosine(vector, &exact);
        assert!(cosine >= 0.9999, "{text:?}: cosine {cosine}");
    }
}

/// Waits until the daemon has nothing left to do for anything that is committed by now.
async fn wait_for_confirmed(client: &tokio_postgres::Client) {
    let now: String = value(client, "SELECT pg_current_wal_lsn()::text").await;
    let behind = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND confirmed_flush_lsn < '{now}'"
    );
    wait_for_value(client, &behind, 0_i64).await;
}
