//! Chaos: seeded schedules of faults against the real daemon and real PostgreSQL servers, and a judge.
//!
//! `make chaos` says how to run it, `docs/reliability.md` what it found. A schedule ([`schedule`]) is played ([`play`]) on a
//! stage of its own ([`stage`]): users ([`workload`]) write, faults ([`faults`]) happen to the daemon, its server and the network
//! between them ([`proxy`]), and when all is well again the judge ([`judge`]) looks at every row.

mod daemon;
mod dice;
mod faults;
mod judge;
mod keeper;
mod model;
mod monitor;
mod play;
mod proxy;
mod record;
mod schedule;
mod server;
mod shape;
mod stage;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lantern::embedded::Installation;
use tokio::sync::{Mutex, mpsc};

use model::Model;
use play::Outcome;
use schedule::{Loss, Schedule};
use server::Server;

/// Plays schedules of faults and judges what the daemon made of them
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
    /// Only print what would happen
    #[arg(long)]
    show: bool,
    /// The server programs [default: those that `make setup` has fetched]
    #[arg(long, env = "LANTERN_TEST_PG_BINDIR")]
    bindir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // glibc overwrites what is freed: a server that uses it all the same crashes at once instead of once in a thousand times.
    // SAFETY: there is one thread.
    unsafe { std::env::set_var("MALLOC_PERTURB_", "165") };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fetched = checkout.join(".runtime");
    let bindir = arguments
        .bindir
        .unwrap_or_else(|| fetched.join("postgres/bin"));
    let installation = match Installation::at(&bindir) {
        Ok(installation) => installation,
        Err(error) => {
            eprintln!("run `make setup` first: {error}");
            return ExitCode::FAILURE;
        }
    };
    let knows_vector = installation
        .bindir()
        .join("../share/extension/vector.control")
        .exists();
    let seeds = arguments.seed..arguments.seed + arguments.schedules;
    if arguments.show {
        seeds.for_each(|seed| println!("{}", Schedule::roll(seed, knows_vector)));
        return ExitCode::SUCCESS;
    }
    let logs =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", installation.version()));
    let data_path = logs.join("data");
    prepare(&data_path, &fetched).expect("the models are written");

    println!(
        "{} schedules on PostgreSQL {}{}, {} at a time",
        arguments.schedules,
        installation.version(),
        if knows_vector {
            ""
        } else {
            " without pgvector"
        },
        arguments.lanes
    );
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(seeds.start));
    let (sender, mut outcomes) = mpsc::channel(arguments.lanes);
    for lane in 0..arguments.lanes {
        let (sender, next, installation) =
            (sender.clone(), Arc::clone(&next), installation.clone());
        let (data_path, logs, end) = (data_path.clone(), logs.clone(), seeds.end);
        tokio::spawn(async move {
            let start = move || Server::start(installation, lane);
            let server = tokio::task::spawn_blocking(start).await.expect("a server");
            let server = Arc::new(Mutex::new(server));
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= end {
                    return;
                }
                let schedule = Schedule::roll(seed, knows_vector);
                let outcome = play::play(Arc::clone(&server), schedule, &data_path, &logs).await;
                if sender.send(outcome).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut all = Vec::new();
    while let Some(outcome) = outcomes.recv().await {
        tell(&outcome);
        all.push(outcome);
    }
    summarise(&all, arguments.schedules, began.elapsed())
}

/// A data path with the tiny models and the ONNX Runtime library that `make setup` has fetched.
fn prepare(data_path: &Path, fetched: &Path) -> std::io::Result<()> {
    for model in [Model::One, Model::Two] {
        model.write_to(&data_path.join("models"))?;
    }
    let library = data_path.join("lib");
    if !library.exists() {
        std::os::unix::fs::symlink(fetched.join("lib"), library)?;
    }
    Ok(())
}

fn tell(outcome: &Outcome) {
    if outcome.violations.is_empty() {
        return;
    }
    println!("\nFAILED {}", outcome.schedule);
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    println!("  logs: {}", outcome.logs.display());
    println!(
        "  again: make chaos SEED={} SCHEDULES=1\n",
        outcome.schedule.seed
    );
}

fn summarise(outcomes: &[Outcome], wanted: u64, took: Duration) -> ExitCode {
    let mut recoveries: Vec<Duration> = outcomes
        .iter()
        .flat_map(|outcome| outcome.recoveries.clone())
        .collect();
    recoveries.sort();
    let at = |percent: usize| {
        let last = recoveries.len().saturating_sub(1);
        recoveries
            .get(last * percent / 100)
            .map_or(0, |duration| duration.as_millis())
    };
    let mut played: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
    played.sort();
    let statements: u64 = outcomes.iter().map(|outcome| outcome.statements.done).sum();
    let longest = |which: fn(&Outcome) -> Duration| {
        outcomes
            .iter()
            .map(which)
            .max()
            .unwrap_or_default()
            .as_millis()
    };
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.violations.is_empty())
        .map(|outcome| outcome.schedule.seed.to_string())
        .collect();
    println!(
        "{} of {wanted} schedules clean in {:.0} s (median {:.1} s); {statements} statements of users, longest {} ms, \
         longest wait for the daemon {} ms",
        outcomes.len() - failed.len(),
        took.as_secs_f64(),
        played
            .get(played.len() / 2)
            .copied()
            .unwrap_or_default()
            .as_secs_f64(),
        longest(|outcome| outcome.statements.longest),
        longest(|outcome| outcome.statements.longest_behind_daemon),
    );
    println!(
        "streaming again after {} returns: median {} ms, 95 % within {} ms, longest {} ms",
        recoveries.len(),
        at(50),
        at(95),
        at(100)
    );
    for loss in [Loss::Killed, Loss::Hung, Loss::CutOff] {
        let take_overs = outcomes.iter().filter_map(|outcome| outcome.take_over);
        let times: Vec<u128> = take_overs
            .filter(|(how, _)| *how == loss)
            .map(|(_, within)| within.as_millis())
            .collect();
        if let Some(longest) = times.iter().max() {
            println!(
                "a daemon was lost ({loss:?}) {} times; others had taken over within {longest} ms",
                times.len()
            );
        }
    }
    if !failed.is_empty() {
        println!("failed seeds: {}", failed.join(", "));
    }
    if failed.is_empty() && outcomes.len() as u64 == wanted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
