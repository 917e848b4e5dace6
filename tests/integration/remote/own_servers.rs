//! One table, embedded by several `lantern-cli serve` of other machines.

use std::fs;
use std::path::Path;

use testkit::client::execute;
use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::wait::{TIMEOUT, wait_for};
use testkit::{Process, Program, Scene, data_path, server};

use crate::support::program;

const TOKEN: &str = "harbor-lights-at-night";

/// A server of the tiny models, over TLS and with a token.
struct Serve {
    process: Process,
    port: u16,
}

impl Serve {
    /// Starts it on this port, or on a free one for 0, and waits for its models.
    async fn start(program: &Program, folder: &Path, port: u16) -> Serve {
        let path = |name: &str| folder.join(name).display().to_string();
        let mut command = program.command("serve");
        command
            .args(["--model", "chaos/one"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--tls-certificate", &path("server.crt")])
            .args(["--tls-key", &path("server.key")])
            .env("LANTERN_LISTEN_TOKEN", TOKEN);
        let process = Process::spawn(command);
        let line = process.wait_for_line("embeddings at https", TIMEOUT).await;
        process.wait_for_line("ready", TIMEOUT).await;
        let (_, rest) = line.split_once("://").expect("an address");
        let (address, _) = rest.split_once('/').expect("a path");
        let (_, port) = address.rsplit_once(':').expect("a port");
        let port = port.parse().expect("a number");
        Serve { process, port }
    }
}

fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("one");
    fs::write(folder.join("server.crt"), made.cert.pem()).expect("written");
    fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).expect("written");
}

/// Keys of rows whose vector is not that of their text.
async fn wrong(scene: &Scene) -> Vec<i32> {
    let rows = scene
        .client
        .query("SELECT id, body, embedding FROM notes ORDER BY id", &[])
        .await
        .expect("the rows");
    let is_wrong = |row: &tokio_postgres::Row| {
        let (text, vector): (&str, Option<Vec<f32>>) = (row.get(1), row.get(2));
        let expected = TinyModel::One.vector(text);
        !vector.is_some_and(|vector| {
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
            vector.len() == expected.len() && vector.iter().zip(&expected).all(near)
        })
    };
    rows.iter()
        .filter(|row| is_wrong(row))
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test]
async fn three_servers_embed_a_table_while_one_of_them_is_killed_and_comes_back() {
    let folder = data_path::with_tiny_models();
    certificate(folder.path());
    let of_servers = program().with_data_path(folder.path());
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Serve::start(&of_servers, folder.path(), 0).await);
    }
    let trusted = folder.path().join("server.crt").display().to_string();
    let of_daemon = program().with_env("SSL_CERT_FILE", &trusted);
    let mut scene = Scene::new(
        of_daemon,
        server::shared(),
        "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding real[])",
    )
    .await;
    execute(
        &scene.client,
        "ALTER TABLE jobs ADD runtime text, ADD runtime_params jsonb; \
         INSERT INTO notes (id, body) SELECT n, 'w' || n % 400 || ' w' || n * 7 % 400 || ' w' || n / 400 \
         FROM generate_series(1, 6000) n",
    )
    .await;
    let urls: Vec<String> = servers
        .iter()
        .map(|server| format!("\"https://localhost:{}/v1\"", server.port))
        .collect();
    let params = format!(
        "'{{\"base_url\": [{}], \"api_key\": \"{TOKEN}\", \"max_batch\": 16}}'",
        urls.join(", ")
    );
    let job = Job {
        embedding_model: "chaos/one",
        options: &[("runtime", "'openai'"), ("runtime_params", &params)],
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    scene.spawn_daemon();
    let done =
        |rows: u32| format!("SELECT count(*) >= {rows} FROM notes WHERE embedding IS NOT NULL");
    scene.wait_for(&done(300), "true").await;
    servers[1].process.kill();
    scene.wait_for(&done(2500), "true").await;
    servers[1] = Serve::start(&of_servers, folder.path(), servers[1].port).await;
    scene
        .sql("UPDATE notes SET body = body || ' w9' WHERE id % 50 = 0")
        .await;
    let ask = async || wrong(&scene).await;
    wait_for("every vector is right", TIMEOUT, Vec::new(), ask).await;
    scene.wait_until_confirmed().await;
    assert_eq!(wrong(&scene).await, [0; 0]);
    assert_eq!(scene.failures().await, "");
    assert!(!scene.daemon().log().contains(TOKEN));
}
