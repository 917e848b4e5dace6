//! What a schedule runs on: a database of its own on the lane's server, a proxy, daemons with their service managers,
//! jobs.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::client::{connect_when_ready, execute};
use testkit::database::{create_database, drop_database};
use testkit::jobs::{Job, create_documented_table, try_insert_job};
use testkit::tiny_model::TinyModel;
use testkit::{Program, RestartableServer};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Error};

use super::daemon::DaemonConfig;
use super::documents::cutting::Cutting;
use super::documents::tables;
use super::engine::Engines;
use super::proxy::Proxy;
use super::record::Record;
use super::role;
use super::schedule::Schedule;
use super::service_manager::ServiceManager;
use super::shape::FINGERPRINT;
use super::workload::load;

/// The `application_name` of the harness's own sessions.
pub const HARNESS: &str = "chaos";

pub struct Testbed {
    pub server: Arc<Mutex<RestartableServer>>,
    pub schedule: Schedule,
    pub proxy: Proxy,
    /// By the numbers of their daemons.
    pub managers: Vec<ServiceManager>,
    pub config: DaemonConfig,
    pub record: Arc<Record>,
    /// The servers that compute the vectors, where there are some.
    pub engines: Option<Engines>,
    /// The database, by the server's own port.
    pub direct: String,
    /// What the jobs connect with: by way of the proxy.
    pub db_connection: String,
    /// Another database of the server, from which this one is created and dropped.
    maintenance: String,
    pub database: String,
    pub began: Instant,
    /// Held by faults that need the passages for themselves: they would wait for each other's locks.
    pub at_passages: Mutex<()>,
}

/// How long the first scan is waited for.
const FIRST_SCAN_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What every schedule finds beside its own table.
const TABLES: &str = "
    DO $$ BEGIN
      IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN CREATE EXTENSION vector; END IF;
    END $$;
    CREATE TABLE unrelated (n int);
    CREATE TABLE companion (id int PRIMARY KEY, body text);
    INSERT INTO companion SELECT n, 'w' || n FROM generate_series(1, 30) n";

impl Testbed {
    /// Makes everything that the schedule starts from. `folder` takes the logs.
    pub async fn prepare(
        server: Arc<Mutex<RestartableServer>>,
        schedule: Schedule,
        program: Program,
        folder: &Path,
    ) -> Self {
        let database = format!("chaos_{}", schedule.seed);
        let port = server.lock().await.port();
        let proxy = Proxy::start(port, schedule.daemons).await.expect("a proxy");
        let (maintenance, direct, proxied) = {
            let server = server.lock().await;
            (
                server.uri("postgres"),
                server.uri(&database),
                server.uri_through(proxy.port(), &database),
            )
        };
        let client = connect_when_ready(&maintenance, HARNESS).await;
        create_database(&client, &database).await;
        let client = connect_when_ready(&direct, HARNESS).await;
        create_tables(&client, &schedule).await;
        let record = Arc::new(Record::default());
        let db_connection = match schedule.has_role {
            true => role::uri(&proxied),
            false => proxied.clone(),
        };
        let config = DaemonConfig {
            program,
            log: folder.join("daemon.log"),
            uri: proxied,
            shares_slot: schedule.shares_slot,
        };
        let mut testbed = Self {
            managers: (0..schedule.daemons)
                .map(|number| ServiceManager::start(config.clone(), number, Arc::clone(&record)))
                .collect(),
            engines: schedule.engine.as_ref().map(|_| Engines::start()),
            server,
            schedule,
            proxy,
            config,
            record,
            direct,
            db_connection,
            maintenance,
            database,
            began: Instant::now(),
            at_passages: Mutex::new(()),
        };
        let inserted = testbed.insert_jobs(&client).await;
        inserted.expect("the jobs are inserted");
        let documents = testbed.schedule.documents.as_ref();
        if documents.is_some_and(|documents| documents.waits_for_job) {
            wait_for_first_scan(&client).await;
            testbed.began = Instant::now();
        }
        testbed
    }

    /// The job of the schedule. Where there are more: a second one on the same table, and one on another table.
    pub async fn insert_jobs(&self, client: &Client) -> Result<(), Error> {
        let fingerprint = format!("'{FINGERPRINT}'");
        let params = self.engines.as_ref().map(Engines::params);
        let params = params.map(|params| format!("'{params}'"));
        let documents = self.schedule.documents.as_ref().map(|documents| {
            let params = self.params_of_documents(&documents.cutting).to_string();
            let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
            (quoted(documents.table.written), quoted(&params))
        });
        let jobs = [
            ("notes", "embedding"),
            ("notes", "second"),
            ("companion", "embedding"),
        ];
        // All of them at once: a daemon polls the table.
        client.batch_execute("BEGIN").await?;
        for (number, (table, destination)) in
            jobs.into_iter().take(self.schedule.jobs()).enumerate()
        {
            let has_fingerprint = number == 0 && self.schedule.shape.fingerprint;
            let mut options = Vec::new();
            options.extend(has_fingerprint.then_some(("fingerprint_column", fingerprint.as_str())));
            let documents = documents.as_ref().filter(|_| number == 0);
            if let Some((table, _)) = documents {
                options.push(("chunk_table", table.as_str()));
            }
            if params.is_some() {
                options.push(("runtime", "'openai'"));
            }
            let params = documents.map(|(_, params)| params).or(params.as_ref());
            options.extend(params.map(|params| ("runtime_params", params.as_str())));
            let job = Job {
                embedding_model: TinyModel::One.name(),
                options: &options,
                ..Job::at(self.db_connection.clone(), table, "body", destination)
            };
            try_insert_job(client, &job).await?;
        }
        client.batch_execute("COMMIT").await
    }

    /// `runtime_params` of the job with documents that are cut like this.
    pub fn params_of_documents(&self, cutting: &Cutting) -> Value {
        let mut params = cutting.params();
        if let (Some(engines), Value::Object(all)) = (&self.engines, &mut params) {
            let engines: Value = serde_json::from_str(&engines.params()).expect("an object");
            all.extend(engines.as_object().cloned().unwrap_or_default());
            // The judge counts as it does.
            all.insert("tokenizer".into(), TinyModel::One.name().into());
        }
        params
    }

    /// A connection past the proxy, as soon as the server answers.
    pub async fn client(&self) -> Client {
        connect_when_ready(&self.direct, HARNESS).await
    }

    /// Writes a line into the daemons' log, so that cause and effect stand together.
    pub fn log(&self, line: &str) {
        let elapsed = self.began.elapsed().as_millis();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.config.log);
        let _ = log.and_then(|mut log| writeln!(log, "--- {elapsed} ms: {line}"));
    }

    /// Leaves the server as it was found.
    pub async fn remove(self) {
        drop(self.managers);
        drop(self.proxy);
        let client = connect_when_ready(&self.maintenance, HARNESS).await;
        drop_database(&client, &self.database).await;
    }
}

/// Waits until the initial backfill of all jobs is over, or for a while: some rows may be embedded by servers that are slow.
async fn wait_for_first_scan(client: &Client) {
    let is_over = "SELECT COALESCE(bool_and(init_finished_at IS NOT NULL), false) FROM jobs";
    let began = Instant::now();
    while began.elapsed() < FIRST_SCAN_TIMEOUT {
        let answer = client.query_one(is_over, &[]).await;
        if answer.is_ok_and(|answer| answer.get(0)) {
            return;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn create_tables(client: &Client, schedule: &Schedule) {
    execute(client, TABLES).await;
    execute(client, &schedule.shape.create()).await;
    if let Some(documents) = &schedule.documents {
        execute(client, &tables::create(schedule, documents)).await;
    }
    if schedule.rows_before > 0 {
        let load = match schedule.documents {
            Some(_) => tables::load,
            None => load,
        };
        execute(client, &load(&schedule.shape, 0, schedule.rows_before)).await;
    }
    if schedule.has_role {
        execute(client, role::CREATE).await;
        execute(client, role::ADMIT).await;
        if let Some(documents) = &schedule.documents {
            execute(client, &tables::grant(documents)).await;
        }
    }
    create_documented_table(client).await;
    if schedule.shape.fingerprint {
        execute(client, "ALTER TABLE jobs ADD fingerprint_column TEXT").await;
    }
    if schedule.documents.is_some() {
        execute(client, "ALTER TABLE jobs ADD chunk_table TEXT").await;
    }
    if schedule.engine.is_some() || schedule.documents.is_some() {
        execute(
            client,
            "ALTER TABLE jobs ADD runtime TEXT, ADD runtime_params JSONB",
        )
        .await;
    }
}
