//! A scene: a database with a jobs table, daemons on it, and the right vector of each text that a test uses.

use std::sync::LazyLock;

use lantern::embedded::PrivatePostgres;
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::client::{execute, value};
use crate::database::TestDatabase;
use crate::jobs::{self, Job, create_documented_table, insert_job};
use crate::process::Process;
use crate::program::Program;
use crate::vectors::embed;
use crate::wait::{TIMEOUT, wait_for};

/// A text.
pub const TIDES: &str = "The tides follow the moon with a delay.";
/// A text with characters outside of ASCII.
pub const MOON: &str = "Mondfinsternis über dem Meer: 月食";
/// A text.
pub const CAVES: &str = "Caves keep the temperature of the year.";
/// A text.
pub const DESERT: &str = "Deserts are cold at night.";
/// A text that quotes what SQL and formats give a meaning to.
pub const SCRIPT: &str = "SELECT 'quoted', \"twice\" \\ -- {not} a statement";
/// A text that is stored out of line (TOAST) where the column's storage is EXTERNAL.
pub static LONG: LazyLock<String> =
    LazyLock::new(|| "Slow rivers carry fine sand to the delta. ".repeat(200));
/// All of these texts.
pub static VOCABULARY: LazyLock<[&str; 6]> =
    LazyLock::new(|| [TIDES, MOON, CAVES, DESERT, SCRIPT, &LONG]);

/// The table of most tests.
pub const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, embedding vector(384))";

/// The replication slots of the current database.
const SLOTS: &str = "pg_replication_slots WHERE database = current_database()";

/// A database with a jobs table, and the table `truth` with the right vector of each text of the [`VOCABULARY`].
pub struct Scene {
    // Dropped in this order.
    daemons: Vec<Process>,
    /// A connection as the superuser.
    pub client: Client,
    /// The database.
    pub database: TestDatabase,
    program: Program,
}

impl Scene {
    /// With these tables, and no job yet.
    pub async fn new(program: Program, server: &'static PrivatePostgres, tables: &str) -> Scene {
        let database = TestDatabase::with_vector(server).await;
        let scene = Scene::without_vectors(program, database).await;
        scene
            .sql("CREATE TABLE truth (body text PRIMARY KEY, vector vector(384))")
            .await;
        let insert = scene
            .database
            .adapted("INSERT INTO truth VALUES ($1, $2::real[]::vector(384))");
        for (text, vector) in VOCABULARY.iter().zip(right_vectors().await) {
            scene.execute(&insert, &[text, vector]).await;
        }
        scene.sql(tables).await;
        scene
    }

    /// With the jobs table alone.
    pub async fn without_vectors(program: Program, database: TestDatabase) -> Scene {
        let client = database.client().await;
        create_documented_table(&client).await;
        Scene {
            daemons: Vec::new(),
            client,
            database,
            program,
        }
    }

    /// Inserts a job that writes the column `embedding`; returns its id.
    pub async fn job(&self, table: &str, source: &str) -> i32 {
        let job = Job::on(&self.database, table, source, "embedding");
        insert_job(&self.client, job).await
    }

    /// Runs statements, in which `vector(384)` stands for the type of vectors that the server has.
    pub async fn sql(&self, statements: &str) {
        execute(&self.client, &self.database.adapted(statements)).await;
    }

    /// Runs a statement with parameters.
    ///
    /// # Panics
    ///
    /// Where it fails.
    pub async fn execute(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) {
        let done = self.client.execute(statement, parameters).await;
        done.unwrap_or_else(|error| panic!("{error:?} in {statement}"));
    }

    /// Another session of the superuser, after these statements.
    pub async fn session(&self, statements: &str) -> Client {
        let client = self.database.client().await;
        execute(&client, statements).await;
        client
    }

    /// The one value of a query, as text; "" for NULL.
    pub async fn value(&self, query: &str) -> String {
        let query = format!("SELECT COALESCE((q)::text, '') FROM ({query}) AS s(q)");
        value(&self.client, &query).await
    }

    /// Waits until a query returns this value.
    pub async fn wait_for(&self, query: &str, expected: &str) {
        let ask = async || self.value(query).await;
        wait_for(query, TIMEOUT, expected.to_owned(), ask).await;
    }

    /// Writes texts into `notes`, with ids from 1.
    pub async fn write(&self, texts: &[&str]) {
        for (text, id) in texts.iter().zip(1..) {
            self.put(id, text).await;
        }
    }

    /// Writes a text into `notes`.
    pub async fn put(&self, id: i32, text: &str) {
        self.put_into("notes", id, text).await;
    }

    /// Writes a text into the columns `id` and `body` of a table.
    pub async fn put_into(&self, table: &str, id: i32, text: &str) {
        let upsert = format!(
            "INSERT INTO {table} (id, body) VALUES ($1::int, $2) ON CONFLICT (id) DO UPDATE SET body = $2"
        );
        self.execute(&upsert, &[&id, &text]).await;
    }

    /// Sets the default of a setting for sessions to come.
    pub async fn set_default(&self, setting: &str, value: &str) {
        let database = self.database.name();
        let alter = format!("ALTER DATABASE {database} SET {setting} = '{value}'");
        self.sql(&alter).await;
    }

    /// Starts a daemon and waits until every job streams and has finished its backfill.
    pub async fn start_daemon(&mut self) {
        self.spawn_daemon();
        self.wait_for_backfill().await;
    }

    /// Starts a daemon and does not wait.
    pub fn spawn_daemon(&mut self) -> &mut Process {
        self.spawn_daemon_with(&[])
    }

    /// Starts a daemon with further arguments and does not wait. Its jobs may lead to this machine, so that it has nothing to
    /// warn of at its start.
    pub fn spawn_daemon_with(&mut self, arguments: &[&str]) -> &mut Process {
        let uri = self.database.uri();
        let arguments = [&["--uri", &uri], arguments].concat();
        let hosts = ("LANTERN_ALLOW_HOST", "127.0.0.1,localhost");
        let daemon = self.program.start_daemon_with_env(&[hosts], &arguments);
        self.daemons.push(daemon);
        self.daemons.last_mut().expect("it was pushed")
    }

    /// The oldest daemon that runs.
    pub fn daemon(&mut self) -> &mut Process {
        self.daemons.first_mut().expect("it was started")
    }

    /// Kills the oldest daemon.
    pub fn kill_daemon(&mut self) {
        self.daemons.remove(0).kill();
    }

    /// Asks the oldest daemon to end and waits for that.
    pub async fn stop_daemon(&mut self) {
        let (status, _) = self.daemons.remove(0).terminate().await;
        assert!(status.success(), "{status}");
    }

    /// Waits until every job streams and has finished its backfill.
    pub async fn wait_for_backfill(&self) {
        let unfinished = format!(
            "SELECT count(*) FROM jobs WHERE init_finished_at IS NULL OR init_finished_at < init_started_at \
             OR init_failed_at IS NOT NULL OR id::text NOT IN (SELECT split_part(slot_name, '_', 3) FROM {SLOTS} AND active)"
        );
        self.wait_for(&unfinished, "0").await;
    }

    /// Waits until neither a publication nor a slot is left.
    pub async fn wait_for_cleanup(&self) {
        let ask = async || self.leftovers().await;
        let none = "0 publications, 0 slots".to_owned();
        wait_for("nothing is left", TIMEOUT, none, ask).await;
    }

    /// Waits until no slot is left; publications may stay.
    pub async fn wait_for_no_slot(&self) {
        let slots = format!("SELECT count(*) FROM {SLOTS}");
        self.wait_for(&slots, "0").await;
    }

    /// The number of publications and slots.
    pub async fn leftovers(&self) -> String {
        let query = format!(
            "SELECT (SELECT count(*) FROM pg_publication) || ' publications, ' || (SELECT count(*) FROM {SLOTS}) || ' slots'"
        );
        self.value(&query).await
    }

    /// Drops the slots of the database, which nothing may read from.
    pub async fn drop_slots(&self) {
        let drop = format!("SELECT pg_drop_replication_slot(slot_name) FROM {SLOTS}");
        self.sql(&drop).await;
    }

    /// Drops the only publication; returns its name.
    pub async fn drop_publication(&self) -> String {
        let name = self.value("SELECT pubname FROM pg_publication").await;
        self.sql(&format!("DROP PUBLICATION \"{name}\"")).await;
        name
    }

    /// The end of the WAL.
    pub async fn wal_end(&self) -> String {
        self.value("SELECT pg_current_wal_insert_lsn()").await
    }

    /// Waits until this position is confirmed.
    pub async fn wait_for_confirmation(&self, lsn: &str) {
        let confirmed = format!("SELECT bool_and(confirmed_flush_lsn >= '{lsn}') FROM {SLOTS}");
        self.wait_for(&confirmed, "true").await;
    }

    /// Waits until everything that has happened so far is confirmed.
    pub async fn wait_until_confirmed(&self) {
        let now = self.wal_end().await;
        self.wait_for_confirmation(&now).await;
    }

    /// Waits until everything that has happened so far is confirmed, and asserts that every vector of `notes` is right
    /// at that moment. A confirmed position promises that, so this is the strongest question that a test can ask.
    pub async fn caught_up(&self) {
        self.wait_until_confirmed().await;
        assert_eq!(self.wrong_vectors("notes", "body").await, "");
    }

    /// Waits until every row of a table has the right vector.
    pub async fn wait_for_vectors(&self, table: &str, source: &str) {
        let ask = async || self.wrong_vectors(table, source).await;
        wait_for("every vector is right", TIMEOUT, String::new(), ask).await;
    }

    /// Some of the rows of a table with a wrong vector; "" if there are none.
    pub async fn wrong_vectors(&self, table: &str, source: &str) -> String {
        let query = format!(
            "SELECT string_agg(what, '; ') FROM ( \
               SELECT format('%s %s has %s', n.ctid, left(n.{source}, 20), CASE WHEN n.embedding IS NULL THEN 'no vector' \
                 ELSE COALESCE('the vector of ' || (SELECT left(o.body, 20) FROM truth o WHERE o.vector <-> n.embedding < 0.001), \
                 'an unknown vector') END) AS what \
               FROM {table} n LEFT JOIN truth ON truth.body = n.{source} \
               WHERE NOT CASE WHEN COALESCE(n.{source}, '') = '' THEN n.embedding IS NULL \
                 ELSE COALESCE(n.embedding <-> truth.vector < 0.001, false) END LIMIT 5) AS w"
        );
        self.value(&query).await
    }

    /// Each row's id in `notes` with the transaction that wrote its current version.
    pub async fn row_versions(&self) -> String {
        let query = "SELECT string_agg(id || ':' || xmin::text, ' ' ORDER BY id) FROM notes";
        self.value(query).await
    }

    /// Waits until the (only) job has failed; returns the reason.
    pub async fn wait_for_failure(&self) -> String {
        let id = value(&self.client, "SELECT id FROM jobs").await;
        jobs::wait_for_failure(&self.client, id).await
    }

    /// The reasons of the jobs that have failed; "" if there are none.
    pub async fn failures(&self) -> String {
        let reasons = "SELECT string_agg(init_failure_reason, '; ') FROM jobs";
        self.value(reasons).await
    }

    /// Waits until the failures table holds these rows: `columns` of each, in the order of the key.
    pub async fn wait_for_failed_rows(&self, columns: &str, expected: &str) {
        let query = format!(
            "SELECT string_agg(({columns})::text, ', ' ORDER BY (key->>'id')::int) FROM jobs_failures"
        );
        // The table is created with the first row.
        let ask = async || match self.value("SELECT to_regclass('jobs_failures')").await {
            missing if missing.is_empty() => missing,
            _ => self.value(&query).await,
        };
        wait_for(&query, TIMEOUT, expected.to_owned(), ask).await;
    }
}

/// The vectors of the [`VOCABULARY`].
async fn right_vectors() -> &'static [Vec<f32>] {
    static VECTORS: OnceCell<Vec<Vec<f32>>> = OnceCell::const_new();
    let texts = || VOCABULARY.map(str::to_owned).to_vec();
    VECTORS.get_or_init(|| embed(texts())).await
}
