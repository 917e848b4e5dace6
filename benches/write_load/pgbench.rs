//! Runs pgbench and reads what it measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::support::server::Server;
use testkit::statistics::quantile;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Run {
    pub transactions: usize,
    pub speed: Speed,
}

/// How fast users were served.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Transactions a second.
    pub tps: f64,
    /// Latencies in milliseconds.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// How long a script is run.
#[derive(Clone, Copy)]
pub enum Length {
    Seconds(u32),
    /// By each client.
    Transactions(u32),
}

/// How many transactions there are at a time.
#[derive(Clone, Copy)]
pub struct Load {
    pub clients: u32,
    /// Transactions a second; `None` for as many as the clients can make.
    pub rate: Option<u32>,
}

impl Load {
    pub fn clients(clients: u32) -> Load {
        Load {
            clients,
            rate: None,
        }
    }
}

/// Runs scripts, one of them at random each time. `folder` takes the log of the transactions. With a rate, a latency
/// begins when the transaction was due.
pub fn run(server: &Server, scripts: &[String], load: Load, length: Length, folder: &Path) -> Run {
    let mut files = Vec::new();
    for (number, script) in scripts.iter().enumerate() {
        let file = folder.join(format!("script-{number}.sql"));
        fs::write(&file, script).expect("the script is written");
        files.push(format!("--file={}", file.display()));
    }
    let prefix = folder.join("pgbench");
    let output = Command::new(server.postgres.bindir().join("pgbench"))
        .args(["--no-vacuum", "--protocol=prepared", "--log"])
        .arg(format!("--log-prefix={}", prefix.display()))
        .args(&files)
        .arg(format!("--client={}", load.clients))
        .arg(format!("--jobs={}", load.clients.min(2)))
        .args(load.rate.map(|rate| format!("--rate={rate}")))
        .arg(match length {
            Length::Seconds(seconds) => format!("--time={seconds}"),
            Length::Transactions(count) => format!("--transactions={count}"),
        })
        .arg(server.uri())
        .output()
        .expect("pgbench runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scripts:?}: {errors}");
    let tps = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no rate in what pgbench says: {said}"));
    let latencies = latencies(folder);
    let percentile = |share| quantile(latencies.iter().copied(), share);
    Run {
        transactions: latencies.len(),
        speed: Speed {
            tps,
            p50: percentile(0.50),
            p95: percentile(0.95),
            p99: percentile(0.99),
        },
    }
}

/// A line a transaction, the third field its latency in microseconds (documentation: pgbench, "Per-Transaction
/// Logging").
fn latencies(folder: &Path) -> Vec<f64> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("pgbench.") {
            continue;
        }
        let log = fs::read_to_string(&path).expect("the log");
        let latency = |line: &str| -> Option<f64> {
            let microseconds: f64 = line.split(' ').nth(2)?.parse().ok()?;
            Some(microseconds / 1000.0)
        };
        all.extend(log.lines().filter_map(latency));
        fs::remove_file(&path).expect("it is ours");
    }
    all
}
