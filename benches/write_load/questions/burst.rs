//! How many rows a second can be embedded, of what the processors could do? Bursts of rows in one transaction, and how long it
//! takes until the last one has its vector, next to a bare ONNX Runtime loop over the same texts in turns.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::capture::{Capture, Way};
use crate::place;
use crate::support::bare::Bare;
use crate::support::process;
use crate::texts::Texts;

/// What is to be run.
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
    /// Of the time of the inference threads, the share in which they had nothing to do (the daemon's alone).
    pub waiting: Option<f64>,
    /// Resident memory of the one who embeds at its highest, in bytes.
    pub peak: u64,
    /// Rows with a vector, and seconds since the commit of the burst.
    pub progress: Vec<(f64, usize)>,
}

/// Budgets of padded tokens that the bare loop tries; it takes the best.
const BUDGETS: [usize; 5] = [128, 256, 512, 1024, 2048];
/// Points of a curve.
const POINTS: usize = 100;
/// Until the last row of a burst has its vector.
const PATIENCE: Duration = Duration::from_secs(1200);

pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Burst> {
    let captures = Capture::all_embedding(texts).await;
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
        let some = texts.of_size(bytes, rows);
        let budget = best_budget(&mut bare, &some);
        let batches = bare.prepare(&some, budget);
        for round in 0..plan.rounds {
            let daemon = [&captures[0]];
            let bytes = Some(bytes);
            bursts.extend(in_turns(&daemon, &some, bytes, round, || bare.rate(&batches)).await);
        }
    }
    bursts
}

/// One burst of so many rows for each way.
pub async fn drain(rows: usize, texts: &Texts) -> Vec<Burst> {
    let some = texts.first(rows);
    let mut bursts = Vec::new();
    for capture in &Capture::all_embedding(texts).await {
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
    let place = &capture.place;
    place.sql("TRUNCATE notes").await;
    place::offer(place, texts).await;
    place.sql("CHECKPOINT").await;
    place.all_is_sent().await;
    process::reset_peak(capture.process());
    let before = process::wanted_by_threads(capture.process(), "embed-");
    place
        .sql("INSERT INTO notes (body) SELECT body FROM texts ORDER BY n")
        .await;
    settled(capture).await;
    let (after, threads) = process::wanted_by_threads(capture.process(), "embed-");
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
        peak: process::resident(capture.process()).peak,
        progress,
    }
}

/// The budget with which the bare loop is fastest, which shows in a part of the texts.
fn best_budget(bare: &mut Bare, texts: &[String]) -> usize {
    let part = &texts[..texts.len().min(1000)];
    let mut rate = |budget: usize| {
        let batches = bare.prepare(part, budget);
        bare.rate(&batches)
    };
    let rates = BUDGETS.map(|budget| (rate(budget), budget));
    let best = rates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(BUDGETS[0], |(_, budget)| budget)
}

/// Looks seldom, since looking costs time; what was measured does not depend on it.
async fn settled(capture: &Capture) {
    let begin = Instant::now();
    let missing = "SELECT EXISTS (SELECT FROM public.notes WHERE embedding IS NULL)";
    while capture.place.value::<bool>(missing).await {
        assert!(begin.elapsed() < PATIENCE, "rows without a vector");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Both times are the server's.
async fn progress(capture: &Capture) -> Vec<(f64, usize)> {
    let times = "SELECT array_agg(EXTRACT(EPOCH FROM pg_xact_commit_timestamp(xmin) - pg_xact_commit_timestamp(born))::float8) \
                 FROM public.notes";
    let mut times: Vec<f64> = capture.place.value(times).await;
    times.sort_by(f64::total_cmp);
    let step = times.len().div_ceil(POINTS);
    let mut points: Vec<(f64, usize)> = (step..times.len())
        .step_by(step)
        .map(|rows| (times[rows - 1], rows))
        .collect();
    points.extend(times.last().map(|last| (*last, times.len())));
    points
}
