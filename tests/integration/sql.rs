//! The files in `sql/` do what they say.

use testkit::jobs::{Job, create_documented_table, init_state, insert_job};
use testkit::{TestDatabase, paths, server};

#[tokio::test]
async fn jobs_sql_creates_the_documented_table_and_may_run_again() {
    for server in [Some(server::shared()), server::debian()]
        .into_iter()
        .flatten()
    {
        let database = TestDatabase::create(server).await;
        database.psql(&paths::read("sql/jobs.sql")).await;
        let client = database.client().await;
        let id = insert_job(
            &client,
            Job::on(&database, "articles", "title", "embedding"),
        )
        .await;

        database.psql(&paths::read("sql/jobs.sql")).await;
        assert!(!init_state(&client, id).await.started);
    }
}

#[tokio::test]
async fn jobs_sql_has_every_documented_column_with_its_type() {
    const COLUMNS: &str = "SELECT string_agg(column_name || ' ' || data_type, ',' ORDER BY column_name) \
                           FROM information_schema.columns WHERE table_name = 'jobs'";
    let (documented, full) = (
        TestDatabase::create(server::shared()).await,
        TestDatabase::create(server::shared()).await,
    );
    create_documented_table(&documented.client().await).await;
    full.psql(&paths::read("sql/jobs.sql")).await;

    let full = full.psql(COLUMNS).await;
    let full: Vec<&str> = full.trim().split(',').collect();
    for column in documented.psql(COLUMNS).await.trim().split(',') {
        assert!(full.contains(&column), "{column} is not among {full:?}");
    }
}
