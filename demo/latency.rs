//! Measuring: when a vector becomes visible to others, and what the model alone would have needed.
//!
//! The clock starts when the server has answered the COMMIT and stops when a SELECT in a second session sees the
//! vector. That session asks every 0.2 ms or so. The figures contain half of that on average.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lantern::embedding::{Engine, Model, TextRole};
use testkit::engine;
use testkit::statistics::{median, quantile};
use tokio_postgres::{Client, Statement};

use crate::daemon::Daemon;
use crate::database::Database;
use crate::paths::Paths;

/// A vector as the server sends it; only ever compared.
pub type Vector = Option<Vec<u8>>;

/// The second session, which reads rows as any other user does.
pub struct Observer {
    client: Client,
    vector: Statement,
    confirmed: Statement,
}

impl Observer {
    pub async fn open(database: &Database) -> Result<Observer> {
        let client = database.another_session().await?;
        let vector = client
            .prepare("SELECT vector_send(body_embedding) FROM articles WHERE id = $1")
            .await?;
        let confirmed = client
            .prepare("SELECT bool_and(confirmed_flush_lsn >= $1::text::pg_lsn) FROM pg_replication_slots")
            .await?;
        Ok(Observer {
            client,
            vector,
            confirmed,
        })
    }

    pub async fn vector(&self, id: i32) -> Result<Vector> {
        Ok(self.client.query_one(&self.vector, &[&id]).await?.get(0))
    }

    /// How long it takes from now until an inserted row has a vector.
    pub async fn sees_vector(&self, daemon: &mut Daemon, id: i32) -> Result<Duration> {
        let what = "the inserted row has a vector";
        self.sees(daemon, what, &[id], Option::is_some).await
    }

    /// How long it takes from now until `expected` holds for the vectors of all these rows.
    pub async fn sees(
        &self,
        daemon: &mut Daemon,
        what: &str,
        ids: &[i32],
        expected: impl Fn(&Vector) -> bool,
    ) -> Result<Duration> {
        let all = async || {
            for id in ids {
                if !expected(&self.vector(*id).await?) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        daemon.until_at_once(what, all).await
    }

    /// How long it takes from now until the daemon has confirmed everything that is in the WAL by now.
    pub async fn sees_confirmation(&self, daemon: &mut Daemon) -> Result<Duration> {
        let started = Instant::now();
        let lsn: String = self
            .client
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
            .await?
            .get(0);
        let confirmed = async || {
            let answer: Option<bool> = self
                .client
                .query_one(&self.confirmed, &[&lsn])
                .await?
                .get(0);
            Ok(answer.unwrap_or(false))
        };
        daemon
            .until_at_once("the daemon has confirmed the change", confirmed)
            .await?;
        Ok(started.elapsed())
    }

    /// The transaction that wrote the row's current version.
    pub async fn last_writer(&self, id: i32) -> Result<String> {
        Ok(self
            .client
            .query_one("SELECT xmin::text FROM articles WHERE id = $1", &[&id])
            .await?
            .get(0))
    }
}

/// The daemon's engine in this process, without a database around it.
pub struct ModelAlone {
    engine: Engine,
    model: Model,
}

impl ModelAlone {
    pub async fn load(paths: &Paths) -> Result<ModelAlone> {
        let (engine, model) = engine::load(&paths.data).await?;
        Ok(ModelAlone { engine, model })
    }

    /// How long one text takes by itself.
    pub async fn embeds(&self, text: &str) -> Result<Duration> {
        let texts = vec![text.to_string()];
        let started = Instant::now();
        let vectors = self
            .engine
            .embed(&self.model, TextRole::Document, texts)
            .await?;
        let took = started.elapsed();
        vectors.first().context("the engine gave no vector")?;
        Ok(took)
    }
}

/// Durations of one kind, in milliseconds. A difference may be negative, so they are no `Duration`s.
#[derive(Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn push(&mut self, milliseconds: f64) {
        self.0.push(milliseconds);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn median(&self) -> f64 {
        median(self.0.iter().copied())
    }

    pub fn p95(&self) -> f64 {
        quantile(self.0.iter().copied(), 0.95)
    }
}
