//! The SQL that the documents give to people, run as it is written.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, insert_job, wait_for_backfill};
use testkit::{TestDatabase, paths, server};

use crate::support::{program, start_daemon};

/// The blocks of SQL in a section of the README.
fn blocks(heading: &str) -> Vec<String> {
    let readme = paths::read("README.md");
    let (_, section) = readme
        .split_once(&format!("\n### {heading}\n"))
        .expect("the section");
    let (section, _) = section.split_once("\n##").expect("another section");
    let blocks = section.split("```sql\n").skip(1);
    blocks
        .filter_map(|block| Some(block.split_once("```")?.0.to_owned()))
        .collect()
}

#[tokio::test]
async fn the_queries_of_the_readme_answer_what_it_says() {
    let database = TestDatabase::with_vector(server::shared()).await;
    if database.skips_vector() {
        return;
    }
    let client = database.client().await;
    database.psql(&paths::read("sql/jobs.sql")).await;
    execute(
        &client,
        "CREATE TABLE articles (id serial PRIMARY KEY, title text)",
    )
    .await;
    let job = Job {
        options: &[("fingerprint_column", "'title_fingerprint'")],
        ..Job::on(&database, "articles", "title", "title_embedding")
    };
    let job = insert_job(&client, job).await;
    let mut daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;

    // Is my row searchable yet?
    let script = program().stdout_of(&["sql", "wait_for_embeddings"]).await;
    database.psql(&script).await;
    let questions = blocks("Is my row searchable yet?");
    let titles = ["how tides work", "a castle on a hill", "the moon"];
    for title in titles {
        let insert = "INSERT INTO articles (title) VALUES ($1)";
        client
            .execute(insert, &[&title])
            .await
            .expect("it is inserted");
        // Longer, for a machine that is busy with other tests.
        let question = questions[0].replace("10 seconds", "90 seconds");
        assert!(value::<bool>(&client, &question).await);
        let missing = "SELECT count(*) FROM articles WHERE title_embedding IS NULL";
        assert_eq!(value::<i64>(&client, missing).await, 0, "after {title:?}");
    }

    // Search in SQL, without and with an index.
    let queries = blocks("Search");
    let vector = program()
        .stdout_of(&["embed", "--query", "how do tides work?"])
        .await;
    let search = format!("\\set query '{}'\n{}", vector.trim(), queries[0]);
    let unindexed = database.psql(&search).await;
    assert!(unindexed.starts_with("1|how tides work|0."), "{unindexed}");
    execute(&client, &queries[1]).await;
    let ready = "SELECT COALESCE(index_state LIKE 'ready: %', false) FROM jobs";
    wait_for_value(&client, ready, true).await;
    let indexed = format!("SET enable_seqscan = off; SET enable_sort = off;\n{search}");
    let found = database.psql(&indexed).await;
    assert!(found.contains(unindexed.trim()), "{found}");
    let explained = search.replace("SELECT id", "EXPLAIN SELECT id");
    let plan = database
        .psql(&format!("SET enable_seqscan = off;\n{explained}"))
        .await;
    assert!(
        plan.contains("articles_title_embedding_cosine_lantern_idx"),
        "{plan}"
    );

    // Which vectors are not those of their texts.
    let uri = database.uri();
    let verified = program()
        .stdout_of(&["verify", "--uri", &uri, "--job", "1"])
        .await;
    let identity = verified
        .lines()
        .find_map(|line| line.strip_prefix("model identity "));
    let stale = blocks("Fingerprints").remove(1);
    let stale = stale.replace("4ec0a879271b3fb3", identity.expect("the identity"));
    assert_eq!(database.psql(&stale).await.trim(), "");
    daemon.terminate().await;
    execute(
        &client,
        "UPDATE articles SET title = 'another' WHERE id = 2",
    )
    .await;
    assert_eq!(database.psql(&stale).await.trim(), "2");
}

#[tokio::test]
async fn the_example_of_jobs_sql_works_as_delivered() {
    let database = TestDatabase::with_vector(server::shared()).await;
    let client = database.client().await;
    let script = paths::read("sql/jobs.sql");
    database.psql(&script).await;
    execute(
        &client,
        "CREATE TABLE articles (id serial PRIMARY KEY, title text)",
    )
    .await;
    execute(&client, "INSERT INTO articles (title) VALUES ('the moon')").await;
    let (_, example) = script.split_once("INSERT INTO jobs").expect("an example");
    let (example, _) = example.split_once(';').expect("its end");
    let example = example.replace("\n--", "\n");
    let (_, uri) = example
        .split_once("VALUES ('")
        .expect("a connection string");
    let (uri, _) = uri.split_once('\'').expect("its end");
    let example = example.replace(uri, &database.uri());
    execute(&client, &format!("INSERT INTO jobs{example}")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, 1).await;
    let done = "SELECT count(title_embedding) = 1 FROM articles";
    wait_for_value(&client, done, true).await;
}
