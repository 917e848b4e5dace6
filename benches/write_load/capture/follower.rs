//! Who follows the triggers: the same embedder and the same writer as the daemon's, so that only the capture differs.
//!
//! A process of its own, this program started again with `follow`, so that its processor time can be told from that of the
//! benchmark.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use lantern::embedding::{Engine, Model, TextRole};
use lantern::pipeline::table::row::{Key, Origin, Row, Source};
use lantern::pipeline::write::writer::{ReadyRow, Writer};
use lantern::postgres::{ConnectionString, Session};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

use super::{Inference, Way};
use crate::engine;
use crate::support::target::target;

/// Rows that are embedded and written at once.
const BATCH: i64 = 256;
/// How often the worker looks into an empty queue.
const EVERY: Duration = Duration::from_millis(100);
const VACUUM_EVERY: Duration = Duration::from_secs(1);

/// Follows until the process is killed.
pub async fn follow(way: Way, inference: Inference) {
    let uri = std::env::var("LANTERN_URI").expect("where to");
    match way {
        Way::Notify => listen(&uri, inference).await,
        Way::Queue => work(&uri, inference).await,
        _ => unreachable!("nobody has to follow"),
    }
}

/// Takes keys as they are sent. What comes while a batch is under way waits for the next one, each key once.
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

/// Takes keys out of the queue's table. What is written and what is taken become visible one after the other, as the vector is
/// written by another session: a crash in between does the work again.
async fn work(uri: &str, inference: Inference) {
    let (client, connection) = tokio_postgres::connect(uri, NoTls)
        .await
        .expect("a session");
    tokio::spawn(connection);
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
        if vacuumed.elapsed() > VACUUM_EVERY {
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
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Reads the texts of rows that have changed and, with inference, has the daemon's engine and writer do the rest.
struct Rows {
    client: Client,
    read: Statement,
    embedder: Option<(Engine, Model, Writer)>,
}

impl Rows {
    async fn open(uri: &str, client: Client, inference: Inference) -> Rows {
        let name = "SET application_name = 'follower'";
        client.batch_execute(name).await.expect("a name");
        let read = "SELECT id, body FROM notes WHERE id = ANY ($1) AND body <> ''";
        let read = client.prepare(read).await.expect("prepared");
        let embedder = match inference {
            Inference::Off => None,
            Inference::On => Some(embedder(uri).await),
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
        let Some((engine, model, writer)) = &self.embedder else {
            return;
        };
        let embedded = engine.embed(model, TextRole::Document, texts);
        let vectors = embedded.await.expect("vectors");
        let ready = rows.iter().zip(vectors).map(|(row, vector)| ReadyRow {
            row: Row::new(
                Key::new([row.get::<_, i64>(0).to_string().into()]),
                Source::Text(row.get::<_, &str>(1).into()),
                Origin::Backfill,
            ),
            vector: Some(vector),
        });
        let ready: Vec<ReadyRow> = ready.collect();
        let batch: Vec<&ReadyRow> = ready.iter().collect();
        writer.write(&batch).await.expect("written");
    }
}

async fn embedder(uri: &str) -> (Engine, Model, Writer) {
    let (engine, model) = engine::load().await;
    let database: ConnectionString = uri.parse().expect("a connection string");
    let session = Session::open(&database).await.expect("a session");
    let target = target(&session, "notes", model.dimensions()).await;
    let writer = Writer::open(&database, Arc::new(target), model.dimensions());
    (engine, model, writer.await.expect("a writer"))
}
