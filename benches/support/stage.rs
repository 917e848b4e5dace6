//! A private server with a jobs table, and the real daemon on it, which has the tiny models too.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::procfs::{self, Resident};
use testkit::tiny_model::TinyModel;
use testkit::{Process, data_path};

use super::program;
use super::server::Server;

pub struct Stage {
    // Dropped in this order.
    daemon: Option<Process>,
    pub server: Server,
    data_path: TempDir,
}

/// What the initial backfill of a table took.
pub struct Backfill {
    pub elapsed: Duration,
    /// Resident memory of the daemon before it, in bytes.
    pub idle: u64,
    /// Resident memory of the daemon since then.
    pub resident: Resident,
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
        server.create_jobs_table().await;
        Stage {
            daemon: None,
            server,
            data_path: data_path::with_tiny_models(),
        }
    }

    pub async fn sql(&self, statements: &str) {
        self.server.sql(statements).await;
    }

    pub async fn number(&self, query: &str) -> i64 {
        self.server.value(query).await
    }

    /// Inserts a job with a backfill.
    pub async fn job(&self, table: &str, model: &str) {
        self.server.job(table, model).await;
    }

    /// Starts the daemon and waits until all jobs have finished their backfill.
    pub async fn start_daemon(&mut self) {
        self.spawn_daemon(&[]);
        self.wait_for_backfill().await;
    }

    /// Starts the daemon with these variables in its environment.
    pub fn spawn_daemon(&mut self, environment: &[(&str, &str)]) {
        let uri = self.server.uri();
        let variables = [&[("LANTERN_URI", uri.as_str())], environment].concat();
        let program = program().with_data_path(self.data_path.path());
        self.daemon = Some(program.start_daemon_with_env(&variables, &[]));
    }

    /// Waits until all jobs have finished their backfill.
    pub async fn wait_for_backfill(&self) {
        self.until_none("SELECT count(*) FROM jobs WHERE init_finished_at IS NULL")
            .await;
    }

    pub fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    pub fn daemon(&self) -> &Process {
        self.running_daemon().expect("the daemon runs")
    }

    pub fn running_daemon(&self) -> Option<&Process> {
        self.daemon.as_ref()
    }

    /// The daemon's resident memory at rest, in bytes: the least of ten samples. Its peak counts from then on.
    pub async fn resident_at_rest(&self) -> u64 {
        let process = self.daemon().id();
        let mut least = u64::MAX;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            least = least.min(procfs::resident(process).now);
        }
        procfs::reset_peak(process);
        least
    }

    /// Creates tables with `sql`, among them `few` and `notes`, starts a daemon with a job on `few`, so that the model
    /// is loaded, and measures the initial backfill of `notes`.
    pub async fn measure_backfill(sql: &str) -> Backfill {
        let mut stage = Stage::new().await;
        stage.sql(sql).await;
        stage.sql("VACUUM ANALYZE").await;
        stage.job("few", TinyModel::One.name()).await;
        // Vectors that are kept for texts that come again take as much memory as they may, and no more.
        stage.spawn_daemon(&[("LANTERN_CACHE_SIZE", "0")]);
        stage.wait_for_backfill().await;
        let idle = stage.resident_at_rest().await;
        let begin = Instant::now();
        stage.job("notes", TinyModel::One.name()).await;
        stage.wait_for_backfill().await;
        Backfill {
            elapsed: begin.elapsed(),
            idle,
            resident: procfs::resident(stage.daemon().id()),
        }
    }

    /// Waits until everything that has been written so far is embedded and confirmed; returns how long that took.
    pub async fn wait_until_confirmed(&self, table: &str) -> Duration {
        let begin = Instant::now();
        let now: String = self
            .server
            .value("SELECT pg_current_wal_insert_lsn()::text")
            .await;
        self.until_none(&format!(
            "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn < '{now}'"
        ))
        .await;
        let elapsed = begin.elapsed();
        let wrong =
            format!("SELECT count(*) FROM {table} WHERE (body IS NULL) <> (embedding IS NULL)");
        assert_eq!(self.number(&wrong).await, 0, "rows without a vector");
        elapsed
    }

    /// Waits, without a limit, until a count is 0. Panics where a job has failed or the daemon has ended.
    pub async fn until_none(&self, count: &str) {
        while self.number(count).await > 0 {
            // Also because a process that has just been started has no arguments yet.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let failed = "SELECT count(*) FROM jobs WHERE init_failed_at IS NOT NULL";
            let failed = self.number(failed).await;
            if let Some(daemon) = &self.daemon {
                assert_eq!(failed, 0, "{}", daemon.log());
                let has_ended = procfs::command_line(daemon.id()).is_empty();
                assert!(!has_ended, "the daemon has ended:\n{}", daemon.log());
            }
        }
    }
}
