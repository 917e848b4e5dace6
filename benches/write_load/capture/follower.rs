//! What follows the triggers: the daemon's own embedder and writer, so that only the capture differs.
//!
//! It is a process of its own, this program started with `follow-…`, so that its processor time can be told from that
//! of the benchmark.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use lantern::embedding::yielding::{OwnProcess, Yielding};
use lantern::embedding::{Engine, EngineOptions, Model, TextRole};
use lantern::postgres::ConnectionString;
use testkit::client::connect;
use testkit::engine;
use testkit::paths::runtime;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

use super::way::{Inference, Way};
use crate::support::writer::{Embedded, RowWriter};

/// Rows that are embedded and written at once.
const BATCH: i64 = 256;
/// How often the worker polls an empty queue.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const VACUUM_INTERVAL: Duration = Duration::from_secs(1);

/// Follows until the process is killed.
pub async fn follow(way: Way, inference: Inference) {
    let uri = std::env::var("LANTERN_URI").expect("where to");
    match way {
        Way::Notify => listen(&uri, inference).await,
        Way::Queue => work(&uri, inference).await,
        _ => unreachable!("these ways need no follower"),
    }
}

/// Takes keys as they are sent. Those that arrive during a batch wait for the next one, each key once.
async fn listen(uri: &str, inference: Inference) {
    let (client, mut connection) = tokio_postgres::connect(uri, NoTls)
        .await
        .expect("a session");
    let (sender, mut keys) = mpsc::unbounded_channel::<i64>();
    tokio::spawn(async move {
        let mut messages = poll_fn(|context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message
                && let Ok(key) = notification.payload().parse()
            {
                let _ = sender.send(key);
            }
        }
    });
    let rows = Rows::open(uri, client, inference).await;
    rows.client
        .batch_execute("LISTEN embed")
        .await
        .expect("it listens");
    while let Some(first) = keys.recv().await {
        let mut batch = BTreeSet::from([first]);
        while batch.len() < BATCH as usize
            && let Ok(key) = keys.try_recv()
        {
            batch.insert(key);
        }
        rows.work_on(batch.into_iter().collect()).await;
    }
}

/// Takes keys from the queue table. The vector is written by another session and becomes visible before the key is
/// gone: after a crash in between the work is done again.
async fn work(uri: &str, inference: Inference) {
    let client = connect(uri).await;
    let rows = Rows::open(uri, client, inference).await;
    let client = &rows.client;
    let take = format!(
        "DELETE FROM queue WHERE ctid = ANY (ARRAY(SELECT ctid FROM queue LIMIT {BATCH} FOR UPDATE SKIP LOCKED)) \
         RETURNING id"
    );
    let take = client.prepare(&take).await.expect("prepared");
    let mut vacuumed = Instant::now();
    loop {
        // As autovacuum would, which is off.
        if vacuumed.elapsed() > VACUUM_INTERVAL {
            client.batch_execute("VACUUM queue").await.expect("done");
            vacuumed = Instant::now();
        }
        client.batch_execute("BEGIN").await.expect("begun");
        let taken = client.query(&take, &[]).await.expect("taken");
        let keys: BTreeSet<i64> = taken.iter().map(|row| row.get(0)).collect();
        if !keys.is_empty() {
            rows.work_on(keys.into_iter().collect()).await;
        }
        client.batch_execute("COMMIT").await.expect("committed");
        if taken.is_empty() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Reads the texts of rows that have changed and, with inference, has the daemon's engine and writer do the rest.
struct Rows {
    client: Client,
    read: Statement,
    embedder: Option<Embedder>,
}

struct Embedder {
    engine: Engine,
    model: Model,
    writer: RowWriter,
    /// The server process that writes the vectors, to which inference does not yield: it does not in the daemon either.
    _process: Option<OwnProcess>,
}

impl Rows {
    async fn open(uri: &str, client: Client, inference: Inference) -> Rows {
        let name = "SET application_name = 'follower'";
        client.batch_execute(name).await.expect("a name");
        let read = "SELECT id, body FROM notes WHERE id = ANY ($1) AND body <> ''";
        let read = client.prepare(read).await.expect("prepared");
        let embedder = match inference {
            Inference::Off => None,
            Inference::Yielding => Some(embedder(uri, Yielding::default()).await),
            Inference::Unyielding => Some(embedder(uri, Yielding::Off).await),
        };
        Rows {
            client,
            read,
            embedder,
        }
    }

    async fn work_on(&self, keys: Vec<i64>) {
        let rows = self.client.query(&self.read, &[&keys]).await;
        let rows = rows.expect("the texts");
        let texts: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
        let Some(Embedder {
            engine,
            model,
            writer,
            ..
        }) = &self.embedder
        else {
            return;
        };
        let embedded = engine.embed(model, TextRole::Document, texts);
        let vectors = embedded.await.expect("vectors");
        let embedded = rows.iter().zip(vectors).map(|(row, vector)| {
            let (id, text): (i64, &str) = (row.get(0), row.get(1));
            Embedded::new(id, text, vector)
        });
        writer.write(&embedded.collect::<Vec<_>>()).await;
    }
}

async fn embedder(uri: &str, yielding: Yielding) -> Embedder {
    let options = EngineOptions {
        yielding,
        ..EngineOptions::default()
    };
    let loaded = engine::load_with(&runtime(), options).await;
    let (engine, model) = loaded.expect("run `make setup` first");
    let database: ConnectionString = uri.parse().expect("a connection string");
    let writer = RowWriter::open(&database, "notes", model.dimensions()).await;
    let process = engine
        .own_processes()
        .add(writer.process().await, "postgres");
    Embedder {
        engine,
        model,
        writer,
        _process: process,
    }
}
