//! The core on a second version of PostgreSQL: the newest of Debian's packages, without pgvector.

use testkit::client::{execute, value};
use testkit::jobs::{
    Job, articles, insert_job, wait_for_backfill, wait_for_failure, wait_for_slots,
};
use testkit::server;
use testkit::vectors::wait_for_vectors;

use crate::support::start_daemon;

#[tokio::test]
async fn the_core_works_on_debians_postgresql() {
    let Some(server) = server::debian() else {
        return;
    };
    let (database, client) = articles(server).await;
    let version: String = value(&client, "SHOW server_version").await;
    println!("on PostgreSQL {version}");
    execute(
        &client,
        "INSERT INTO articles (title, body) VALUES ('one', 'a body'), ('two', NULL), (NULL, 'another body');
         CREATE TABLE mixed (a UUID, b TIMESTAMPTZ, t JSONB, PRIMARY KEY (b, a));
         INSERT INTO mixed VALUES (gen_random_uuid(), now(), '{\"a\": 1}');
         CREATE TABLE whole (id INT PRIMARY KEY, t TEXT); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE no_key (t TEXT)",
    )
    .await;
    let columns = [
        ("articles", "title", "v"),
        ("articles", "body", "w"),
        ("mixed", "t", "v"),
        ("whole", "t", "v"),
    ];
    let mut jobs = Vec::new();
    for (table, source, destination) in columns {
        jobs.push(insert_job(&client, Job::on(&database, table, source, destination)).await);
    }
    let refused = insert_job(&client, Job::on(&database, "no_key", "t", "v")).await;
    let mut daemon = start_daemon(&database, &[]);
    for job in &jobs {
        wait_for_backfill(&client, *job).await;
    }
    let reason = wait_for_failure(&client, refused).await;
    assert!(
        reason.contains("ALTER TABLE \"public\".\"no_key\""),
        "{reason}"
    );
    let all_in_step = async || {
        for (table, source, destination) in columns {
            wait_for_vectors(&client, table, source, destination).await;
        }
    };
    all_in_step().await;
    let kind = "SELECT pg_typeof(v)::text FROM articles LIMIT 1";
    assert_eq!(value::<String>(&client, kind).await, "real[]");

    for round in 0..3 {
        execute(
            &client,
            &format!(
                "INSERT INTO articles (title, body) VALUES ('live {round}', 'body {round}');
                 UPDATE articles SET title = 'changed {round}' WHERE id IN (1, 3);
                 UPDATE articles SET title = NULL, body = '' WHERE id = 2;
                 INSERT INTO mixed VALUES (gen_random_uuid(), now(), '[{round}]');
                 UPDATE mixed SET t = '{{\"round\": {round}}}' WHERE t = '{{\"a\": 1}}';
                 INSERT INTO whole VALUES ({round}, 'whole {round}');
                 UPDATE whole SET t = t || '!'"
            ),
        )
        .await;
        match round {
            // Live; then what happened while the daemon was away, after an orderly end and after none.
            0 => assert!(daemon.terminate().await.0.success()),
            1 => daemon.kill(),
            _ => continue,
        }
        execute(
            &client,
            "UPDATE articles SET title = 'meanwhile' WHERE id = 3",
        )
        .await;
        daemon = start_daemon(&database, &[]);
        all_in_step().await;
    }
    all_in_step().await;

    wait_for_slots(&client, 4).await;
    execute(
        &client,
        "UPDATE jobs SET canceled_at = true WHERE dst_column = 'w'",
    )
    .await;
    wait_for_slots(&client, 3).await;
    execute(
        &client,
        "INSERT INTO articles (title, body) VALUES ('late', 'late')",
    )
    .await;
    wait_for_vectors(&client, "articles", "title", "v").await;
    let late = "SELECT count(w) FROM articles WHERE body = 'late'";
    assert_eq!(value::<i64>(&client, late).await, 0);
    execute(&client, "DELETE FROM jobs").await;
    wait_for_slots(&client, 0).await;
}
