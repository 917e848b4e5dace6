//! A private server with a jobs table, and the real daemon on it, which has the tiny model too.

use std::time::{Duration, Instant};

use super::child::{self, Child};
use super::data_path;
use super::server::Server;

pub struct Stage {
    daemon: Option<Child>,
    pub server: Server,
    data: tempfile::TempDir,
}

impl Stage {
    pub async fn new() -> Stage {
        let server = Server::start(&[
            ("shared_buffers", "256MB"),
            ("max_wal_size", "1GB"),
            ("autovacuum_naptime", "10s"),
        ]);
        Stage::on(server.await).await
    }

    /// On a server that has no jobs table yet.
    pub async fn on(server: Server) -> Stage {
        server.jobs_table().await;
        Stage {
            daemon: None,
            server,
            data: data_path::with_tiny_model(),
        }
    }

    pub async fn sql(&self, statements: &str) {
        self.server.sql(statements).await;
    }

    pub async fn number(&self, query: &str) -> i64 {
        self.server.value(query).await
    }

    /// A job that embeds the rows that are there, too.
    pub async fn job(&self, table: &str, model: &str) {
        self.server.job(table, model, true).await;
    }

    /// Starts the daemon and waits until all jobs have looked through their existing rows.
    pub async fn start_daemon(&mut self) {
        self.spawn_daemon(&[]);
        self.initialised().await;
    }

    /// Starts the daemon with these variables in its environment.
    pub fn spawn_daemon(&mut self, environment: &[(&str, &str)]) {
        let mut command = child::daemon(&self.server.uri(), self.data.path());
        command.envs(environment.iter().copied());
        let log = self.data.path().join("daemon.log");
        self.daemon = Some(Child::spawn(command, log));
    }

    /// Waits until all jobs have looked through their existing rows.
    pub async fn initialised(&self) {
        self.until("SELECT count(*) FROM jobs WHERE init_finished_at IS NULL")
            .await;
    }

    pub fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    pub fn daemon(&self) -> &Child {
        self.running_daemon().expect("the daemon runs")
    }

    pub fn running_daemon(&self) -> Option<&Child> {
        self.daemon.as_ref()
    }

    /// Waits until everything that has been written so far is embedded and confirmed; returns how long that took.
    pub async fn settled(&self, table: &str) -> Duration {
        let begin = Instant::now();
        let now: String = self
            .server
            .value("SELECT pg_current_wal_insert_lsn()::text")
            .await;
        self.until(&format!(
            "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn < '{now}'"
        ))
        .await;
        let elapsed = begin.elapsed();
        let wrong =
            format!("SELECT count(*) FROM {table} WHERE (body IS NULL) <> (embedding IS NULL)");
        assert_eq!(self.number(&wrong).await, 0, "rows without a vector");
        elapsed
    }

    /// Waits until a count is 0.
    pub async fn until(&self, count: &str) {
        while self.number(count).await > 0 {
            let failed = "SELECT count(*) FROM jobs WHERE init_failed_at IS NOT NULL";
            let failed = self.number(failed).await;
            if let Some(daemon) = &self.daemon {
                assert_eq!(failed, 0, "{}", daemon.log());
                assert!(daemon.is_alive(), "the daemon has ended:\n{}", daemon.log());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
