//! Runs pgbench and reads what it measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use lantern::embedded::PrivatePostgres;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Run {
    /// Transactions a second.
    pub tps: f64,
    pub transactions: usize,
    /// Latencies of all transactions in milliseconds, in ascending order.
    latencies: Vec<f64>,
}

impl Run {
    /// The latency that this share of the transactions did not exceed, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.latencies.get(place).copied().unwrap_or(f64::NAN)
    }
}

/// Runs a script with this many clients for some seconds. `folder` takes the log of the transactions.
pub fn run(
    server: &PrivatePostgres,
    script: &str,
    clients: u32,
    seconds: u32,
    folder: &Path,
) -> Run {
    let file = folder.join("script.sql");
    fs::write(&file, script).expect("the script is written");
    let prefix = folder.join("pgbench");
    let output = Command::new(server.bindir().join("pgbench"))
        .args(["--no-vacuum", "--protocol=prepared", "--log"])
        .arg(format!("--log-prefix={}", prefix.display()))
        .arg(format!("--file={}", file.display()))
        .arg(format!("--client={clients}"))
        .arg(format!("--jobs={}", clients.min(2)))
        .arg(format!("--time={seconds}"))
        .arg(server.uri("postgres"))
        .output()
        .expect("pgbench runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    let tps = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no rate in what pgbench says: {said}"));
    let mut latencies = latencies(folder);
    latencies.sort_by(f64::total_cmp);
    Run {
        tps,
        transactions: latencies.len(),
        latencies,
    }
}

/// A line a transaction, the third field its latency in microseconds (documentation: pgbench, "Per-Transaction Logging").
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
