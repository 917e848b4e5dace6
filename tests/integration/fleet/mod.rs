//! Several daemons with one jobs table. The tests assert what the server shows: which session holds which lock, and how
//! often each vector was written. How soon others take over is measured, and bounded, by the chaos tests, whose model
//! leaves the processors free.

mod ends;
mod hang;
mod kill;
mod network;
mod outage;
mod process_network;
mod sharing;

use testkit::scene::TIDES;
use testkit::wait::{TIMEOUT, wait_for};
use testkit::{Process, Scene};

use crate::support::{scene_with, start_daemon};

/// Some tables, each with a job, and the daemons that share them. A trigger notes each write of a vector.
struct Fleet {
    // Dropped in this order.
    daemons: Vec<Process>,
    scene: Scene,
    jobs: usize,
}

impl Fleet {
    /// Tables `t1`, `t2`, …, and no daemon yet.
    async fn of(jobs: usize) -> Fleet {
        let fleet = Fleet::without_jobs(jobs).await;
        for table in fleet.tables() {
            fleet.scene.job(&table, "body").await;
        }
        fleet
    }

    async fn without_jobs(jobs: usize) -> Fleet {
        let notes =
            "CREATE TABLE writes (place text, id int, at timestamptz DEFAULT clock_timestamp());
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
              'BEGIN INSERT INTO public.writes VALUES (TG_TABLE_NAME, NEW.id); RETURN NEW; END'";
        let fleet = Fleet {
            daemons: Vec::new(),
            scene: scene_with(notes).await,
            jobs,
        };
        for table in fleet.tables() {
            let create = format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, body text, embedding vector(384));
                 CREATE TRIGGER note BEFORE UPDATE OF embedding ON {table} FOR EACH ROW EXECUTE FUNCTION note()"
            );
            fleet.scene.sql(&create).await;
        }
        fleet
    }

    fn tables(&self) -> Vec<String> {
        (1..=self.jobs).map(|number| format!("t{number}")).collect()
    }

    fn start_daemon(&mut self) -> &mut Process {
        self.daemons.push(start_daemon(&self.scene.database, &[]));
        self.daemons.last_mut().expect("it was pushed")
    }

    /// Starts a daemon and waits until it takes part.
    async fn join(&mut self) {
        self.start_daemon();
        let present = self.daemons.len().to_string();
        self.scene
            .wait_for(
                "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                &present,
            )
            .await;
    }

    /// How many jobs each daemon holds, in ascending order.
    async fn loads(&self) -> String {
        self.scene
            .value(
                "SELECT string_agg(jobs::text, ' ' ORDER BY jobs) FROM ( \
                   SELECT count(*) AS jobs FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                   WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted \
                     AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs' GROUP BY l.pid) AS held",
            )
            .await
    }

    async fn wait_for_loads(&self, expected: &str) {
        let look = async || self.loads().await;
        wait_for(
            "the jobs are distributed",
            TIMEOUT,
            expected.to_owned(),
            look,
        )
        .await;
    }

    /// Waits until this many jobs stream.
    async fn wait_for_streams(&self, jobs: usize) {
        let active = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
        self.scene.wait_for(active, &jobs.to_string()).await;
    }

    /// Each slot with the walsender that reads it: a stream that was interrupted has another one.
    async fn walsenders(&self) -> String {
        let walsenders = "SELECT string_agg(slot_name || active_pid, ' ' ORDER BY slot_name) FROM pg_replication_slots \
                          WHERE database = current_database()";
        self.scene.value(walsenders).await
    }

    /// Writes a row into every table.
    async fn put(&self, id: i32, text: &str) {
        for table in self.tables() {
            self.scene.put_into(&table, id, text).await;
        }
    }

    /// Waits until every row of every table has its vector.
    async fn wait_for_vectors(&self) {
        for table in self.tables() {
            self.scene.wait_for_vectors(&table, "body").await;
        }
    }

    /// Rows whose vector was not written exactly this often.
    async fn not_written(&self, times: usize) -> String {
        let query = format!(
            "SELECT string_agg(place || '.' || id || ': ' || n, ', ') FROM ( \
               SELECT place, id, count(*) AS n FROM writes GROUP BY place, id HAVING count(*) <> {times}) AS odd"
        );
        self.scene.value(&query).await
    }

    /// One session writes for each job, however many daemons believe that they run it.
    async fn each_job_has_one_writer(&self) {
        let writers = "SELECT count(*) || ' sessions for ' || count(DISTINCT application_name) || ' jobs' FROM pg_stat_activity \
                       WHERE datname = current_database() AND application_name LIKE 'lantern-cli: job % write-back'";
        let expected = format!("{0} sessions for {0} jobs", self.jobs);
        assert_eq!(self.scene.value(writers).await, expected);
    }

    /// Two daemons that share the jobs, each table with one row whose vector is confirmed.
    async fn of_two(jobs: usize, loads: &str) -> Fleet {
        Fleet::of(jobs).await.with_two(loads).await
    }

    /// Two daemons, which have written a row of each table.
    async fn with_two(mut self, loads: &str) -> Fleet {
        self.join().await;
        self.join().await;
        self.wait_for_loads(loads).await;
        self.wait_for_streams(self.jobs).await;
        self.scene.wait_for_backfill().await;
        self.put(1, TIDES).await;
        self.wait_for_vectors().await;
        self.scene.wait_until_confirmed().await;
        self
    }
}
