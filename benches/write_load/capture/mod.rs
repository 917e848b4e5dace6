//! The ways of learning which rows have changed, each on a server of its own.

pub mod follower;

use std::process::Command;
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::support::REAL_MODEL;
use crate::support::child::{self, Child};
use crate::support::data_path::runtime;
use crate::support::process;
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

    /// Those that end in vectors.
    pub const EMBEDDING: [Way; 3] = [Way::Daemon, Way::Notify, Way::Queue];

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

/// What becomes of a change that was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inference {
    /// Nothing, once its text is there: it is let go. So the capture runs at its own pace, and leaves the processors to the
    /// users.
    Off,
    /// Its vector is computed and written back.
    On,
}

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
        let command = capture.command();
        let log = capture.place.folder.path().join("capture.log");
        capture.process = command.map(|command| Child::spawn(command, log));
        if capture.process.is_some() {
            capture.until(capture.running()).await;
        }
        capture
    }

    /// All ways that end in vectors, each with an empty table whose rows say in `born` which transaction brought them: when it and
    /// the vector's were committed tells how long that took.
    pub async fn all_embedding(texts: &Texts) -> Vec<Capture> {
        let mut captures = Vec::new();
        for way in Way::EMBEDDING {
            let capture = Capture::start(way, Inference::On, texts).await;
            let born =
                "TRUNCATE notes; ALTER TABLE notes ADD born xid DEFAULT pg_current_xact_id()::xid";
            capture.place.sql(born).await;
            captures.push(capture);
        }
        captures
    }

    async fn prepare(&self) {
        let place = &self.place;
        match self.way {
            Way::Nothing => {}
            Way::Recvlogical => publish(place).await,
            Way::Daemon => {
                place.jobs_table().await;
                place.job("notes", REAL_MODEL, false).await;
            }
            Way::Notify => place.sql(include_str!("notify.sql")).await,
            Way::Queue => place.sql(include_str!("queue.sql")).await,
        }
    }

    /// The process that follows, where one has to.
    fn command(&self) -> Option<Command> {
        let uri = self.place.uri();
        let off = self.inference == Inference::Off;
        match self.way {
            Way::Nothing => None,
            Way::Recvlogical => Some(recvlogical(&self.place, "measured")),
            Way::Daemon => {
                let mut command = child::daemon(&uri, &runtime());
                if off {
                    command.env("FAILPOINTS", "batcher-lets-go=return");
                }
                Some(command)
            }
            Way::Notify | Way::Queue => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.env("LANTERN_URI", uri).arg(match self.way {
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

    /// Asks whether it is up.
    fn running(&self) -> &'static str {
        match self.way {
            Way::Notify | Way::Queue => {
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'follower' AND state = 'idle'"
            }
            _ => "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'",
        }
    }

    /// Waits until a question is answered with true.
    pub async fn until(&self, question: &str) {
        let begin = Instant::now();
        while !self.place.value::<bool>(question).await {
            let log = self.process.as_ref().map(Child::log).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "{question}: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until everything that has happened so far has reached who captures it; returns how long that took.
    pub async fn caught_up(&self) -> Duration {
        let begin = Instant::now();
        match self.way {
            Way::Queue => self.until("SELECT NOT EXISTS (SELECT FROM queue)").await,
            // Nothing tells that the last row was read but that no other one is.
            Way::Notify => {
                self.until(
                    "SELECT pg_notification_queue_usage() = 0 AND state = 'idle' AND state_change < clock_timestamp() - interval '50 ms' \
                     FROM pg_stat_activity WHERE application_name = 'follower'",
                )
                .await;
            }
            _ => {
                self.place.all_is_sent().await;
            }
        }
        begin.elapsed()
    }

    /// Processor time so far of the server's processes that work for who follows: its walsender, or the session through which
    /// it reads.
    pub async fn used_serving(&self) -> Duration {
        let sessions =
            "SELECT array(SELECT pid FROM pg_stat_activity WHERE application_name = 'follower')";
        let sessions: Vec<i32> = self.place.value(sessions).await;
        let sessions = sessions.into_iter().map(i32::unsigned_abs);
        sessions.map(process::used).sum::<Duration>() + self.place.used_by_walsenders().await
    }

    /// Processor time so far of who follows, outside of the server.
    pub fn used_outside(&self) -> Duration {
        self.process
            .as_ref()
            .map_or(Duration::ZERO, |child| process::used(child.id()))
    }

    /// The process that follows.
    pub fn process(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }
}

/// The publication `measured` and a slot of that name, for `pg_recvlogical`.
pub async fn publish(place: &Place) {
    let publication =
        "CREATE PUBLICATION measured FOR TABLE notes (id, body) WITH (publish = 'insert, update')";
    place.sql(publication).await;
    let slot = "SELECT pg_create_logical_replication_slot('measured', 'pgoutput')";
    place.sql(slot).await;
}

/// `pg_recvlogical` from a slot of the publication `measured` into nowhere.
pub fn recvlogical(place: &Place, slot: &str) -> Command {
    let mut command = Command::new(place.postgres.bindir().join("pg_recvlogical"));
    command.args([
        "--start",
        "--no-loop",
        "--file=/dev/null",
        "--fsync-interval=0",
        "--status-interval=1",
        "--option=proto_version=1",
        "--option=publication_names=measured",
    ]);
    command.args(["--slot", slot, "--dbname", &place.uri()]);
    command
}
