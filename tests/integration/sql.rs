//! The files in `sql/` do what they say.

use lantern::jobs::definition::OPTIONS;
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

/// Where to document an option is said at `Definition` in `src/jobs/definition.rs`.
#[test]
fn every_option_of_a_job_is_documented_in_jobs_sql_and_in_the_readme() {
    let (jobs_sql, readme) = (paths::read("sql/jobs.sql"), paths::read("README.md"));
    let columns: Vec<&str> = jobs_sql
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let (_, section) = readme.split_once("\n## Jobs table\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let first_cells: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .collect();
    for (option, _) in OPTIONS {
        assert!(columns.contains(option), "{option} is not in sql/jobs.sql");
        let name = format!("`{option}`");
        assert!(
            first_cells.iter().any(|cell| cell.contains(&name)),
            "{option} is in no table of the README's section \"Jobs table\""
        );
    }
}
