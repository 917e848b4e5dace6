//! The ways of learning which rows have changed, each on a server of its own.

pub mod follower;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::cpu;
use crate::place::{Place, runtime};
use crate::texts::Texts;

/// A way of capturing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Nobody looks.
    Nothing,
    /// `pg_recvlogical` into nowhere: what logical decoding costs by itself.
    Recvlogical,
    /// The daemon.
    Daemon,
    /// A row trigger that sends the key to a listener.
    Notify,
    /// A row trigger that leaves the key in a table for a worker.
    Queue,
}

impl Way {
    pub const ALL: [Way; 5] = [
        Way::Nothing,
        Way::Recvlogical,
        Way::Daemon,
        Way::Notify,
        Way::Queue,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Way::Nothing => "no capture",
            Way::Recvlogical => "pg_recvlogical",
            Way::Daemon => "lantern-cli",
            Way::Notify => "trigger, NOTIFY",
            Way::Queue => "trigger, queue",
        }
    }
}

/// Whether what is captured is embedded, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inference {
    /// Held: what is captured waits in memory, in the queue, or is thrown away.
    Held,
    Running,
}

const SLOT: &str = "measured";
/// As long as it may take to have everything up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way at work.
pub struct Capture {
    pub way: Way,
    pub place: Place,
    inference: Inference,
    process: Option<Child>,
}

impl Capture {
    pub async fn start(way: Way, inference: Inference, texts: &Texts) -> Capture {
        let mut capture = Capture {
            way,
            place: Place::new(texts).await,
            inference,
            process: None,
        };
        capture.prepare().await;
        capture.begin().await;
        capture
    }

    async fn prepare(&self) {
        let place = &self.place;
        match self.way {
            Way::Nothing => {}
            Way::Recvlogical => {
                place
                    .sql("CREATE PUBLICATION measured FOR TABLE notes (id, body)")
                    .await;
                place
                    .sql("SELECT pg_create_logical_replication_slot('measured', 'pgoutput')")
                    .await;
            }
            Way::Daemon => {
                place.sql(include_str!("../../../sql/jobs.sql")).await;
                place
                    .sql(&format!(
                        "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model, backfill) \
                         VALUES ('{}', 'public', 'notes', 'body', 'embedding', 'sentence-transformers/all-MiniLM-L6-v2', false)",
                        place.server.uri("postgres")
                    ))
                    .await;
            }
            Way::Notify => place.sql(include_str!("notify.sql")).await,
            Way::Queue => place.sql(include_str!("queue.sql")).await,
        }
    }

    /// Forgets what was captured so far and goes on from here: what was held would fill the daemon's memory in the end, and
    /// the queue's table.
    pub async fn begin_anew(&mut self) {
        self.stop();
        match self.way {
            Way::Queue => self.place.sql("TRUNCATE queue").await,
            Way::Daemon | Way::Recvlogical => {
                let free = "SELECT count(*) = 0 FROM pg_replication_slots WHERE active";
                self.until(free).await;
                self.place
                    .sql("SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots")
                    .await;
            }
            Way::Nothing | Way::Notify => {}
        }
        self.begin().await;
    }

    async fn begin(&mut self) {
        let uri = self.place.server.uri("postgres");
        let mut command = match self.way {
            Way::Nothing => return,
            Way::Queue if self.inference == Inference::Held => return,
            Way::Recvlogical => {
                let mut command = Command::new(self.place.server.bindir().join("pg_recvlogical"));
                command.args([
                    "--start",
                    "--no-loop",
                    "--file=/dev/null",
                    "--fsync-interval=0",
                ]);
                command.args([
                    "--option=proto_version=1",
                    "--option=publication_names=measured",
                ]);
                command.args(["--slot", SLOT, "--status-interval=1", "--dbname", &uri]);
                command
            }
            Way::Daemon => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_lantern-cli"));
                command.args(["start-daemon", "--log-level", "warn"]);
                command.env("LANTERN_URI", &uri);
                command.env("LANTERN_DATA_PATH", runtime());
                if self.inference == Inference::Held {
                    command.env("FAILPOINTS", "embedder=pause");
                }
                command
            }
            Way::Notify | Way::Queue => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.arg(if self.way == Way::Notify {
                    "follow-notify"
                } else {
                    "follow-queue"
                });
                command.env("LANTERN_URI", &uri);
                if self.inference == Inference::Held {
                    command.arg("held");
                }
                command
            }
        };
        let log = fs::File::create(self.place.folder.path().join("capture.log")).expect("a file");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: prctl is a plain system call and allocates nothing, as is asked of code between fork and exec.
        unsafe {
            // Not even a benchmark that is killed leaves a process behind.
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        self.process = Some(command.spawn().expect("it starts"));
        self.until(match self.way {
            Way::Notify | Way::Queue => {
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'follower%' AND state = 'idle'"
            }
            _ => "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'",
        })
        .await;
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Waits until a question is answered with true.
    pub async fn until(&self, question: &str) {
        let begin = std::time::Instant::now();
        while !self.place.value::<bool>(question).await {
            assert!(begin.elapsed() < PATIENCE, "{question}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether everything that has happened so far has reached who captures it.
    pub async fn has_all(&self) -> bool {
        let sent = "SELECT COALESCE(bool_and(sent_lsn >= pg_current_wal_lsn()), true) FROM pg_stat_replication";
        for _ in 0..100 {
            if self.place.value::<bool>(sent).await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Processor time so far of those who capture: outside of the server, and in its walsender.
    pub async fn used(&self) -> [Duration; 2] {
        let walsender = "SELECT max(pid) FROM pg_stat_replication";
        let walsender: Option<i32> = self.place.value(walsender).await;
        let of = |process: Option<u32>| process.map_or(Duration::ZERO, cpu::used);
        [
            of(self.process.as_ref().map(Child::id)),
            of(walsender.map(i32::unsigned_abs)),
        ]
    }

    fn log(&self) -> String {
        let path = self.place.folder.path().join("capture.log");
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}
