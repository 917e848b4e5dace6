//! The examples of docs/search.md, taken from it and run.

use std::path::{Path, PathBuf};
use std::process::Output;

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, insert_job, wait_for_backfill};
use testkit::{Process, TestDatabase, paths, server, skip};
use tokio::process::Command;

use crate::support::{program, start_daemon};

const QUESTION: &str = "how do tides work?";

/// The blocks of a language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let document = paths::read("docs/search.md");
    let fence = format!("\n```{language}\n");
    let blocks = document.split(&fence).skip(1);
    let blocks = blocks.filter_map(|block| Some(block.split_once("\n```")?.0.to_owned() + "\n"));
    blocks.collect()
}

/// Whether a block is about the passages of documents, which have a table and a job of their own.
fn is_of_passages(block: &str) -> bool {
    block.contains("docs") || block.contains("--job 2")
}

/// The table of the document with its vectors, and the daemon that keeps them; `None` where the server has no pgvector,
/// which is reported.
async fn articles() -> Option<(TestDatabase, Process)> {
    let database = TestDatabase::with_vector(server::shared()).await;
    if database.skips_vector() {
        return None;
    }
    let client = database.client().await;
    database.psql(&paths::read("sql/jobs.sql")).await;
    execute(
        &client,
        "CREATE TABLE articles (id int PRIMARY KEY, title text, lang text DEFAULT 'en', published bool DEFAULT true); \
         INSERT INTO articles (id, title) VALUES (1, 'how tides work'), (2, 'a castle on a hill'), (3, 'the moon and the sea'); \
         INSERT INTO articles (id, title, lang) VALUES (4, 'wie die Gezeiten entstehen', 'de')",
    )
    .await;
    let job = Job::on(&database, "articles", "title", "title_embedding");
    let job = insert_job(&client, job).await;
    let daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    Some((database, daemon))
}

/// Runs a program in whose PATH `lantern-cli` and psql are.
async fn run(database: &TestDatabase, mut command: Command) -> Output {
    let cli = program();
    let prepared = cli.command("embed");
    for (name, value) in prepared.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let own = Path::new(prepared.get_program())
        .parent()
        .expect("a folder");
    let psql = server::client_program(server::shared(), "psql");
    let mut folders: Vec<PathBuf> = vec![own.into(), psql.parent().expect("a folder").into()];
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    command
        .env("PATH", std::env::join_paths(folders).expect("a path"))
        .env("LANTERN_URI", database.uri())
        .env("DATABASE", database.uri())
        .kill_on_drop(true);
    command.output().await.expect("the program starts")
}

/// The document's programs print the nearest rows of each question.
fn assert_found(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 8, "{printed}{errors}");
    assert!(lines[0].starts_with("1\thow tides work\t0."), "{printed}");
    assert!(
        lines[4].starts_with("2\ta castle on a hill\t0."),
        "{printed}"
    );
}

/// The second one has no vector.
const QUESTIONS: [&str; 3] = [QUESTION, " ", "an old\nfortress"];

#[tokio::test]
async fn the_commands_and_the_sql_of_the_document_work_as_they_are_written() {
    let Some((database, _daemon)) = articles().await else {
        return;
    };
    for block in blocks("sh")
        .into_iter()
        .filter(|block| !is_of_passages(block))
    {
        let script = match block.trim().strip_suffix(" test") {
            Some(psql) => {
                format!("echo \"SELECT vector_dims(:'query'::vector)\" | {psql} -At \"$DATABASE\"")
            }
            None => block.clone(),
        };
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &script]);
        let output = run(&database, shell).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}{errors}");
        let expected = match block.split_whitespace().next() {
            Some("psql") => "384",
            _ if block.contains("embed") => "[",
            _ => "how tides work",
        };
        assert!(printed.contains(expected), "{block}{printed}{errors}");
    }

    let client = database.client().await;
    let variables = variables().await;
    for block in blocks("sql")
        .into_iter()
        .filter(|block| !is_of_passages(block))
    {
        let printed = database.psql(&format!("{variables}{block}")).await;
        let expected = match &block {
            block if block.contains("AS this") => "3|the moon and the sea",
            block if block.contains("SELECT") => "1|how tides work",
            // It prints nothing.
            _ => "",
        };
        assert!(printed.contains(expected), "{block}{printed}");
        assert!(
            !block.contains("lang = 'en'") || !printed.contains("Gezeiten"),
            "{printed}"
        );
    }
    let ready = "SELECT COALESCE(index_state LIKE 'ready: %', false) FROM jobs";
    wait_for_value(&client, ready, true).await;
    // The index that the document creates is one that its queries use.
    for block in blocks("sql")
        .iter()
        .filter(|block| block.contains(":'query'") && !is_of_passages(block))
    {
        assert_uses(&database, &variables, block, "articles_title_embedding").await;
    }
    let usable: i64 = value(
        &client,
        "SELECT count(*) FROM pg_index WHERE NOT indisvalid",
    )
    .await;
    assert_eq!(usable, 0);
}

#[tokio::test]
async fn the_commands_and_the_sql_about_passages_work_as_they_are_written() {
    let Some((database, _daemon)) = documents().await else {
        return;
    };
    for block in blocks("sh").iter().filter(|block| is_of_passages(block)) {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", block]);
        let output = run(&database, shell).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}{errors}");
        for expected in [
            "passage  The tides follow the moon",
            "title Tides, passage",
            "\"chunk\": \"The tides follow the moon",
            "index: \"docs_chunks_embedding_cosine_lantern_idx\"",
        ] {
            assert!(printed.contains(expected), "{expected}: {printed}{errors}");
        }
    }
    let variables = variables().await;
    for block in blocks("sql").iter().filter(|block| is_of_passages(block)) {
        let printed = database.psql(&format!("{variables}{block}")).await;
        if block.contains("SELECT") {
            assert!(
                printed.contains("The tides follow the moon"),
                "{block}{printed}"
            );
        }
        assert!(
            !block.contains("lang = 'en'") || !printed.contains("Gezeiten"),
            "{printed}"
        );
    }
    for block in blocks("sql")
        .iter()
        .filter(|block| block.contains(":'query'") && is_of_passages(block))
    {
        assert_uses(&database, &variables, block, "docs_chunks_embedding").await;
    }
}

/// The table with documents of the document, their passages with an index, and the daemon that keeps them.
async fn documents() -> Option<(TestDatabase, Process)> {
    let database = TestDatabase::with_vector(server::shared()).await;
    if database.skips_vector() {
        return None;
    }
    let client = database.client().await;
    database.psql(&paths::read("sql/jobs.sql")).await;
    execute(
        &client,
        "SELECT setval(pg_get_serial_sequence('jobs', 'id'), 1); \
         CREATE TABLE docs (id int PRIMARY KEY, title text, body text, lang text DEFAULT 'en', published bool DEFAULT true); \
         INSERT INTO docs (id, title, body, lang) VALUES \
           (1, 'Tides', E'A harbor has water at one hour and mud at the next.\\n\\nThe tides follow the moon with a delay, which is \
             how tides work.\\n\\nIn a bay the water rises higher.', 'en'), \
           (2, 'Castles', E'A castle on a hill sees far.\\n\\nIts walls are thick, and its well is deep.', 'en'), \
           (3, 'Gezeiten', E'Wie die Gezeiten entstehen, ist bekannt.\\n\\nDer Mond zieht das Wasser an.', 'de'); \
         INSERT INTO docs (id, title, body) SELECT i, 'Hills', 'The hill number ' || i || ' is green.' FROM generate_series(4, 9) i",
    )
    .await;
    let job = Job {
        options: &[
            ("chunk_table", "'docs_chunks'"),
            ("create_index", "'hnsw'"),
            (
                "runtime_params",
                "'{\"chunk_tokens\": 20, \"chunk_overlap\": 0}'",
            ),
        ],
        ..Job::on(&database, "docs", "body", "embedding")
    };
    let job = insert_job(&client, job).await;
    assert_eq!(job, 2, "as in the document");
    let daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    let ready = "SELECT COALESCE(index_state LIKE 'ready: %', false) FROM jobs";
    wait_for_value(&client, ready, true).await;
    // With so few passages the planner would compare every vector.
    execute(
        &client,
        &format!(
            "ALTER DATABASE {0} SET enable_seqscan = off; ALTER DATABASE {0} SET enable_sort = off",
            database.name()
        ),
    )
    .await;
    Some((database, daemon))
}

/// What psql knows as `:'query'` and `:'words'`.
async fn variables() -> String {
    let vector = program().stdout_of(&["embed", "--query", QUESTION]).await;
    format!("\\set query '{}'\n\\set words 'tides'\n", vector.trim())
}

/// Asserts that the plan of a block follows an index whose name begins so.
async fn assert_uses(database: &TestDatabase, variables: &str, block: &str, index: &str) {
    let query = block.replace("BEGIN;", "").replace("COMMIT;", "");
    let (before, query) = match query.split_once("SELECT") {
        Some((before, rest)) if before.contains("SET LOCAL") => {
            (before.to_owned(), format!("SELECT{rest}"))
        }
        _ => (String::new(), query),
    };
    let settings = "SET enable_seqscan = off; SET enable_sort = off;";
    let explain = format!("{settings} {variables}{before} EXPLAIN {query}");
    let plan = database.psql(&explain).await;
    assert!(
        plan.contains(&format!("Index Scan using {index}")),
        "{block}{plan}"
    );
}

#[tokio::test]
async fn the_python_program_of_the_document_finds_the_rows() {
    let packages = paths::runtime().join("clients/python");
    if !packages.join("psycopg").is_dir() {
        return skip::missing("psycopg", "run scripts/setup_clients.sh");
    }
    let Some((database, _daemon)) = articles().await else {
        return;
    };
    let mut python = Command::new("python3");
    python.args(["-c", &blocks("python")[0]]).args(QUESTIONS);
    // The driver loads libpq, which PostgreSQL's own folder has, too.
    let psql = server::client_program(server::shared(), "psql");
    let libraries = psql.ancestors().nth(2).expect("a folder").join("lib");
    python
        .env("PYTHONPATH", packages)
        .env("LD_LIBRARY_PATH", libraries);
    assert_found(&run(&database, python).await);
}

#[tokio::test]
async fn the_node_program_of_the_document_finds_the_rows() {
    let packages = paths::runtime().join("clients/node/node_modules");
    if !packages.join("pg").is_dir() {
        return skip::missing("the package pg of Node", "run scripts/setup_clients.sh");
    }
    let Some((database, _daemon)) = articles().await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("search.js");
    std::fs::write(&script, &blocks("javascript")[0]).expect("it is written");
    let mut node = Command::new("node");
    node.arg(&script).args(QUESTIONS).env("NODE_PATH", packages);
    assert_found(&run(&database, node).await);
}

/// Debian has version 4 of pgx, in which the functions of the document are the same.
#[tokio::test]
async fn the_go_program_of_the_document_finds_the_rows() {
    let packages = Path::new("/usr/share/gocode");
    let has_go = std::process::Command::new("go")
        .arg("version")
        .output()
        .is_ok();
    if !has_go || !packages.join("src/github.com/jackc/pgx/v4").is_dir() {
        return skip::missing(
            "Go with pgx",
            "apt-get install golang-go golang-github-jackc-pgx-v4-dev",
        );
    }
    let Some((database, _daemon)) = articles().await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("search.go");
    let program = blocks("go")[0].replace("jackc/pgx/v5", "jackc/pgx/v4");
    std::fs::write(&source, program).expect("it is written");
    let mut go = Command::new("go");
    go.arg("run").arg(&source).args(QUESTIONS);
    go.env("GO111MODULE", "off")
        .env("GOPATH", packages)
        .env("GOCACHE", paths::checkout().join("target/tmp/go-cache"));
    assert_found(&run(&database, go).await);
}
