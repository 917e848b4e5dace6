//! The examples of the documentation, word for word.

use std::os::unix::fs::symlink;

use serde_json::Value;
use testkit::client::{execute, value, wait_for_value};
use testkit::engine::MODEL;
use testkit::jobs::{DOCUMENTED_TABLE, wait_for_backfill, wait_for_failure};
use testkit::paths::runtime;
use testkit::vectors::{cosine, wait_for_vectors};
use testkit::{Hub, TestDatabase, paths, server};

use crate::support::{program, start_daemon};

/// The connection string of the README's examples.
const README_URI: &str = "postgres://lantern@localhost:5432/test";
/// The connection string of the issue's example.
const EXAMPLE_URI: &str = "postgres://postgres@localhost:5432/test";

/// The issue's own example. Its model is one that `make setup` does not bring along.
const EXAMPLE: &str = r#"
INSERT INTO jobs (db_connection, schema, "table", src_column, dst_column, embedding_model)
VALUES ('postgres://postgres@localhost:5432/test', 'public', 'articles', 'title', 'title_embedding', 'microsoft/all-MiniLM-L12-v2');
INSERT INTO articles (title) VALUES ('My articles title');
"#;

/// The SQL in the README, block by block.
fn readme_sql() -> Vec<String> {
    let readme = paths::read("README.md");
    let blocks = readme.split("```sql\n").skip(1);
    blocks
        .map(|block| {
            let (sql, _) = block.split_once("```").expect("the block ends");
            sql.to_owned()
        })
        .collect()
}

fn with_uri(sql: &str, database: &TestDatabase) -> String {
    assert!(sql.contains(EXAMPLE_URI), "no {EXAMPLE_URI} in {sql}");
    sql.replace(EXAMPLE_URI, &database.uri())
}

/// Runs a script of `sql/` with the variables that the README gives it, as far as they are not for the role.
async fn run_script(database: &TestDatabase, file: &str, variables: &[(&str, &str)]) {
    let set = variables
        .iter()
        .map(|(name, value)| format!("\\set {name} '{value}'\n"));
    let script = set.collect::<String>() + &paths::read(file);
    database.psql(&script).await;
}

/// Lets the role work on the table `articles`, as the README says.
async fn prepare_articles(database: &TestDatabase, role: &str, more: &[(&str, &str)]) {
    let readme = paths::read("README.md");
    let kind = database.adapted("vector(384)");
    let variables = [
        ("schema", "public"),
        ("table", "articles"),
        ("key", "id"),
        ("source", "title"),
        ("destination", "title_embedding"),
    ];
    for (name, value) in variables {
        let given = format!("-v {name}={value}");
        assert!(readme.contains(&given), "no {given} in the README");
    }
    let of_role = [("type", kind.as_str()), ("role", role)];
    let variables = [&variables[..], &of_role, more].concat();
    run_script(database, "sql/prepare_publication.sql", &variables).await;
}

#[tokio::test]
async fn the_readme_works_word_for_word() {
    let blocks = readme_sql();
    // Those of "Search", "Is my row searchable yet?" and the second one of "Fingerprints" are in
    // `field::documented_queries`.
    let [
        wal_level,
        jobs_table,
        example,
        _,
        _,
        _,
        _,
        fingerprints,
        _,
        slots,
    ] = &blocks[..]
    else {
        panic!("the README has other blocks of SQL now: test them too");
    };
    assert_eq!(jobs_table.trim(), DOCUMENTED_TABLE.trim());

    let database = TestDatabase::with_vector(server::shared()).await;
    if database.skips_vector() {
        return;
    }
    let client = database.client().await;
    database.psql(wal_level).await;
    database.psql(jobs_table).await;
    // Roles are shared by all databases of a server.
    let role = format!("lantern_{}", database.name());
    for _ in 0..2 {
        let variables = [("role", role.as_str()), ("password", "secret")];
        run_script(&database, "sql/role.sql", &variables).await;
    }
    let uri = database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let uri = format!("postgresql://{role}:secret@{place}");
    let arguments = ["--uri", &uri, "--table", "jobs", "--refuse-superuser"];
    let _daemon = program().start_daemon(&arguments);
    let articles = "CREATE TABLE IF NOT EXISTS articles (id SERIAL PRIMARY KEY, title TEXT)";
    assert!(paths::read("README.md").contains(articles));
    database.psql(articles).await;
    prepare_articles(&database, &role, &[]).await;
    assert!(example.contains(README_URI), "{example}");
    database.psql(&example.replace(README_URI, &uri)).await;
    let appeared = "SELECT count(*) FROM articles WHERE title = 'My articles title' AND title_embedding IS NOT NULL";
    wait_for_backfill(&client, 1).await;
    wait_for_value(&client, appeared, 1_i64).await;
    assert_eq!(
        database
            .psql("SELECT pg_typeof(title_embedding), vector_dims(title_embedding) FROM articles")
            .await,
        "vector|384\n"
    );

    prepare_articles(&database, &role, &[("fingerprint", "title_fingerprint")]).await;
    database.psql(fingerprints).await;
    let marked = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'articles'::regclass AND attname = 'title_fingerprint'";
    wait_for_value(&client, marked, 1_i64).await;
    wait_for_vectors(&client, "articles", "title", "title_embedding").await;
    // The job has become another one, with a slot of its own.
    let streamed =
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
    wait_for_value(&client, streamed, 1_i64).await;
    let monitored = database.psql(slots).await;
    assert!(monitored.contains("|reserved|"), "{monitored}");

    let vector: Vec<f32> = value(&client, "SELECT title_embedding::real[] FROM articles").await;
    let literal = program().stdout_of(&["embed", "My articles title"]).await;
    let json = program()
        .stdout_of(&["embed", "--format", "json", "My articles title"])
        .await;
    for text in [literal, json] {
        let embedded: Vec<f32> = serde_json::from_str(&text).expect("a list of numbers");
        let cosine = cosine(&vector, &embedded);
        assert!(cosine >= 0.9999, "cosine {cosine}");
    }

    search_finds_the_nearest_row(&database).await;
}

async fn search_finds_the_nearest_row(database: &TestDatabase) {
    database
        .psql(
            "INSERT INTO articles (title) VALUES ('The moon pulls the sea'), ('Bread and butter')",
        )
        .await;
    let client = database.client().await;
    wait_for_vectors(&client, "articles", "title", "title_embedding").await;
    let (uri, query) = (database.uri(), "how do tides work?");

    let table = program()
        .stdout_of(&["search", "--uri", &uri, "--job", "1", query])
        .await;
    let lines: Vec<&str> = table.lines().collect();
    let headings: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(headings, ["similarity", "id", "title"], "{table}");
    assert!(lines[2].ends_with("2   The moon pulls the sea"), "{table}");
    assert_eq!(lines.len(), 5, "{table}");

    let limited = ["--limit", "1", "--format", "json", query];
    let json = program()
        .stdout_of(&[&["search", "--uri", &uri, "--job", "1"], &limited[..]].concat())
        .await;
    let found: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(found[0]["title"], "The moon pulls the sea");
    assert_eq!(found[0]["id"], "2");
    let similarity = found[0]["similarity"].as_f64().expect("a number");
    assert!((0.2..1.0).contains(&similarity), "{json}");
}

#[tokio::test]
async fn a_missing_model_fails_the_job_and_another_model_restarts_it() {
    let database = TestDatabase::with_vector(server::shared()).await;
    let client = database.client().await;
    database.psql(&readme_sql()[1]).await;
    execute(
        &client,
        "CREATE TABLE articles (id SERIAL PRIMARY KEY, title TEXT)",
    )
    .await;
    let _daemon = start_daemon(&database, &[]);
    database.psql(&with_uri(EXAMPLE, &database)).await;

    let reason = wait_for_failure(&client, 1).await;
    let folder = runtime().join("models/sentence-transformers/all-MiniLM-L12-v2");
    let folder = folder.to_str().expect("a readable path");
    assert!(reason.contains("looked in"), "{reason}");
    assert!(reason.contains(folder), "{reason}");

    execute(
        &client,
        &format!("UPDATE jobs SET embedding_model = '{MODEL}'"),
    )
    .await;
    wait_for_backfill(&client, 1).await;
    wait_for_vectors(&client, "articles", "title", "title_embedding").await;
}

/// The daemon and the jobs table are all that it takes: the model comes from the hub by the name that the older,
/// trigger-based daemon used. The files are those of another model, with vectors of the same length: what counts here is
/// the way from the name in the job to the vector.
#[tokio::test]
async fn the_example_of_the_older_daemon_works_word_for_word() {
    let hub = Hub::start();
    let files = runtime().join("models").join(MODEL);
    hub.publish("sentence-transformers/all-MiniLM-L12-v2", &files);
    let data_path = tempfile::tempdir().expect("a directory");
    symlink(runtime().join("lib"), data_path.path().join("lib")).expect("a link");
    let program = program()
        .with_data_path(data_path.path())
        .connected_to(&hub);

    let database = TestDatabase::with_vector(server::shared()).await;
    let client = database.client().await;
    database.psql(DOCUMENTED_TABLE).await;
    let articles = "CREATE TABLE articles (id SERIAL PRIMARY KEY, title TEXT)";
    execute(&client, articles).await;
    let arguments = ["--uri", &database.uri(), "--table", "jobs"];
    let _daemon = program.start_daemon(&arguments);
    database.psql(&with_uri(EXAMPLE, &database)).await;
    wait_for_backfill(&client, 1).await;
    wait_for_vectors(&client, "articles", "title", "title_embedding").await;
}

#[tokio::test]
async fn show_models_says_what_is_here_and_where() {
    let shown = program().stdout_of(&["show-models"]).await;
    let line = |name: &str| {
        let found = shown.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name} in {shown}"))
    };
    let here = line(MODEL);
    let place = runtime().join("models").join(MODEL);
    for figure in ["384", "256", "mean", place.to_str().expect("readable")] {
        assert!(here.contains(figure), "{figure}: {here}");
    }
    for absent in [
        "sentence-transformers/all-MiniLM-L12-v2",
        "BAAI/bge-small-en",
    ] {
        assert!(line(absent).ends_with("not downloaded"), "{shown}");
    }
}
