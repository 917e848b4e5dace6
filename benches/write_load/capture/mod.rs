//! The ways of capturing which rows have changed, each on a server of its own.

pub mod follower;
mod way;

pub use way::{Inference, Made, Way};

use std::process::Command;
use std::time::{Duration, Instant};

use testkit::engine::MODEL;
use testkit::{Process, procfs};

use crate::notes_server::NotesServer;
use crate::support::{WITHOUT_INFERENCE, program};
use crate::texts::Texts;

/// How long a way may take to start, and to catch up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A way that captures.
pub struct Capture {
    pub way: Way,
    pub server: NotesServer,
    inference: Inference,
    made: Made,
    process: Option<Process>,
}

impl Capture {
    pub async fn start(way: Way, inference: Inference, texts: &Texts) -> Capture {
        Capture::start_for(Made::Vectors, way, inference, texts).await
    }

    /// As [`start`](Self::start), to make this of the texts.
    pub async fn start_for(made: Made, way: Way, inference: Inference, texts: &Texts) -> Capture {
        let mut capture = Capture {
            way,
            server: NotesServer::new(texts).await,
            inference,
            made,
            process: None,
        };
        capture.prepare().await;
        capture.process = capture.command().map(Process::spawn);
        if capture.process.is_some() {
            capture.until(capture.running()).await;
        }
        capture
    }

    /// All ways that end in vectors, each with an empty table. Its column `born` holds the transaction that inserted
    /// the row: the commit times of that transaction and of the vector's tell how long the way took.
    pub async fn all_embedding(inference: Inference, texts: &Texts) -> Vec<Capture> {
        let mut captures = Vec::new();
        for way in Way::EMBEDDING {
            let capture = Capture::start(way, inference, texts).await;
            let born =
                "TRUNCATE notes; ALTER TABLE notes ADD born xid DEFAULT pg_current_xact_id()::xid";
            capture.server.sql(born).await;
            captures.push(capture);
        }
        captures
    }

    async fn prepare(&self) {
        let server = &self.server;
        match self.way {
            Way::Nothing => {}
            Way::Recvlogical => publish(server, self.made).await,
            Way::Daemon => {
                server.create_jobs_table().await;
                let mut options = vec![("backfill", "false")];
                if self.made == Made::Passages {
                    options.push(("chunk_table", "'notes_chunks'"));
                }
                server.job_with("notes", MODEL, &options).await;
            }
            Way::Notify => server.sql(include_str!("notify.sql")).await,
            Way::Queue => server.sql(include_str!("queue.sql")).await,
        }
    }

    /// The process that follows, where the way has one.
    fn command(&self) -> Option<Command> {
        let uri = self.server.uri();
        let off = self.inference == Inference::Off;
        let yields = ("LANTERN_YIELD", self.inference.yields());
        match self.way {
            Way::Nothing => None,
            Way::Recvlogical => Some(recvlogical(&self.server, "measured")),
            Way::Daemon => {
                let mut command = program().command("start-daemon");
                command.env("LANTERN_URI", uri).envs([yields]);
                command.envs(off.then_some(WITHOUT_INFERENCE));
                Some(command)
            }
            Way::Notify | Way::Queue => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.env("LANTERN_URI", uri).envs([yields]);
                command.arg(match self.way {
                    Way::Notify => "follow-notify",
                    _ => "follow-queue",
                });
                if off {
                    command.arg("off");
                }
                Some(command)
            }
        }
    }

    /// The query whether it is up.
    fn running(&self) -> &'static str {
        match self.way {
            Way::Notify | Way::Queue => {
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'follower' AND state = 'idle'"
            }
            _ => "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'",
        }
    }

    /// Waits until a query returns true.
    async fn until(&self, query: &str) {
        let log = || self.process.as_ref().map(Process::log).unwrap_or_default();
        let interval = Duration::from_millis(20);
        self.server.until(query, interval, TIMEOUT, log).await;
    }

    /// Waits until every row has a vector. `interval` is the pause between two queries, which take processor time
    /// themselves.
    pub async fn wait_for_vectors(&self, interval: Duration, timeout: Duration) {
        let none = "SELECT NOT EXISTS (SELECT FROM public.notes WHERE embedding IS NULL)";
        self.server
            .until(none, interval, timeout, String::new)
            .await;
    }

    /// Waits until everything that has happened so far is captured; returns how long that took.
    pub async fn caught_up(&self) -> Duration {
        let begin = Instant::now();
        match self.way {
            Way::Queue => self.until("SELECT NOT EXISTS (SELECT FROM queue)").await,
            // That the last row was read shows only in that the follower is idle.
            Way::Notify => {
                self.until(
                    "SELECT pg_notification_queue_usage() = 0 AND state = 'idle' AND state_change < clock_timestamp() - interval '50 ms' \
                     FROM pg_stat_activity WHERE application_name = 'follower'",
                )
                .await;
            }
            _ => {
                self.server.wait_until_sent().await;
            }
        }
        begin.elapsed()
    }

    /// Processor time so far of the server's processes that work for the follower: its walsender, or the session
    /// through which it reads.
    pub async fn cpu_time_serving(&self) -> Duration {
        let sessions =
            "SELECT array(SELECT pid FROM pg_stat_activity WHERE application_name = 'follower')";
        self.server.cpu_time_of(sessions).await + self.server.cpu_time_of_walsenders().await
    }

    /// Processor time so far of the follower, outside of the server.
    pub fn cpu_time_outside(&self) -> Duration {
        self.process
            .as_ref()
            .map_or(Duration::ZERO, |child| procfs::cpu_time(child.id()))
    }

    /// The process that follows.
    pub fn process(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }
}

/// The publication `measured`, which is that of a job, and a slot of that name, for `pg_recvlogical`.
pub async fn publish(server: &NotesServer, made: Made) {
    let publication = format!(
        "CREATE PUBLICATION measured FOR TABLE notes (id, body) WITH (publish = '{}')",
        made.published()
    );
    server.sql(&publication).await;
    let slot = "SELECT pg_create_logical_replication_slot('measured', 'pgoutput')";
    server.sql(slot).await;
}

/// `pg_recvlogical` from a slot of the publication `measured` into nowhere.
pub fn recvlogical(server: &NotesServer, slot: &str) -> Command {
    let mut command = Command::new(server.postgres.bindir().join("pg_recvlogical"));
    command.args([
        "--start",
        "--no-loop",
        "--file=/dev/null",
        "--fsync-interval=0",
        "--status-interval=1",
        "--option=proto_version=1",
        "--option=publication_names=measured",
    ]);
    command.args(["--slot", slot, "--dbname", &server.uri()]);
    command
}
