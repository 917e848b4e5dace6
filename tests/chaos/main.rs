//! Chaos: seeded schedules of faults against the real daemon and real PostgreSQL servers.
//!
//! `make chaos` says how to run it, `docs/reliability.md` what it found. A schedule ([`schedule`]) runs ([`runner`]) on
//! a testbed of its own ([`testbed`]): users ([`workload`]) write, [`faults`] strike the daemon, its server and the
//! network between them ([`proxy`]), and when all faults are over every row is checked ([`checks`]).
//!
//! ```text
//!  seed ──▶ schedule ──▶ runner ──▶ testbed: users ──▶ PostgreSQL ◀── proxy ◀── daemons
//!                          │                               ▲            ▲          ▲
//!                          ├── faults ─────────────────────┴────────────┴──────────┘
//!                          └── monitor, reader, checks ──▶ record ──▶ outcome
//! ```

mod checks;
mod daemon;
mod documents;
mod engine;
mod faults;
mod monitor;
mod proxy;
mod record;
mod role;
mod runner;
mod schedule;
mod service_manager;
mod shape;
mod summary;
mod swap;
mod testbed;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;
use lantern::embedded::Installation;
use testkit::{Program, RestartableServer, data_path, server};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};

use runner::Outcome;
use schedule::Schedule;

/// Runs schedules of faults and checks what the daemon made of them
#[derive(Parser)]
struct Arguments {
    /// The first schedule's seed; the others count on from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many schedules
    #[arg(long, default_value_t = 40)]
    schedules: u64,
    /// How many at a time, each on a server of its own
    #[arg(long, default_value_t = 4)]
    lanes: usize,
    /// Keep the logs of clean schedules, too
    #[arg(long)]
    keep_logs: bool,
    /// Leave out schedules without documents
    #[arg(long)]
    documents: bool,
    /// Only print what would happen
    #[arg(long)]
    show: bool,
    /// The server programs [default: those that `make setup` has fetched]
    #[arg(long, env = server::BINDIR_VARIABLE)]
    bindir: Option<PathBuf>,
}

/// `wal_sender_timeout` is short, so that status updates are frequent and schedules can be short.
const SETTINGS: [(&str, &str); 6] = [
    ("max_connections", "100"),
    ("wal_sender_timeout", "4s"),
    ("max_replication_slots", "20"),
    ("log_line_prefix", "%m [%p] %a "),
    ("log_min_messages", "info"),
    ("deadlock_timeout", "200ms"),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // glibc overwrites freed memory: a server that uses it after all crashes at once, not once in a thousand runs.
    // SAFETY: there is one thread.
    unsafe { std::env::set_var("MALLOC_PERTURB_", "165") };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let installation = match &arguments.bindir {
        Some(bindir) => Installation::at(bindir).unwrap_or_else(|error| panic!("{error}")),
        None => server::installation(),
    };
    let has_vector = has_vector(&installation);
    let seeds = seeds(&arguments, has_vector);
    if arguments.show {
        let schedules = seeds
            .into_iter()
            .map(|seed| Schedule::from_seed(seed, has_vector));
        schedules.for_each(|schedule| println!("{schedule}"));
        return ExitCode::SUCCESS;
    }
    println!(
        "{} schedules on PostgreSQL {}{}, {} at a time",
        arguments.schedules,
        installation.version(),
        if has_vector { "" } else { " without pgvector" },
        arguments.lanes
    );
    let logs =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", installation.version()));
    let data_path = data_path::with_tiny_models();
    let program = Program::new(env!("CARGO_BIN_EXE_lantern-cli")).with_data_path(data_path.path());

    let began = Instant::now();
    let (seeds, next) = (Arc::new(seeds), Arc::new(AtomicUsize::new(0)));
    let (outcomes, mut finished) = mpsc::channel(arguments.lanes);
    for _ in 0..arguments.lanes {
        let lane = Lane {
            seeds: Arc::clone(&seeds),
            next: Arc::clone(&next),
            has_vector,
            program: program.clone(),
            logs: logs.clone(),
            keeps_logs: arguments.keep_logs,
            outcomes: outcomes.clone(),
        };
        let (installation, runtime) = (installation.clone(), Handle::current());
        thread::spawn(move || runtime.block_on(lane.run(installation)));
    }
    drop(outcomes);
    let mut all = Vec::new();
    while let Some(outcome) = finished.recv().await {
        summary::report(&outcome);
        all.push(outcome);
    }
    summary::summarize(&all, arguments.schedules, began.elapsed())
}

/// The seeds of the schedules to play.
fn seeds(arguments: &Arguments, has_vector: bool) -> Vec<u64> {
    let is_wanted = |seed: &u64| {
        !arguments.documents || Schedule::from_seed(*seed, has_vector).documents.is_some()
    };
    let number = usize::try_from(arguments.schedules).unwrap_or(usize::MAX);
    (arguments.seed..).filter(is_wanted).take(number).collect()
}

fn has_vector(installation: &Installation) -> bool {
    let control = installation
        .bindir()
        .join("../share/extension/vector.control");
    control.exists()
}

/// Runs one schedule after the other, on a server of its own and in a thread of its own: a panic ends this lane alone,
/// and the run fails because schedules are missing.
struct Lane {
    seeds: Arc<Vec<u64>>,
    /// The place of the next seed of all lanes.
    next: Arc<AtomicUsize>,
    has_vector: bool,
    program: Program,
    logs: PathBuf,
    keeps_logs: bool,
    outcomes: mpsc::Sender<Outcome>,
}

impl Lane {
    async fn run(self, installation: Installation) {
        let server = RestartableServer::start(installation, &SETTINGS);
        let server = Arc::new(Mutex::new(server));
        loop {
            let next = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(&seed) = self.seeds.get(next) else {
                return;
            };
            let schedule = Schedule::from_seed(seed, self.has_vector);
            let program = self.program.clone();
            let outcome = runner::run(Arc::clone(&server), schedule, program, &self.logs).await;
            if let Err(error) = runner::tidy(&server, &outcome, self.keeps_logs).await {
                eprintln!("the logs of schedule {seed}: {error}");
            }
            if self.outcomes.send(outcome).await.is_err() {
                return;
            }
        }
    }
}
