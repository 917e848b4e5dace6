//! `examples/tail.rs` against a real server.

use std::io::Write;
use std::sync::{Arc, Mutex};

use lantern::replication::ReplicationConnection;
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use crate::postgres::{eventually, server};

#[path = "../../examples/tail.rs"]
#[allow(dead_code)]
mod example;

/// What the example has printed.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A slot is visible while it is being created, and has a confirmed position once it is complete.
const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots \
    WHERE database = 'tail' AND plugin = 'pgoutput' AND temporary AND confirmed_flush_lsn IS NOT NULL";

#[tokio::test]
async fn the_example_prints_and_confirms() {
    let client = server().create_database("tail").await;
    client
        .batch_execute(
            "CREATE TABLE docs (id int PRIMARY KEY, body text);
             CREATE TABLE other (id int PRIMARY KEY);
             CREATE PUBLICATION docs_publication FOR TABLE docs",
        )
        .await
        .unwrap();
    let output = Output::default();
    let mut config = server().tcp_config("postgres");
    config.dbname("tail");
    let address = ("127.0.0.1", config.get_ports()[0]);
    let socket = TcpStream::connect(address).await.unwrap();
    let connection = ReplicationConnection::connect(socket, NoTls, &config, &[]);
    let connection = connection.await.unwrap();
    let printed = output.clone();
    let tail = tokio::spawn(async move {
        let ended = example::tail(connection, "docs_publication", printed).await;
        ended.map_err(|error| error.to_string())
    });
    let count = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    eventually("the example streams", async || count(SLOTS).await == 1).await;

    client
        .batch_execute(
            "INSERT INTO docs VALUES (1, 'hello'), (2, NULL);
             INSERT INTO other VALUES (1);
             UPDATE docs SET body = 'grüße' WHERE id = 1;
             UPDATE docs SET id = 3 WHERE id = 1;
             DELETE FROM docs WHERE id = 2",
        )
        .await
        .unwrap();
    eventually("five lines", async || output.lines().len() == 5).await;
    assert_eq!(
        output.lines(),
        [
            "insert docs id=1 body=hello",
            "insert docs id=2",
            "update docs id=1 body=grüße",
            "update docs id=3 body=grüße",
            "delete docs id=2",
        ]
    );
    let end: String = client
        .query_one("SELECT pg_current_wal_lsn()::text", &[])
        .await
        .unwrap()
        .get(0);
    let confirmed = format!("{SLOTS} AND confirmed_flush_lsn >= '{end}'");
    eventually("all of it is confirmed", async || {
        count(&confirmed).await == 1
    })
    .await;

    tail.abort();
    eventually("the slot is dropped", async || count(SLOTS).await == 0).await;
}
