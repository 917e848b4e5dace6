//! What a schedule plays on: a database of its own on the lane's server, a proxy, a kept daemon, a jobs table.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::daemon::{Home, append};
use super::keeper::Keeper;
use super::model::Model;
use super::proxy::Proxy;
use super::record::Record;
use super::schedule::Schedule;
use super::server::{Server, connect_patiently};
use super::shape::MARK;
use super::workload::load;

pub struct Stage {
    pub server: Arc<Mutex<Server>>,
    pub schedule: Schedule,
    pub proxy: Proxy,
    /// By the numbers of their daemons.
    pub keepers: Vec<Keeper>,
    pub home: Home,
    pub record: Arc<Record>,
    /// The database, by the server's own port.
    pub direct: String,
    /// The same by way of the proxy.
    pub proxied: String,
    pub database: String,
    pub began: Instant,
}

/// As README.md documents it.
const JOBS: &str = "CREATE TABLE jobs (id SERIAL PRIMARY KEY, db_connection TEXT NOT NULL, init_started_at TIMESTAMP, \
    init_failed_at TIMESTAMP, init_finished_at TIMESTAMP, init_failure_reason TEXT, canceled_at BOOL, schema TEXT, \
    \"table\" TEXT, src_column TEXT, dst_column TEXT, embedding_model TEXT)";

impl Stage {
    /// Makes everything that the schedule starts from. `folder` takes the logs.
    pub async fn set(
        server: Arc<Mutex<Server>>,
        schedule: Schedule,
        data_path: &Path,
        folder: &Path,
    ) -> Self {
        let (port, administration, database) = {
            let server = server.lock().await;
            let database = format!("chaos_{}", schedule.seed);
            (
                server.port(),
                server.uri(server.port(), "postgres"),
                database,
            )
        };
        let proxy = Proxy::start(port, schedule.daemons).await.expect("a proxy");
        let (direct, proxied) = {
            let server = server.lock().await;
            (
                server.uri(port, &database),
                server.uri(proxy.port(), &database),
            )
        };
        let client = connect_patiently(&administration, "chaos").await;
        run(
            &client,
            &format!("CREATE DATABASE {database} TEMPLATE template0"),
        )
        .await;
        let client = connect_patiently(&direct, "chaos").await;
        run(
            &client,
            "DO $$ BEGIN IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN CREATE EXTENSION vector; END IF; END $$;
             CREATE TABLE aside (n int);
             CREATE TABLE companion (id int PRIMARY KEY, body text);
             INSERT INTO companion SELECT n, 'w' || n FROM generate_series(1, 30) n",
        )
        .await;
        run(&client, &schedule.shape.create()).await;
        if schedule.rows_before > 0 {
            run(&client, &load(&schedule.shape, 0, schedule.rows_before)).await;
        }
        run(&client, JOBS).await;
        if schedule.shape.fingerprint {
            run(&client, "ALTER TABLE jobs ADD fingerprint_column TEXT").await;
        }
        let record = Arc::new(Record::default());
        let home = Home {
            data_path: data_path.to_owned(),
            log: folder.join("daemon.log"),
            uri: proxied.clone(),
            shares_slot: schedule.shares_slot,
        };
        let stage = Self {
            keepers: (0..schedule.daemons)
                .map(|number| Keeper::start(home.clone(), number, Arc::clone(&record)))
                .collect(),
            server,
            schedule,
            proxy,
            home,
            record,
            direct,
            proxied,
            database,
            began: Instant::now(),
        };
        stage
            .insert_jobs(&client)
            .await
            .expect("the jobs are inserted");
        stage
    }

    /// The job of the schedule, and where there are more one beside it on the same table and one on another.
    pub async fn insert_jobs(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let (column, mark) = match self.schedule.shape.fingerprint {
            true => (
                ", fingerprint_column",
                format!(", CASE WHEN (t, d) = ('notes', 'embedding') THEN '{MARK}' END"),
            ),
            false => ("", String::new()),
        };
        let insert = &format!(
            "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model{column}) \
             SELECT $1, 'public', t, 'body', d, $2{mark} \
             FROM (VALUES ('notes', 'embedding'), ('notes', 'beside'), ('companion', 'embedding')) AS v(t, d) LIMIT $3"
        );
        client
            .execute(
                insert,
                &[&self.proxied, &Model::One.name(), &self.schedule.jobs()],
            )
            .await?;
        Ok(())
    }

    /// A connection past the proxy, as soon as the server is there.
    pub async fn client(&self) -> Client {
        connect_patiently(&self.direct, "chaos").await
    }

    /// Writes into the daemon's log, so that cause and effect stand together.
    pub fn say(&self, line: &str) {
        use std::io::Write;
        let elapsed = self.began.elapsed().as_millis();
        let _ = writeln!(append(&self.home.log), "--- {elapsed} ms: {line}");
    }

    /// Leaves the server as it was found.
    pub async fn strike(self) {
        let Self {
            server,
            keepers,
            proxy,
            database,
            ..
        } = self;
        drop(keepers);
        drop(proxy);
        let administration = {
            let server = server.lock().await;
            server.uri(server.port(), "postgres")
        };
        let client = connect_patiently(&administration, "chaos").await;
        let drop_slots = format!(
            "SELECT CASE WHEN active THEN pg_terminate_backend(active_pid)::text ELSE pg_drop_replication_slot(slot_name)::text END \
             FROM pg_replication_slots WHERE database = '{database}'"
        );
        for _ in 0..500 {
            // A slot may be taken or let go of while we look.
            if let Ok(slots) = client.query(&drop_slots, &[]).await
                && slots.is_empty()
            {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        run(&client, &format!("DROP DATABASE {database} WITH (FORCE)")).await;
    }
}

async fn run(client: &Client, statement: &str) {
    let done = client.batch_execute(statement).await;
    done.unwrap_or_else(|error| panic!("{error:?} in {statement}"));
}
