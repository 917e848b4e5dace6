//! A private server and a session of the product on it.

use std::time::{Duration, Instant};

use lantern::embedded::PrivatePostgres;
use lantern::postgres::{ConnectionString, Session};
use testkit::client::{self, execute};
use testkit::jobs::{Job, insert_job};
use testkit::server::{self, DURABLE};
use testkit::wait::poll_until;
use testkit::{paths, procfs};
use tokio_postgres::types::FromSqlOwned;

/// How long a server may take to send what is in its log.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Server {
    pub postgres: PrivatePostgres,
    pub database: ConnectionString,
    pub session: Session,
}

impl Server {
    /// A server with pgvector in a temporary directory. A crash of the machine loses what it holds.
    pub async fn start(settings: &[(&str, &str)]) -> Server {
        let postgres = server::start(&server::installation(), settings).expect("it starts");
        let database: ConnectionString = postgres.uri("postgres").parse().expect("a URI");
        let session = Session::open(&database).await.expect("a session");
        let server = Server {
            postgres,
            database,
            session,
        };
        server
            .sql("SET search_path = public; CREATE EXTENSION vector SCHEMA public")
            .await;
        server
    }

    /// As [`Server::start`], with durable commits.
    pub async fn durable(settings: &[(&str, &str)]) -> Server {
        Server::start(&[&DURABLE, settings].concat()).await
    }

    pub fn uri(&self) -> String {
        self.postgres.uri("postgres")
    }

    pub async fn sql(&self, statements: &str) {
        execute(&self.session, statements).await;
    }

    /// The first column of the one row that a query returns.
    pub async fn value<T: FromSqlOwned>(&self, query: &str) -> T {
        client::value(&self.session, query).await
    }

    /// Waits until a query returns true, and panics with `context` after `timeout`.
    pub async fn until(
        &self,
        query: &str,
        interval: Duration,
        timeout: Duration,
        context: impl Fn() -> String,
    ) {
        let holds = async || self.value::<bool>(query).await.then_some(()).ok_or(());
        let polled = poll_until(interval, timeout, holds).await;
        polled.unwrap_or_else(|()| panic!("not within {timeout:?}: {query}: {}", context()));
    }

    /// Creates the jobs table, with its optional columns.
    pub async fn create_jobs_table(&self) {
        self.sql(&paths::read("sql/jobs.sql")).await;
    }

    /// Inserts a job on `table (body)` that writes the column `embedding`. The daemon adds the column where it is
    /// missing.
    pub async fn job(&self, table: &str, model: &str) {
        self.job_with(table, model, &[]).await;
    }

    /// As [`job`](Self::job), for rows to come alone.
    pub async fn job_without_backfill(&self, table: &str, model: &str) {
        self.job_with(table, model, &[("backfill", "false")]).await;
    }

    /// As [`job`](Self::job), with these optional columns as SQL.
    pub async fn job_with(&self, table: &str, model: &str, options: &[(&str, &str)]) {
        let job = Job {
            embedding_model: model,
            options,
            ..Job::at(self.uri(), table, "body", "embedding")
        };
        insert_job(&self.session, job).await;
    }

    /// The parent of every process that works for the server.
    pub async fn postmaster(&self) -> u32 {
        let backend: i32 = self.value("SELECT pg_backend_pid()").await;
        procfs::parent(backend.unsigned_abs())
    }

    /// Waits until everything that has happened so far has been sent by all walsenders; returns how long that took.
    pub async fn wait_until_sent(&self) -> Duration {
        let begin = Instant::now();
        let now: String = self.value("SELECT pg_current_wal_insert_lsn()::text").await;
        let sent = format!(
            "SELECT COALESCE(bool_and(sent_lsn >= '{now}'), true) FROM pg_stat_replication"
        );
        let interval = Duration::from_millis(20);
        self.until(&sent, interval, SEND_TIMEOUT, String::new).await;
        begin.elapsed()
    }

    /// Processor time of the walsenders so far.
    pub async fn cpu_time_of_walsenders(&self) -> Duration {
        self.cpu_time_of("SELECT array(SELECT pid FROM pg_stat_replication)")
            .await
    }

    /// Processor time so far of the server's processes whose ids a query returns as an array.
    pub async fn cpu_time_of(&self, processes: &str) -> Duration {
        let processes: Vec<i32> = self.value(processes).await;
        let processes = processes.into_iter().map(i32::unsigned_abs);
        processes.map(procfs::cpu_time).sum()
    }
}
