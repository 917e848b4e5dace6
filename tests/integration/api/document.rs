//! The examples of docs/applications.md, taken from it and run with the official clients, from a question to rows.

use std::path::PathBuf;
use std::process::Output;

use testkit::client::execute;
use testkit::jobs::{Job, insert_job, wait_for_backfill};
use testkit::{Process, TestDatabase, paths, server, skip};
use tokio::process::Command;

use super::serve::Serve;
use crate::http::daemon::address_of;
use crate::support::{program, start_daemon};

/// What a program has to present. The clients send it by themselves.
const TOKEN: &str = "a-program-has-this-token";

const QUESTIONS: [&str; 2] = ["how do tides work?", "an old\nfortress"];

/// The first block of a language behind a heading.
fn block(heading: &str, language: &str) -> String {
    let document = paths::read("docs/applications.md");
    let (_, section) = document
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let (_, code) = section
        .split_once(&format!("\n```{language}\n"))
        .unwrap_or_else(|| panic!("no {language} in {heading}"));
    code.split_once("\n```").expect("its end").0.to_owned()
}

/// The table of the document, the daemon that keeps its vectors, and where it answers; `None` where the server has no
/// pgvector, which is reported.
async fn articles() -> Option<(TestDatabase, Process, String)> {
    let database = TestDatabase::with_vector(server::shared()).await;
    if database.skips_vector() {
        return None;
    }
    let client = database.client().await;
    database.psql(&paths::read("sql/jobs.sql")).await;
    execute(
        &client,
        "CREATE TABLE articles (id int PRIMARY KEY, title text); \
         INSERT INTO articles VALUES (1, 'how tides work'), (2, 'a castle on a hill'), (3, 'the moon and the sea')",
    )
    .await;
    let job = Job::on(&database, "articles", "title", "title_embedding");
    let job = insert_job(&client, job).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), TOKEN).expect("it is written");
    let file = token.path().display().to_string();
    let arguments = ["--listen", "127.0.0.1:0", "--listen-token-file", &file];
    let daemon = start_daemon(&database, &arguments);
    wait_for_backfill(&client, job).await;
    let url = format!("http://{}/v1", address_of(&daemon).await);
    Some((database, daemon, url))
}

/// Runs a program that finds the rows of the questions.
async fn run(database: &TestDatabase, url: &str, mut command: Command) -> Output {
    command
        .args(QUESTIONS)
        .env("DATABASE", database.uri())
        .env("OPENAI_BASE_URL", url)
        .env("OPENAI_API_KEY", TOKEN)
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true);
    command.output().await.expect("the program starts")
}

fn assert_found(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 6, "{printed}{errors}");
    assert!(lines[0].starts_with("1\thow tides work\t0."), "{printed}");
    assert!(
        lines[3].starts_with("2\ta castle on a hill\t0."),
        "{printed}"
    );
}

/// A Python that finds the clients.
fn python(script: &str) -> Command {
    let clients = paths::runtime().join("clients");
    let packages = ["python", "frameworks"].map(|name| clients.join(name));
    let path = std::env::join_paths(packages).expect("a path");
    // The driver loads libpq, which PostgreSQL's own folder has, too.
    let psql = server::client_program(server::shared(), "psql");
    let libraries: PathBuf = psql.ancestors().nth(2).expect("a folder").join("lib");
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .env("PYTHONPATH", path)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LD_LIBRARY_PATH", libraries);
    python
}

/// Runs the Python program of a section.
async fn run_python(heading: &str, package: &str) {
    let installed = paths::runtime().join("clients/frameworks").join(package);
    if !installed.is_dir() {
        return skip::missing(package, "run scripts/setup_clients.sh");
    }
    let Some((database, _daemon, url)) = articles().await else {
        return;
    };
    let script = block(heading, "python");
    assert_found(&run(&database, &url, python(&script)).await);
}

#[tokio::test]
async fn the_python_client_of_openai_finds_the_rows() {
    run_python("Python", "openai").await;
}

#[tokio::test]
async fn the_embeddings_of_langchain_find_the_rows() {
    run_python("LangChain", "langchain_openai").await;
}

#[tokio::test]
async fn the_embeddings_of_llamaindex_find_the_rows() {
    run_python("LlamaIndex", "llama_index").await;
}

#[tokio::test]
async fn the_javascript_client_of_openai_finds_the_rows() {
    let packages = paths::runtime().join("clients/node/node_modules");
    if !packages.join("openai").is_dir() {
        return skip::missing("the package openai of Node", "run scripts/setup_clients.sh");
    }
    let Some((database, _daemon, url)) = articles().await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("search.js");
    std::fs::write(&script, block("JavaScript", "javascript")).expect("it is written");
    let mut node = Command::new("node");
    node.arg(&script).env("NODE_PATH", packages);
    assert_found(&run(&database, &url, node).await);
}

/// What clients do beside one call: lists, models, errors by their classes, and another try.
#[tokio::test]
async fn the_python_client_of_openai_understands_answers_and_errors() {
    let installed = paths::runtime().join("clients/frameworks/openai");
    if !installed.is_dir() {
        return skip::missing("openai", "run scripts/setup_clients.sh");
    }
    let serve = Serve::start(&program().with_env("LANTERN_LISTEN_TOKEN", TOKEN), &[]).await;
    let script = r#"
import openai
client = openai.OpenAI(max_retries=0)
ids = [model.id for model in client.models.list()]
assert ids == ["sentence-transformers/all-MiniLM-L6-v2"], ids
assert client.models.retrieve(ids[0]).id == ids[0]
many = client.embeddings.create(model=ids[0], input=["a", "b", "c"])
floats = client.embeddings.create(model=ids[0], input=["a", "b", "c"], encoding_format="float")
assert [item.index for item in many.data] == [0, 1, 2]
for one, other in zip(many.data, floats.data):
    assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding)) < 1e-6
assert many.usage.prompt_tokens == 9, many.usage
def error(kind, *, key=None, **arguments):
    try:
        (client if key is None else client.with_options(api_key=key)).embeddings.create(**arguments)
    except kind as found:
        return found
    raise AssertionError(f"no {kind}")
assert error(openai.NotFoundError, model="none", input="a").code == "model_not_found"
assert error(openai.BadRequestError, model=ids[0], input="").param == "input"
assert error(openai.BadRequestError, model=ids[0], input="a", dimensions=5).param == "dimensions"
tokens = error(openai.BadRequestError, model=ids[0], input=[[1820, 18266]])
assert "check_embedding_ctx_length=False" in tokens.message, tokens
assert error(openai.AuthenticationError, key="wrong", model=ids[0], input="a").code == "invalid_api_key"
"#;
    let mut python = python(script);
    python
        .env("OPENAI_BASE_URL", format!("http://{}/v1", serve.address))
        .env("OPENAI_API_KEY", TOKEN)
        .env("NO_PROXY", "127.0.0.1");
    let output = python.output().await.expect("Python starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
