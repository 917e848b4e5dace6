//! A private server and a session on it.

use std::time::{Duration, Instant};

use lantern::embedded::{Installation, PrivatePostgres};
use lantern::postgres::{ConnectionString, Session};

use super::data_path::runtime;
use super::process;

pub struct Server {
    pub postgres: PrivatePostgres,
    pub database: ConnectionString,
    pub session: Session,
}

/// How long a server may take to send what is in its log.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of a temporary server, which would otherwise be a fast one.
const DURABLE: [(&str, &str); 2] = [("fsync", "on"), ("full_page_writes", "on")];

impl Server {
    /// A server in a folder of its own, with pgvector, which forgets what it holds when the machine crashes.
    pub async fn start(settings: &[(&str, &str)]) -> Server {
        let installation = Installation::find(&runtime()).expect("run `make setup` first");
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let postgres =
            PrivatePostgres::start_temporary(&installation, settings).expect("it starts");
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

    /// As [`Server::start`], but commits are durable.
    pub async fn durable(settings: &[(&str, &str)]) -> Server {
        Server::start(&[&DURABLE, settings].concat()).await
    }

    pub fn uri(&self) -> String {
        self.postgres.uri("postgres")
    }

    pub async fn sql(&self, statements: &str) {
        let done = self.session.batch_execute(statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The first column of the first row.
    pub async fn value<T>(&self, query: &str) -> T
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let row = self.session.query_one(query, &[]).await;
        row.unwrap_or_else(|error| panic!("{query}: {error:?}"))
            .get(0)
    }

    /// A jobs table.
    pub async fn jobs_table(&self) {
        self.sql(include_str!("../../sql/jobs.sql")).await;
    }

    /// A job on `table (body)`; where it has no column for vectors, the daemon adds it.
    pub async fn job(&self, table: &str, model: &str, backfill: bool) {
        self.sql(&format!(
            "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model, backfill) \
             VALUES ('{}', 'public', '{table}', 'body', 'embedding', '{model}', {backfill})",
            self.uri()
        ))
        .await;
    }

    /// The parent of every process that works for the server.
    pub async fn postmaster(&self) -> u32 {
        let backend: i32 = self.value("SELECT pg_backend_pid()").await;
        process::parent(backend.unsigned_abs())
    }

    /// Waits until everything that has happened so far has been sent to all who receive changes; returns how long that took.
    pub async fn all_is_sent(&self) -> Duration {
        let begin = Instant::now();
        let now: String = self.value("SELECT pg_current_wal_insert_lsn()::text").await;
        let all = format!(
            "SELECT COALESCE(bool_and(sent_lsn >= '{now}'), true) FROM pg_stat_replication"
        );
        while !self.value::<bool>(&all).await {
            assert!(begin.elapsed() < PATIENCE, "somebody is behind");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begin.elapsed()
    }

    /// Processor time so far of the processes that send changes.
    pub async fn used_by_walsenders(&self) -> Duration {
        let walsenders = "SELECT array(SELECT pid FROM pg_stat_replication)";
        let walsenders: Vec<i32> = self.value(walsenders).await;
        let walsenders = walsenders.into_iter().map(i32::unsigned_abs);
        walsenders.map(process::used).sum()
    }
}
