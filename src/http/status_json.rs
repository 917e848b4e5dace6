//! The state as JSON, for the page.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::status::StatusBoard;
use crate::status::board::{History, SAMPLE_INTERVAL, Snapshot};

/// The snapshot, when it was taken, and the last minutes of each job.
#[derive(Serialize)]
struct Answer<'a> {
    /// In seconds since 1970-01-01 UTC.
    published: f64,
    /// The time between two samples of the history.
    sample_seconds: u64,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    history: BTreeMap<String, History>,
}

/// The answer to the page.
pub(super) fn render(snapshot: &Snapshot, board: &StatusBoard) -> Vec<u8> {
    let answer = Answer {
        published: board
            .published()
            .map_or(0.0, |published| seconds(published.time)),
        sample_seconds: SAMPLE_INTERVAL.as_secs(),
        snapshot,
        history: board.history().into_iter().map(rounded).collect(),
    };
    // Only a map with keys that are no texts could fail.
    serde_json::to_vec(&answer).unwrap_or_default()
}

/// Seconds since 1970-01-01 UTC.
pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// As much of each figure as a line of some pixels shows: the history is most of the answer.
fn rounded((id, history): (String, History)) -> (String, History) {
    let round = |samples: VecDeque<f64>| {
        let round = |sample: f64| (sample * 100.0).round() / 100.0;
        samples.into_iter().map(round).collect()
    };
    let history = History {
        rows_per_second: round(history.rows_per_second),
        lag_seconds: round(history.lag_seconds),
    };
    (id, history)
}
