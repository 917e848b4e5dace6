//! What do users notice while vectors are computed on the processors of their server? Transactions a second and latency
//! of single-row INSERTs, of which many more arrive than can be embedded at once.
//!
//! All ways embed with the same engine, so what differs is how it is fed.

use std::time::Duration;

use serde::Serialize;

use super::user_side::{Statement, clear};
use crate::capture::{Capture, Inference, Way};
use crate::notes_server::ROWS;
use crate::pgbench::{self, Length, Speed};
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    pub rounds: u32,
    /// Of one run.
    pub seconds: u32,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub way: Way,
    pub round: u32,
    #[serde(flatten)]
    pub speed: Speed,
}

pub const CLIENTS: u32 = 8;
/// Until the last row of a run has its vector.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The ways in turn, each round in another order.
pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Run> {
    let mut captures = vec![Capture::start(Way::Nothing, Inference::Off, texts).await];
    for way in Way::EMBEDDING {
        captures.push(Capture::start(way, Inference::On, texts).await);
    }
    let mut runs = Vec::new();
    for round in 0..plan.rounds {
        let count = captures.len();
        for turn in 0..count {
            let capture = &captures[(turn + round as usize) % count];
            runs.push(Run {
                round,
                ..run(capture, plan.seconds).await
            });
        }
    }
    runs
}

async fn run(capture: &Capture, seconds: u32) -> Run {
    let server = &capture.server;
    clear(capture).await;
    server.sql("CHECKPOINT").await;
    capture.caught_up().await;
    let script = [Statement::Insert.script("")];
    let length = Length::Seconds(seconds);
    let done = pgbench::run(server, &script, CLIENTS, length, server.folder.path());
    if capture.way != Way::Nothing {
        // Or it would go on embedding beside the next one.
        wait_for_vectors(capture).await;
    }
    Run {
        way: capture.way,
        round: 0,
        speed: done.speed,
    }
}

/// Waits until what was inserted has its vectors.
async fn wait_for_vectors(capture: &Capture) {
    let none =
        format!("SELECT NOT EXISTS (SELECT FROM notes WHERE id > {ROWS} AND embedding IS NULL)");
    let interval = Duration::from_millis(100);
    let server = &capture.server;
    server.until(&none, interval, TIMEOUT, String::new).await;
}
