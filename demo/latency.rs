//! Measuring: when a vector becomes visible to others, and what the model alone would have needed.
//!
//! The clock starts when the server has answered the COMMIT and stops when a SELECT in a second session sees the vector.
//! That session asks again every 0.2 ms or so, which the figures contain: half of it on average.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lantern::embedding::{Catalogue, Engine, EngineOptions, Model, TextRole};
use tokio_postgres::{Client, Statement};

use crate::daemon::Daemon;
use crate::database::Database;
use crate::paths::Paths;

/// A vector as the server sends it; only ever compared.
pub type Vector = Option<Vec<u8>>;

/// The second session, which looks at rows as any other user would.
pub struct Witness {
    client: Client,
    vector: Statement,
    confirmed: Statement,
}

impl Witness {
    pub async fn open(database: &Database) -> Result<Witness> {
        let client = database.another_session().await?;
        let vector = client
            .prepare("SELECT vector_send(body_embedding) FROM articles WHERE id = $1")
            .await?;
        let confirmed = client
            .prepare("SELECT bool_and(confirmed_flush_lsn >= $1::text::pg_lsn) FROM pg_replication_slots")
            .await?;
        Ok(Witness {
            client,
            vector,
            confirmed,
        })
    }

    pub async fn vector(&self, id: i32) -> Result<Vector> {
        Ok(self.client.query_one(&self.vector, &[&id]).await?.get(0))
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
    pub async fn load(paths: &Paths, name: &str) -> Result<ModelAlone> {
        let options = EngineOptions {
            data_path: paths.data.clone(),
            ..EngineOptions::default()
        };
        let engine = Engine::new(Catalogue::new(paths.data.join("models")), options);
        let model = engine.model(&name.parse()?).await?;
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
        let position = self.0.partition_point(|other| *other < milliseconds);
        self.0.insert(position, milliseconds);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn p95(&self) -> f64 {
        self.quantile(0.95)
    }

    /// The nearest-rank definition: the smallest value that at least this share does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }
}
