//! What an idle daemon costs: the real binary with the default model loaded and jobs that have nothing to do.
//!
//! Counts the processor time (user and system) of the daemon, and of the server's processes that work for it, from
//! `/proc` over a minute. Run: `cargo bench --bench idle` (after `make setup`); `-- JOBS SECONDS` for other figures.

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::server::Server;
use support::stage::Stage;
use testkit::engine::MODEL;
use testkit::procfs;

/// Jobs are started and the caches of the server warm after this.
const SETTLING: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let figures: Vec<u32> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let jobs = figures.first().copied().unwrap_or(10);
    let seconds = figures.get(1).copied().unwrap_or(60);
    let server = Server::start(&[]).await;
    let mut stage = Stage::on(server).await;
    for job in 1..=jobs {
        stage
            .sql(&format!(
                "CREATE TABLE t{job} (id INT PRIMARY KEY, body TEXT); INSERT INTO t{job} VALUES (1, 'one row')"
            ))
            .await;
        stage.job(&format!("t{job}"), MODEL).await;
    }
    stage.start_daemon().await;
    tokio::time::sleep(SETTLING).await;

    let postmaster = stage.server.postmaster().await;
    let daemon = stage.daemon().id();
    let (before, begin) = (
        [procfs::cpu_time(daemon), used_by_children(postmaster)],
        Instant::now(),
    );
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let (after, took) = (
        [procfs::cpu_time(daemon), used_by_children(postmaster)],
        begin.elapsed(),
    );
    let share = |side: usize| {
        let used = after[side].saturating_sub(before[side]);
        100.0 * used.as_secs_f64() / took.as_secs_f64()
    };
    println!(
        "{jobs} idle jobs for {:.0} s, in percent of one core",
        took.as_secs_f64()
    );
    println!("{:>8} {:>8}", "daemon", "server");
    println!("{:>7.2}% {:>7.2}%", share(0), share(1));
}

fn used_by_children(parent: u32) -> Duration {
    let children = procfs::children(parent);
    children.into_iter().map(procfs::cpu_time).sum()
}
