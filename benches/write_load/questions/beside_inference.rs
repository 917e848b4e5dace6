//! What do users notice while vectors are computed on the processors of their server? Transactions and latency of
//! INSERTs into a table without a job, beside the initial backfill of another one that never ends.
//!
//! One server for all runs: the daemon is started for each and stopped after it.

use std::time::{Duration, Instant};

use serde::Serialize;
use testkit::Process;
use testkit::engine::MODEL;
use testkit::statistics::median;

use crate::capture::Inference;
use crate::notes_server::{NotesServer, load_texts};
use crate::pgbench::{self, Length, Load, Speed};
use crate::support::program;
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    pub rounds: u32,
    /// Of one run.
    pub seconds: u32,
}

/// What users do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Users {
    /// There are none.
    None,
    /// As many transactions as a client for each core can make.
    AClientACore,
    /// As many as four for each core can make.
    FourClientsACore,
    /// A thousand transactions a second, with pauses in between.
    Steady,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub users: Users,
    pub inference: Inference,
    pub round: u32,
    /// Of the users, if there are any.
    pub speed: Option<Speed>,
    /// Rows a second that got their vectors.
    pub embedded: f64,
}

/// More than can be embedded.
const TEXTS: usize = 100_000;
const STEADY_RATE: u32 = 1000;
const STEADY_CLIENTS: u32 = 4;
/// How long inference has to find its share before a run is measured.
const SETTLE_SECONDS: u32 = 1;
const TIMEOUT: Duration = Duration::from_secs(60);
const INSERT: &str =
    "INSERT INTO orders (product, note) VALUES (7, 'as any application would write it');\n";
const VECTORS: &str = "SELECT count(*) FROM notes WHERE embedding IS NOT NULL";

impl Users {
    pub const ALL: [Users; 4] = [
        Users::None,
        Users::AClientACore,
        Users::FourClientsACore,
        Users::Steady,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Users::None => "none",
            Users::AClientACore => "a client a core",
            Users::FourClientsACore => "four clients a core",
            Users::Steady => "1,000 transactions a second",
        }
    }

    fn load(self) -> Option<Load> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        match self {
            Users::None => None,
            Users::AClientACore => Some(Load::clients(cores)),
            Users::FourClientsACore => Some(Load::clients(4 * cores)),
            Users::Steady => Some(Load {
                rate: Some(STEADY_RATE),
                ..Load::clients(STEADY_CLIENTS)
            }),
        }
    }
}

/// All kinds of users with each kind of inference in turn.
pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Run> {
    let server = NotesServer::new(texts).await;
    let create = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, product int, note text);
                  TRUNCATE notes";
    server.sql(create).await;
    load_texts(&server, &texts.first(TEXTS)).await;
    server
        .sql("INSERT INTO notes (body) SELECT body FROM texts ORDER BY n")
        .await;
    server.create_jobs_table().await;
    server.job("notes", MODEL).await;
    let mut runs = Vec::new();
    let kinds = [Inference::Off, Inference::Yielding, Inference::Unyielding];
    for round in 0..plan.rounds {
        for users in Users::ALL {
            for turn in 0..kinds.len() {
                let inference = kinds[(turn + round as usize) % kinds.len()];
                if users == Users::None && inference == Inference::Off {
                    continue;
                }
                let (speed, embedded) = run(&server, users, inference, plan.seconds).await;
                runs.push(Run {
                    users,
                    inference,
                    round,
                    speed,
                    embedded,
                });
            }
        }
    }
    runs
}

async fn run(
    server: &NotesServer,
    users: Users,
    inference: Inference,
    seconds: u32,
) -> (Option<Speed>, f64) {
    server.sql("CHECKPOINT").await;
    let daemon = match inference {
        Inference::Off => None,
        _ => Some(start(server, inference).await),
    };
    serve(server, users, SETTLE_SECONDS).await;
    let before: i64 = server.value(VECTORS).await;
    let begin = Instant::now();
    let speed = serve(server, users, seconds).await;
    let after: i64 = server.value(VECTORS).await;
    let embedded = (after - before) as f64 / begin.elapsed().as_secs_f64();
    drop(daemon);
    (speed, embedded)
}

/// Lets the users work for so long.
async fn serve(server: &NotesServer, users: Users, seconds: u32) -> Option<Speed> {
    let Some(load) = users.load() else {
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        return None;
    };
    let (script, length) = ([INSERT.to_owned()], Length::Seconds(seconds));
    let done = pgbench::run(server, &script, load, length, server.folder.path());
    Some(done.speed)
}

/// Starts the daemon and waits until it embeds.
async fn start(server: &NotesServer, inference: Inference) -> Process {
    let before: i64 = server.value(VECTORS).await;
    let uri = server.uri();
    let variables = [
        ("LANTERN_URI", uri.as_str()),
        ("LANTERN_YIELD", inference.yields()),
    ];
    let daemon = program().start_daemon_with_env(&variables, &[]);
    let embeds = format!("SELECT ({VECTORS}) > {before}");
    let interval = Duration::from_millis(50);
    server
        .until(&embeds, interval, TIMEOUT, || daemon.log())
        .await;
    daemon
}

/// The median over the rounds of a figure beside the one with another kind of inference in the same round.
pub fn ratio(
    runs: &[Run],
    users: Users,
    [inference, to]: [Inference; 2],
    figure: impl Fn(&Run) -> f64,
) -> f64 {
    let find = |wanted: Inference, round: u32| {
        runs.iter()
            .find(|run| (run.users, run.inference, run.round) == (users, wanted, round))
    };
    let rounds = runs
        .iter()
        .map(|run| run.round)
        .max()
        .map_or(0, |last| last + 1);
    let ratios = (0..rounds)
        .filter_map(|round| Some(figure(find(inference, round)?) / figure(find(to, round)?)));
    median(ratios)
}
