//! Figures of a job as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::byte_size::Size;
use crate::plural::form;
use crate::status::job_status::{JobState, JobStatus};
use crate::status::record::Coverage;

/// What stands for a figure that is unknown.
pub const UNKNOWN: &str = "-";

/// The share of the rows with a text that have a vector: `100%`, or `~97%` if estimated.
pub fn coverage(coverage: Option<&Coverage>) -> String {
    let Some(coverage) = coverage else {
        return UNKNOWN.to_owned();
    };
    let share = match coverage.rows_with_text {
        0 => 100.0,
        texts => coverage.rows_with_vector as f64 * 100.0 / texts as f64,
    };
    // Rounded down: 100 % means all.
    let share = (share * 10.0).floor() / 10.0;
    let mark = if coverage.is_exact { "" } else { "~" };
    match share {
        100.0 => format!("{mark}100%"),
        share => format!("{mark}{share:.1}%"),
    }
}

/// A rate: two digits matter.
pub fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// A time: `0 s`, `1.2 s`, `3 min`, `2 h 10 min`, `4 d 3 h`.
pub fn duration(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return UNKNOWN.to_owned();
    };
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 0.05 => "0 s".to_owned(),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        7200..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A number of bytes.
pub fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| UNKNOWN.to_owned(), |bytes| Size(bytes).to_string())
}

/// A number, with its thousands apart: `1,234,567`.
pub fn count(count: Option<u64>) -> String {
    let Some(count) = count else {
        return UNKNOWN.to_owned();
    };
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 row`, `1,234 rows`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(Some(number)), form(number, one, many))
}

/// A scan of existing rows: `1,200 of 5,000 rows, 12 s left`.
pub fn scan(job: &JobStatus) -> Option<String> {
    let scan = job.scan?;
    let left = scan.seconds_left.map_or_else(String::new, |seconds| {
        format!(", {} left", duration(Some(seconds)))
    });
    let (one, many) = job.unit();
    Some(format!(
        "{} of {}, {} {many} a second{left}",
        count(Some(scan.rows_done)),
        plural(scan.rows_total, one, many),
        rate(Some(scan.rows_per_second))
    ))
}

/// How fresh the vectors of a job are that no daemon runs, as far as the databases tell; `None` for any other job.
pub fn freshness(job: &JobStatus, now: SystemTime) -> Option<String> {
    if job.state != JobState::Stopped {
        return None;
    }
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |now| now.as_secs_f64());
    let idle = match job.as_of {
        Some(at) => format!(
            "no daemon has run it for about {}",
            duration(Some((now - at).max(0.0)))
        ),
        None => "no daemon runs it".to_owned(),
    };
    let Some(slot) = &job.slot else {
        return Some(idle);
    };
    let confirmed = format!("{idle}. Changes up to {} are done", slot.confirmed_lsn);
    Some(match job.lag_bytes {
        Some(0) => format!("{confirmed}, and nothing was written after that"),
        behind => format!(
            "{confirmed}; {} of WAL after that is unread, in which rows of any table may have changed. How many vectors are \
             missing or stale: lantern-cli verify --job {}",
            bytes(behind),
            job.id
        ),
    })
}

/// The color of a state (ECMA-48, SGR), if it has one.
pub fn color(state: JobState) -> Option<&'static str> {
    match state {
        JobState::Failed => Some("31"),
        JobState::Interrupted | JobState::Stopped | JobState::Waiting => Some("33"),
        JobState::Streaming => Some("32"),
        JobState::Starting | JobState::Backfilling | JobState::Canceled => None,
    }
}

/// A text in the color of a state.
pub fn paint(text: &str, state: JobState, colors: bool) -> String {
    match color(state).filter(|_| colors) {
        Some(color) => format!("\x1b[{color}m{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_coverage_means_all_rows() {
        let shown = |rows_with_vector, is_exact| {
            coverage(Some(&Coverage {
                rows_with_text: 10_000,
                rows_with_vector,
                passages: None,
                is_exact,
            }))
        };
        assert_eq!(shown(10_000, true), "100%");
        assert_eq!(shown(9999, true), "99.9%");
        assert_eq!(shown(5000, false), "~50.0%");
        assert_eq!(coverage(None), "-");
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let shown: Vec<String> = [0.0, 0.04, 0.3, 11.6, 150.0, 7800.0, 360_000.0]
            .map(|seconds| duration(Some(seconds)))
            .into();
        let expected = [
            "0 s",
            "0 s",
            "0.3 s",
            "12 s",
            "2 min",
            "2 h 10 min",
            "4 d 4 h",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn thousands_stand_apart() {
        let shown = [0, 999, 1000, 1_234_567].map(|number| count(Some(number)));
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
