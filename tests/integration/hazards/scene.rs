use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use lantern::embedded::PrivatePostgres;
use tokio_postgres::Client;

use crate::support::jobs::{InitState, Job, create_documented_table, init_state, insert_job};
use crate::support::{Daemon, TestDatabase, runtime, server, wait_for, wait_until};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TIDES: &str = "The tides follow the moon with a delay.";
pub const MOON: &str = "Mondfinsternis über dem Meer: 月食";
pub const CAVES: &str = "Caves keep the temperature of the year.";
pub const DESERT: &str = "Deserts are cold at night.";
pub const SCRIPT: &str = "SELECT 'quoted', \"twice\" \\ -- {not} a statement";
/// Stored out of line where the column's storage is EXTERNAL.
pub static LONG: LazyLock<String> =
    LazyLock::new(|| "Slow rivers carry fine sand to the delta. ".repeat(200));
/// Every text that the tests use.
pub static VOCABULARY: LazyLock<[&str; 6]> =
    LazyLock::new(|| [TIDES, MOON, CAVES, DESERT, SCRIPT, &LONG]);

/// What `lantern-cli embed` makes of the vocabulary.
static VECTORS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let output = Command::new(env!("CARGO_BIN_EXE_lantern-cli"))
        .args(["embed", "--data-path"])
        .arg(runtime())
        .arg("--")
        .args(*VOCABULARY)
        .output()
        .expect("lantern-cli starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let vectors = String::from_utf8(output.stdout).expect("numbers");
    vectors.lines().map(str::to_owned).collect()
});

/// The table of most tests.
const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, embedding vector(384))";

/// A database with a jobs table, the table `notes`, and `truth`: the right vector of each text of the vocabulary.
pub struct Scene {
    // Dropped in this order.
    daemons: Vec<Daemon>,
    pub client: Client,
    pub database: TestDatabase,
}

impl Scene {
    /// On the shared server, with the job of `notes`.
    pub async fn of_notes() -> Scene {
        let scene = Scene::on(server(), NOTES).await;
        scene.job("notes", "body").await;
        scene
    }

    /// With a table of the test's own, and no job yet.
    pub async fn on(server: &'static PrivatePostgres, tables: &str) -> Scene {
        let scene = Scene::in_database(TestDatabase::with_vector(server).await).await;
        scene
            .sql("CREATE TABLE truth (body text PRIMARY KEY, vector vector(384))")
            .await;
        for (text, vector) in VOCABULARY.iter().zip(VECTORS.iter()) {
            // Numbers in brackets, as pgvector reads them; an array wants braces.
            let insert = scene
                .database
                .adapted("INSERT INTO truth VALUES ($1, translate($2::text, '[]', '{}')::real[]::vector(384))");
            let inserted = scene.client.execute(&insert, &[text, vector]).await;
            inserted.expect("a vector");
        }
        scene.sql(tables).await;
        scene
    }

    /// With the jobs table only.
    pub async fn in_database(database: TestDatabase) -> Scene {
        let client = database.client().await;
        create_documented_table(&client).await;
        Scene {
            daemons: Vec::new(),
            client,
            database,
        }
    }

    /// A job that writes the column `embedding`.
    pub async fn job(&self, table: &str, source: &str) -> i32 {
        let job = Job::on(&self.database, table, source, "embedding");
        insert_job(&self.client, job).await
    }

    pub async fn sql(&self, statements: &str) {
        let statements = self.database.adapted(statements);
        let done = self.client.batch_execute(&statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The one value of a query, as text; "" for NULL.
    pub async fn value(&self, query: &str) -> String {
        let query = format!("SELECT (q)::text FROM ({query}) AS s(q)");
        let row = self.client.query_one(&query, &[]).await;
        let row = row.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub async fn wait_for(&self, query: &str, expected: &str) {
        let ask = async || self.value(query).await;
        wait_for(query, PATIENCE, expected.to_owned(), ask).await;
    }

    /// Writes texts into `notes`, with ids from 1.
    pub async fn write(&self, texts: &[&str]) {
        for (text, id) in texts.iter().zip(1..) {
            self.put(id, text).await;
        }
    }

    pub async fn put(&self, id: i32, text: &str) {
        let upsert = "INSERT INTO notes (id, body) VALUES ($1::int, $2) ON CONFLICT (id) DO UPDATE SET body = $2";
        let written = self.client.execute(upsert, &[&id, &text]).await;
        written.expect("the row is written");
    }

    /// Starts a daemon and waits until every job has looked through its existing rows.
    pub async fn start(&mut self) {
        self.spawn();
        self.start_is_over().await;
    }

    /// Waits until every job has looked through its existing rows and streams.
    pub async fn start_is_over(&self) {
        let unfinished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NULL \
                          OR init_finished_at < init_started_at OR init_failed_at IS NOT NULL \
                          OR id::text NOT IN (SELECT split_part(slot_name, '_', 3) FROM pg_replication_slots \
                                              WHERE database = current_database() AND active)";
        self.wait_for(unfinished, "0").await;
    }

    /// Waits until neither publication nor slot is left.
    pub async fn gone(&self) {
        let ask = async || self.leftovers().await;
        let none = "0 publications, 0 slots".to_owned();
        wait_for("nothing is left", PATIENCE, none, ask).await;
    }

    /// A default for the sessions that begin after it.
    pub async fn set_default(&self, setting: &str, value: &str) {
        let database = self.database.name();
        self.sql(&format!(
            "ALTER DATABASE {database} SET {setting} = '{value}'"
        ))
        .await;
    }

    /// Starts a daemon and waits for nothing.
    pub fn spawn(&mut self) -> &mut Daemon {
        self.spawn_with(&[])
    }

    /// Starts a daemon with further arguments and waits for nothing.
    pub fn spawn_with(&mut self, arguments: &[&str]) -> &mut Daemon {
        self.daemons.push(Daemon::start(&self.database, arguments));
        self.daemons.last_mut().expect("it was pushed")
    }

    /// The oldest daemon that runs.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemons.first_mut().expect("it was started")
    }

    pub fn sigkill(&mut self) {
        self.daemons.remove(0).sigkill();
    }

    pub async fn sigterm(&mut self) {
        let (status, _) = self.daemon().sigterm_and_wait().await;
        assert!(status.success(), "{status}");
        self.daemons.remove(0);
    }

    pub async fn lsn(&self) -> String {
        self.value("SELECT pg_current_wal_insert_lsn()").await
    }

    /// Waits until everything that has happened so far is confirmed, and holds it to the truth.
    pub async fn caught_up(&self) {
        let now = self.lsn().await;
        self.confirmed(&now).await;
        assert_eq!(self.wrong("notes", "body").await, "");
    }

    /// Waits until this position is confirmed.
    pub async fn confirmed(&self, lsn: &str) {
        let behind = format!(
            "SELECT bool_and(confirmed_flush_lsn >= '{lsn}') FROM pg_replication_slots WHERE database = current_database()"
        );
        self.wait_for(&behind, "true").await;
    }

    /// Waits until every row of a table has the right vector.
    pub async fn settled(&self, table: &str, source: &str) {
        let look = async || self.wrong(table, source).await;
        wait_for("every vector is right", PATIENCE, String::new(), look).await;
    }

    /// Some of the rows of a table with a wrong vector; "" if there are none.
    pub async fn wrong(&self, table: &str, source: &str) -> String {
        let query = format!(
            "SELECT string_agg(what, '; ') FROM ( \
               SELECT format('%s %s has %s', n.ctid, left(n.{source}, 20), CASE WHEN n.embedding IS NULL THEN 'no vector' \
                 ELSE COALESCE('the vector of ' || (SELECT left(o.body, 20) FROM truth o WHERE o.vector <-> n.embedding < 0.001), \
                 'a vector of nothing known') END) AS what \
               FROM {table} n LEFT JOIN truth ON truth.body = n.{source} \
               WHERE NOT CASE WHEN COALESCE(n.{source}, '') = '' THEN n.embedding IS NULL \
                 ELSE COALESCE(n.embedding <-> truth.vector < 0.001, false) END LIMIT 5) AS w"
        );
        self.value(&query).await
    }

    /// Each row's id with the transaction that wrote its current version.
    pub async fn versions(&self) -> String {
        let query = "SELECT string_agg(id || ':' || xmin::text, ' ' ORDER BY id) FROM notes";
        self.value(query).await
    }

    /// Waits until the (only) job has failed; returns why.
    pub async fn failure(&self) -> String {
        let id: i32 = self
            .value("SELECT id FROM jobs")
            .await
            .parse()
            .expect("one job");
        wait_until("the job fails", PATIENCE, async || {
            match init_state(&self.client, id).await {
                InitState {
                    failed: true,
                    failure_reason: Some(reason),
                    ..
                } => Ok(reason),
                other => Err(other),
            }
        })
        .await
    }

    /// Waits until these rows are aside: the columns of the failures table that `what` says, in order of the key.
    pub async fn wait_for_aside(&self, what: &str, expected: &str) {
        let query = format!(
            "SELECT string_agg(({what})::text, ', ' ORDER BY (key->>'id')::int) FROM jobs_failures"
        );
        // The table is created with the first row.
        let ask = async || match self.value("SELECT to_regclass('jobs_failures')").await {
            missing if missing.is_empty() => missing,
            _ => self.value(&query).await,
        };
        wait_for(&query, PATIENCE, expected.to_owned(), ask).await;
    }

    /// Publications and slots that are there.
    pub async fn leftovers(&self) -> String {
        let query = "SELECT (SELECT count(*) FROM pg_publication) || ' publications, ' || (SELECT count(*) \
                     FROM pg_replication_slots WHERE database = current_database()) || ' slots'";
        self.value(query).await
    }
}
