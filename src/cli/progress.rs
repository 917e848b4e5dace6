//! How far long work is: a bar on a terminal, and elsewhere a line now and then. Both are on standard error.
//!
//! ```text
//! on a terminal   [=====>                  ] resync of job 1: 1,200 of 5,000 rows, 400 a second, 10 s left
//! elsewhere       resync of job 1: 1,200 of 5,000 rows, 400 a second, 10 s left
//! at the end      resync of job 1: 5,000 rows in 12 s, 417 a second
//! ```

use std::time::{Duration, Instant};

use indicatif::ProgressStyle;

use super::status_figures::{count, duration, plural, rate};
use super::stderr;
use super::stderr::bar::{self, ShownBar};
use crate::shown::shown;
use crate::status::JobStatus;

/// How often a line tells of the progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the text beside the bar changes at most.
const TEXT_INTERVAL: Duration = Duration::from_millis(100);
/// On a narrower terminal the text has all the room.
const MIN_WIDTH_FOR_BAR: u16 = 60;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as MB.
    Bytes,
    /// Things with a name: one of them, and many.
    Items(&'static str, &'static str),
}

/// Rows of a table.
pub const ROWS: Unit = Unit::Items("row", "rows");

/// Rows of a table whose texts are cut into passages.
pub const DOCUMENTS: Unit = Unit::Items("document", "documents");

/// What jobs embed, of which some may have documents and others rows.
pub fn unit_of<'a>(jobs: impl IntoIterator<Item = &'a JobStatus>) -> Unit {
    let mut jobs = jobs.into_iter().peekable();
    match jobs.peek().is_some() && jobs.all(|job| job.chunk_table.is_some()) {
        true => DOCUMENTS,
        false => ROWS,
    }
}

/// Work of which the end may be known. Nothing of the bar is left when the value is dropped.
pub struct Progress {
    doing: String,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    began: Instant,
    told: Instant,
    /// Whether anything was shown, so that the end is news.
    is_known: bool,
    bar: Option<ShownBar>,
}

impl Progress {
    /// Begins work of unknown size. `doing` is the head of each line, such as `verifying job 1`.
    pub fn new(doing: &str, unit: Unit) -> Progress {
        Progress::with(doing, unit, None)
    }

    /// Begins work of this size.
    pub fn with_total(doing: &str, unit: Unit, total: u64) -> Progress {
        Progress::with(doing, unit, Some(total))
    }

    fn with(doing: &str, unit: Unit, total: Option<u64>) -> Progress {
        let mut progress = Progress {
            doing: shown(doing),
            unit,
            total,
            done: 0,
            began: Instant::now(),
            told: Instant::now(),
            is_known: false,
            bar: bar::show(total, style(total.is_some())),
        };
        progress.is_known = progress.bar.is_some();
        progress.tell();
        progress
    }

    /// Tells what the work is now.
    pub fn set_doing(&mut self, doing: &str) {
        self.doing = shown(doing);
        self.tell();
    }

    /// Tells how much there is to do, once that is known or has changed.
    pub fn set_total(&mut self, total: u64) {
        if self.total == Some(total) {
            return;
        }
        self.total = Some(total);
        if let Some(bar) = &self.bar {
            bar.set_style(style(true));
            bar.set_length(total);
        }
        self.tell();
    }

    /// Tells how much is done.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.total.map_or(done, |total| done.min(total)));
                if self.told.elapsed() >= TEXT_INTERVAL {
                    self.tell();
                }
            }
            None if self.told.elapsed() >= LINE_INTERVAL => {
                stderr::line(&self.state());
                self.told = Instant::now();
                self.is_known = true;
            }
            None => {}
        }
    }

    /// Ends the bar, and says in a line what was done, if the work was long enough to be shown.
    pub fn finish(mut self) {
        self.bar = None;
        if self.is_known && self.done > 0 {
            stderr::line(&self.summary());
        }
    }

    /// Renews the text beside the bar.
    fn tell(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.state());
            self.told = Instant::now();
        }
    }

    /// What is done so far: `verifying job 1: 1,200 of 5,000 rows, 400 a second, 10 s left`.
    fn state(&self) -> String {
        let done = match self.total {
            Some(total) => format!("{} of {}", self.number(self.done), self.amount(total)),
            None => self.amount(self.done),
        };
        let per_second = match &self.bar {
            Some(bar) => bar.per_sec(),
            None => self.done as f64 / self.began.elapsed().as_secs_f64(),
        };
        if self.total.is_none() && self.done == 0 {
            return self.doing.clone();
        }
        let mut state = format!("{}: {done}", self.doing);
        if self.done > 0 && per_second > 0.0 {
            state.push_str(&format!(", {}", self.rate(per_second)));
            if let Some(left) = self.total.and_then(|total| total.checked_sub(self.done)) {
                let left = duration(Some(left as f64 / per_second));
                state.push_str(&format!(", {left} left"));
            }
        }
        state
    }

    /// What was done: `verifying job 1: 5,000 rows in 12 s, 410 a second`.
    fn summary(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        format!(
            "{}: {} in {}, {}",
            self.doing,
            self.amount(self.done),
            duration(Some(seconds)),
            self.rate(self.done as f64 / seconds)
        )
    }

    /// The number alone.
    fn number(&self, number: u64) -> String {
        match self.unit {
            Unit::Bytes => format!("{:.1}", megabytes(number as f64)),
            Unit::Items(..) => count(Some(number)),
        }
    }

    /// The number with its unit.
    fn amount(&self, number: u64) -> String {
        match self.unit {
            Unit::Bytes => format!("{} MB", self.number(number)),
            Unit::Items(one, many) => plural(number, one, many),
        }
    }

    fn rate(&self, per_second: f64) -> String {
        match self.unit {
            Unit::Bytes => format!("{:.1} MB a second", megabytes(per_second)),
            Unit::Items(..) => format!("{} a second", rate(Some(per_second))),
        }
    }
}

fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}

/// How the line looks. The text is cut where the terminal ends, so that it is one line.
fn style(has_total: bool) -> ProgressStyle {
    let template = match has_total {
        _ if bar::width() < MIN_WIDTH_FOR_BAR => "{wide_msg}",
        true => "[{bar:24}] {wide_msg}",
        false => "{spinner} {elapsed} {wide_msg}",
    };
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ").tick_chars("|/-\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, done: u64, total: Option<u64>, unit: Unit) -> Progress {
        Progress {
            doing: "reading".into(),
            unit,
            total,
            done,
            began: Instant::now()
                .checked_sub(Duration::from_secs(seconds))
                .unwrap(),
            told: Instant::now(),
            is_known: false,
            bar: None,
        }
    }

    #[test]
    fn a_line_says_how_far_the_work_is_and_how_long_it_takes() {
        let state = |done, total| after(20, done, total, ROWS).state();
        assert_eq!(state(0, None), "reading");
        assert_eq!(state(0, Some(7)), "reading: 0 of 7 rows");
        assert_eq!(state(4000, None), "reading: 4,000 rows, 200 a second");
        let known = "reading: 4,000 of 10,000 rows, 200 a second, 30 s left";
        assert_eq!(state(4000, Some(10_000)), known);
        // Rows that came while it ran.
        assert_eq!(state(40, Some(20)), "reading: 40 of 20 rows, 2.0 a second");
        let bytes = after(10, 45_000_000, Some(90_000_000), Unit::Bytes).state();
        let known = "reading: 45.0 of 90.0 MB, 4.5 MB a second, 10 s left";
        assert_eq!(bytes, known);
    }

    #[test]
    fn the_summary_says_what_was_done() {
        let summary = after(20, 40, None, ROWS).summary();
        assert_eq!(summary, "reading: 40 rows in 20 s, 2.0 a second");
    }
}
