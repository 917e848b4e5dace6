//! A private server, a jobs table, and the real daemon on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use lantern::embedded::{Installation, PrivatePostgres};
use lantern::postgres::{ConnectionString, Session};

use crate::model::Model;
use crate::process;

pub struct Stage {
    daemon: Option<Child>,
    pub session: Session,
    server: PrivatePostgres,
    data: tempfile::TempDir,
}

impl Stage {
    /// A server with an empty database, and a data path with the tiny model beside what `make setup` has fetched.
    pub async fn new() -> Stage {
        let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime");
        let data = tempfile::tempdir().expect("a temporary folder");
        let link =
            |name: &str| symlink(runtime.join(name), data.path().join(name)).expect("a link");
        fs::create_dir(data.path().join("models")).expect("a folder");
        link("lib");
        link("models/sentence-transformers");
        Model::One
            .write_to(&data.path().join("models"))
            .expect("the model is written");
        let installation = Installation::find(&runtime).expect("run `make setup` first");
        let settings = [
            ("shared_buffers", "256MB"),
            ("max_wal_size", "1GB"),
            ("autovacuum_naptime", "10s"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let server =
            PrivatePostgres::start_temporary(&installation, settings.into()).expect("it starts");
        let database: ConnectionString =
            server.uri("postgres").parse().expect("a connection string");
        let session = Session::open(&database).await.expect("a session");
        let stage = Stage {
            daemon: None,
            session,
            server,
            data,
        };
        stage
            .sql("SET search_path = public; CREATE EXTENSION vector SCHEMA public")
            .await;
        stage.sql(include_str!("../../sql/jobs.sql")).await;
        stage
    }

    pub async fn sql(&self, statements: &str) {
        let done = self.session.batch_execute(statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    pub async fn number(&self, query: &str) -> i64 {
        let row = self.session.query_one(query, &[]).await;
        row.unwrap_or_else(|error| panic!("{query}: {error:?}"))
            .get(0)
    }

    /// A job on `table (body)`; the table gets its column from the daemon.
    pub async fn job(&self, table: &str, model: &str) {
        let uri = self.server.uri("postgres");
        self.sql(&format!(
            "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model) \
             VALUES ('{uri}', 'public', '{table}', 'body', 'embedding', '{model}')"
        ))
        .await;
    }

    /// Starts the daemon and waits until all jobs have looked through their existing rows.
    pub async fn start_daemon(&mut self) {
        self.spawn_daemon();
        self.until("SELECT count(*) FROM jobs WHERE init_finished_at IS NULL")
            .await;
    }

    pub fn spawn_daemon(&mut self) {
        let log = fs::File::create(self.data.path().join("daemon.log")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lantern-cli"));
        command
            .args([
                "start-daemon",
                "--uri",
                &self.server.uri("postgres"),
                "--data-path",
            ])
            .arg(self.data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: prctl is a plain system call and allocates nothing, as is asked of code between fork and exec.
        unsafe {
            // Not even a benchmark that is killed leaves a daemon behind.
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let daemon = command.spawn().expect("lantern-cli starts");
        self.daemon = Some(daemon);
    }

    pub fn stop_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            daemon.wait().expect("it is our child");
        }
    }

    /// Memory of the daemon at rest: the least of some looks.
    pub async fn idle(&self) -> u64 {
        let mut least = u64::MAX;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            least = least.min(self.resident().now);
        }
        process::reset_peak(self.process());
        least
    }

    pub fn resident(&self) -> process::Resident {
        process::resident(self.process())
    }

    fn process(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Waits until everything that has been written so far is embedded and confirmed; returns how long that took.
    pub async fn settled(&self, table: &str) -> Duration {
        let begin = Instant::now();
        let now: String = self
            .session
            .query_one("SELECT pg_current_wal_insert_lsn()::text", &[])
            .await
            .expect("a position")
            .get(0);
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
            assert_eq!(self.number(failed).await, 0, "{}", self.log());
            if let Some(daemon) = &self.daemon {
                let alive = Path::new(&format!("/proc/{}/exe", daemon.id())).exists();
                assert!(alive, "the daemon has ended:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.data.path().join("daemon.log")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop_daemon();
    }
}
