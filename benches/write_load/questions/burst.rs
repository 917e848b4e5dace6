//! How many rows a second can be embedded, of what the processors could do? Bursts of rows in one transaction, and how
//! long it takes until the last one has its vector, next to a bare ONNX Runtime loop over the same texts in turns.

use std::time::Duration;

use serde::Serialize;
use testkit::procfs;

use crate::capture::{Capture, Inference, Way};
use crate::notes_server::load_texts;
use crate::support::bare::Bare;
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    /// Rows of a burst.
    pub rows: usize,
    pub rounds: u32,
    /// Bytes of a text, and rows of them.
    pub sizes: Vec<(usize, usize)>,
}

/// One burst.
#[derive(Clone, Debug, Serialize)]
pub struct Burst {
    pub way: Way,
    pub round: u32,
    pub rows: usize,
    /// Bytes of a text where all are of one size; else they are as they come.
    pub bytes: Option<usize>,
    /// Rows a second from the commit of the burst to that of the last vector.
    pub rate: f64,
    /// Texts a second of the bare loop before and after, as one rate, where it ran beside.
    pub bare: Option<f64>,
    /// The share of time in which the inference threads had nothing to do (of the daemon only).
    pub waiting: Option<f64>,
    /// The peak of the resident memory of the process that embeds, in bytes.
    pub peak: u64,
    /// Rows with a vector, and seconds since the commit of the burst.
    pub progress: Vec<(f64, usize)>,
}

/// Budgets of padded tokens that the bare loop tries; it takes the best.
const BUDGETS: [usize; 5] = [128, 256, 512, 1024, 2048];
/// Points of a curve.
const POINTS: usize = 100;
/// Until the last row of a burst has its vector.
const TIMEOUT: Duration = Duration::from_secs(1200);
/// Seldom, because polling takes processor time; the rates do not depend on it.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Burst> {
    let captures = Capture::all_embedding(Inference::Unyielding, texts).await;
    let mut bare = Bare::load();
    let mut bursts = Vec::new();
    let mut budget = None;
    for round in 0..plan.rounds {
        // Each time others: a text that was embedded before must not be quicker.
        let from = round as usize * plan.rows;
        let some: Vec<String> = (from..from + plan.rows).map(|n| texts.text(n)).collect();
        let budget = *budget.get_or_insert_with(|| best_budget(&mut bare, &some));
        let batches = bare.prepare(&some, budget);
        let beside = captures.iter().collect::<Vec<_>>();
        bursts.extend(in_turns(&beside, &some, None, round, || bare.rate(&batches)).await);
    }
    for &(bytes, rows) in &plan.sizes {
        let all = texts.of_size(bytes, rows * plan.rounds as usize);
        let budget = best_budget(&mut bare, &all[..rows]);
        // Each round others, as above.
        for (round, some) in (0..).zip(all.chunks(rows)) {
            let batches = bare.prepare(some, budget);
            let daemon = [&captures[0]];
            let bytes = Some(bytes);
            bursts.extend(in_turns(&daemon, some, bytes, round, || bare.rate(&batches)).await);
        }
    }
    bursts
}

/// One burst of this many rows for each way.
pub async fn drain(rows: usize, texts: &Texts) -> Vec<Burst> {
    let some = texts.first(rows);
    let mut bursts = Vec::new();
    for capture in &Capture::all_embedding(Inference::Unyielding, texts).await {
        bursts.push(burst(capture, &some).await);
    }
    bursts
}

/// The same burst for all, each between two runs of the bare loop.
async fn in_turns(
    captures: &[&Capture],
    texts: &[String],
    bytes: Option<usize>,
    round: u32,
    mut bare: impl FnMut() -> f64,
) -> Vec<Burst> {
    let mut bursts = Vec::new();
    let mut before = bare();
    for capture in captures {
        let burst = burst(capture, texts).await;
        let after = bare();
        bursts.push(Burst {
            round,
            bytes,
            bare: Some(2.0 / (1.0 / before + 1.0 / after)),
            ..burst
        });
        before = after;
    }
    bursts
}

async fn burst(capture: &Capture, texts: &[String]) -> Burst {
    let server = &capture.server;
    server.sql("TRUNCATE notes").await;
    load_texts(server, texts).await;
    server.sql("CHECKPOINT").await;
    server.wait_until_sent().await;
    procfs::reset_peak(capture.process());
    let before = procfs::runnable_time_of_threads(capture.process(), "embed-");
    server
        .sql("INSERT INTO notes (body) SELECT body FROM texts ORDER BY n")
        .await;
    capture.wait_for_vectors(POLL_INTERVAL, TIMEOUT).await;
    let (after, threads) = procfs::runnable_time_of_threads(capture.process(), "embed-");
    let progress = progress(capture).await;
    let seconds = progress.last().map_or(f64::NAN, |(seconds, _)| *seconds);
    let waiting = (capture.way == Way::Daemon).then(|| {
        let wanted = after.saturating_sub(before.0);
        1.0 - wanted.as_secs_f64() / (seconds * threads as f64)
    });
    Burst {
        way: capture.way,
        round: 0,
        rows: texts.len(),
        bytes: None,
        rate: texts.len() as f64 / seconds,
        bare: None,
        waiting,
        peak: procfs::resident(capture.process()).peak,
        progress,
    }
}

/// The budget with which the bare loop is fastest, which shows in a part of the texts.
pub fn best_budget(bare: &mut Bare, texts: &[String]) -> usize {
    let part = &texts[..texts.len().min(1000)];
    let mut rate = |budget: usize| {
        let batches = bare.prepare(part, budget);
        bare.rate(&batches)
    };
    let rates = BUDGETS.map(|budget| (rate(budget), budget));
    let best = rates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(BUDGETS[0], |(_, budget)| budget)
}

/// Both times are the server's.
async fn progress(capture: &Capture) -> Vec<(f64, usize)> {
    let times = "SELECT array_agg(EXTRACT(EPOCH FROM pg_xact_commit_timestamp(xmin) - pg_xact_commit_timestamp(born))::float8) \
                 FROM public.notes";
    let mut times: Vec<f64> = capture.server.value(times).await;
    times.sort_by(f64::total_cmp);
    let step = times.len().div_ceil(POINTS);
    let mut points: Vec<(f64, usize)> = (step..times.len())
        .step_by(step)
        .map(|rows| (times[rows - 1], rows))
        .collect();
    points.extend(times.last().map(|last| (*last, times.len())));
    points
}
