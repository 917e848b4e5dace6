//! How fresh are vectors when almost as many rows come as can be embedded? Several sessions insert at a steady rate, so
//! that a writer that waits for a processor does not lower the rate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lantern::postgres::Session;
use serde::Serialize;
use testkit::statistics::median;

use super::freshness::{Point, insert, point};
use crate::capture::{Capture, Inference, Way};
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    /// Of one load.
    pub seconds: u32,
    pub rounds: u32,
}

/// One load on one way.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub inference: Inference,
    pub round: u32,
    /// Of saturation; `None` for the load that shows where that is.
    pub share: Option<f64>,
    #[serde(flatten)]
    pub point: Point,
}

pub const SHARES: [f64; 3] = [0.5, 0.8, 0.95];
/// More rows a second than can be embedded, for each core.
const OVERLOAD: usize = 500;
const SESSIONS: usize = 4;
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Until the last row of a load has its vector.
const TIMEOUT: Duration = Duration::from_secs(300);

/// With the processors for inference alone, as far as the server leaves them, and with inference that yields to the users:
/// then saturation is earlier.
pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Run> {
    let mut runs = Vec::new();
    for inference in [Inference::Unyielding, Inference::Yielding] {
        runs.extend(measure_with(inference, plan, texts).await);
    }
    runs
}

async fn measure_with(inference: Inference, plan: &Plan, texts: &Texts) -> Vec<Run> {
    let mut writers = Vec::new();
    for capture in Capture::all_embedding(inference, texts).await {
        writers.push(Writers::open(capture).await);
    }
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runs = Vec::new();
    for writers in &writers {
        let load = (cores * OVERLOAD) as f64;
        let point = writers.run(load, plan.seconds, texts, &next).await;
        runs.push(Run {
            inference,
            round: 0,
            share: None,
            point: Point {
                kept: writers.embedded_meanwhile().await,
                ..point
            },
        });
    }
    let saturation = runs.iter().map(|run| run.point.kept).fold(0.0, f64::max);
    for round in 0..plan.rounds {
        for share in SHARES {
            for turn in 0..writers.len() {
                let writers = &writers[(turn + round as usize) % writers.len()];
                let load = share * saturation;
                runs.push(Run {
                    inference,
                    round,
                    share: Some(share),
                    point: writers.run(load, plan.seconds, texts, &next).await,
                });
            }
        }
    }
    runs
}

/// Sessions that insert at the same time.
struct Writers {
    capture: Capture,
    sessions: Vec<Session>,
}

impl Writers {
    async fn open(capture: Capture) -> Writers {
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let session = Session::open(&capture.server.database).await;
            sessions.push(session.expect("a session"));
        }
        Writers { capture, sessions }
    }

    /// Inserts `load` rows a second and waits for their vectors.
    async fn run(&self, load: f64, seconds: u32, texts: &Texts, next: &AtomicUsize) -> Point {
        let from = next.load(Ordering::Relaxed);
        let rows = (load * f64::from(seconds)) as usize;
        let pace = Duration::from_secs_f64(1.0 / load);
        let begin = Instant::now();
        let writer = async |session: &Session| loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= from + rows {
                break;
            }
            let at = begin + pace * (number - from) as u32;
            tokio::time::sleep_until(at.into()).await;
            insert(session, number, texts).await;
        };
        futures_util::future::join_all(self.sessions.iter().map(writer)).await;
        next.store(from + rows, Ordering::Relaxed);
        let offered = rows as f64 / begin.elapsed().as_secs_f64();
        self.capture.wait_for_vectors(POLL_INTERVAL, TIMEOUT).await;
        point(&self.capture, from, offered).await
    }

    /// Rows a second that got their vectors while the writers were at work: afterwards inference has the processors for
    /// itself.
    async fn embedded_meanwhile(&self) -> f64 {
        let query = "SELECT (count(*) FILTER (WHERE pg_xact_commit_timestamp(xmin) <= last) / EXTRACT(EPOCH FROM last - first))::float8 \
                     FROM public.notes, (SELECT min(pg_xact_commit_timestamp(born)), max(pg_xact_commit_timestamp(born)) \
                     FROM public.notes) AS writing (first, last) GROUP BY first, last";
        self.capture.server.value(query).await
    }
}

/// Over the rounds, the median of a figure of one way at one share.
pub fn middle(
    runs: &[Run],
    (way, inference): (Way, Inference),
    share: f64,
    figure: impl Fn(&Point) -> f64,
) -> f64 {
    let fits =
        |run: &&Run| (run.point.way, run.inference, run.share) == (way, inference, Some(share));
    median(runs.iter().filter(fits).map(|run| figure(&run.point)))
}
