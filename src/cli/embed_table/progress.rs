//! How far the work is, in a line now and then.

use std::time::{Duration, Instant};

use crate::cli::status_figures::{duration, rate};
use crate::cli::stderr;
use crate::pipeline::backfill::scan::BackfillProgress;

/// How often a line tells of the progress.
const INTERVAL: Duration = Duration::from_secs(5);

/// The progress of a scan.
pub struct Progress {
    doing: String,
    began: Instant,
    told: Instant,
}

impl Progress {
    /// Begins. `doing` is the head of each line.
    pub fn new(doing: &str) -> Progress {
        Progress {
            doing: doing.to_owned(),
            began: Instant::now(),
            told: Instant::now(),
        }
    }

    /// Tells how far the scan is, if that is due.
    pub fn set(&mut self, now: BackfillProgress) {
        if self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            stderr::line(&self.line(now, self.began.elapsed().as_secs_f64()));
        }
    }

    fn line(&self, now: BackfillProgress, seconds: f64) -> String {
        let head = format!("{}: {} of {} rows", self.doing, now.done, now.total);
        let per_second = now.done as f64 / seconds;
        if now.done == 0 {
            return head;
        }
        let left = now.total.saturating_sub(now.done) as f64 / per_second;
        format!(
            "{head}, {} a second, {} left",
            rate(Some(per_second)),
            duration(Some(left))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_the_work_is_and_how_long_it_takes() {
        let progress = Progress::new("embedding t");
        let line = |done, total| progress.line(BackfillProgress { done, total }, 10.0);
        assert_eq!(line(0, 90), "embedding t: 0 of 90 rows");
        assert_eq!(
            line(30, 90),
            "embedding t: 30 of 90 rows, 3.0 a second, 20 s left"
        );
    }
}
