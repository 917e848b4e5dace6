//! The files in `sql/` do what they say.

use std::fs;

use crate::support::jobs::{Job, create_documented_table, init_state, insert_job};
use crate::support::{TestDatabase, checkout, debian_server, server};

fn file(name: &str) -> String {
    fs::read_to_string(checkout().join("sql").join(name)).expect("the file is there")
}

#[tokio::test]
async fn jobs_sql_creates_the_documented_table_and_may_run_again() {
    for server in [Some(server()), debian_server()].into_iter().flatten() {
        let database = TestDatabase::create(server).await;
        database.psql(&file("jobs.sql")).await;
        let client = database.client().await;
        let id = insert_job(
            &client,
            Job::on(&database, "articles", "title", "embedding"),
        )
        .await;

        database.psql(&file("jobs.sql")).await;
        assert!(!init_state(&client, id).await.started);
    }
}

#[tokio::test]
async fn jobs_sql_has_every_documented_column_with_its_type() {
    const COLUMNS: &str = "SELECT string_agg(column_name || ' ' || data_type, ',' ORDER BY column_name) \
                           FROM information_schema.columns WHERE table_name = 'jobs'";
    let (documented, full) = (
        TestDatabase::create(server()).await,
        TestDatabase::create(server()).await,
    );
    create_documented_table(&documented.client().await).await;
    full.psql(&file("jobs.sql")).await;

    let full = full.psql(COLUMNS).await;
    let full: Vec<&str> = full.trim().split(',').collect();
    for column in documented.psql(COLUMNS).await.trim().split(',') {
        assert!(full.contains(&column), "{column} is not among {full:?}");
    }
}
