//! Alive, ready, or why not.

use std::time::{Duration, Instant};

use crate::plural::form;
use crate::shown::shown;
use crate::status::board::Snapshot;
use crate::status::job_status::JobState;
use crate::status::record::DaemonName;
use crate::status::{JobStatus, StatusBoard};

/// The daemon says that it is alive, and publishes its state, about once a second. After this time without it hangs.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// The same while the jobs database is away: then it publishes before each attempt to connect, which may take as long as
/// `connect_timeout` for each address.
const MAX_SILENCE_AWAY: Duration = Duration::from_secs(120);

/// Why the daemon has to be started again, if that would help. `started` is when the server began to look at the board.
pub(super) fn hang(board: &StatusBoard, started: Instant) -> Option<String> {
    let (since, limit) = match board.last_beat() {
        Some(beat) => (beat, MAX_SILENCE),
        // It connects to the jobs database.
        None => (started, MAX_SILENCE_AWAY),
    };
    let silent = since.elapsed();
    (silent >= limit).then(|| {
        let seconds = silent.as_secs();
        format!("the daemon hangs: it has not moved for {seconds} s; start it again")
    })
}

/// Why what is known of the jobs is old, if it is: a server keeps the daemon waiting, or it hangs. `started` is when the
/// server began to look at the board.
pub(super) fn silence(board: &StatusBoard, started: Instant) -> Option<String> {
    let silent = board.published().map_or(started, |published| published.at);
    let silent = silent.elapsed();
    let snapshot = board.snapshot();
    let is_away = snapshot.is_some_and(|snapshot| snapshot.daemon.jobs_database_error.is_some());
    let limit = match is_away {
        true => MAX_SILENCE_AWAY,
        false => MAX_SILENCE,
    };
    (silent >= limit).then(|| {
        let seconds = silent.as_secs();
        format!(
            "the daemon has said nothing about its jobs for {seconds} s; look for a lock on the jobs table (pg_locks)"
        )
    })
}

/// Whether the jobs stream.
pub(super) struct Readiness {
    /// Jobs that stream or backfill here.
    pub at_work: usize,
    /// A line for each of the others, and why.
    pub not_at_work: Vec<String>,
}

impl Readiness {
    /// Of the jobs that should run in this daemon: of those that it runs and those that none runs.
    pub fn of(snapshot: &Snapshot) -> Readiness {
        let mut readiness = Readiness {
            at_work: 0,
            not_at_work: Vec::new(),
        };
        for job in &snapshot.jobs {
            if job.state == JobState::Canceled || runs_elsewhere(job, &snapshot.daemon.name) {
                continue;
            }
            match job.state {
                JobState::Streaming | JobState::Backfilling => readiness.at_work += 1,
                _ => readiness.not_at_work.push(line(job)),
            }
        }
        readiness
    }

    /// For a person: all lines, or only their number.
    pub fn text(&self, with_lines: bool) -> String {
        let count = |number: usize| format!("{number} {}", form(number, "job", "jobs"));
        if self.not_at_work.is_empty() {
            return format!("ready: {} at work\n", count(self.at_work));
        }
        let mut text = format!(
            "not ready: {} at work, {} not\n",
            count(self.at_work),
            self.not_at_work.len()
        );
        if with_lines {
            for line in &self.not_at_work {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// Whether another daemon runs the job, which may not be known by its name.
pub(super) fn runs_elsewhere(job: &JobStatus, this: &DaemonName) -> bool {
    let runs = match job.state {
        JobState::Starting
        | JobState::Backfilling
        | JobState::Streaming
        | JobState::Interrupted => true,
        JobState::Waiting | JobState::Stopped | JobState::Failed | JobState::Canceled => false,
    };
    runs && job.daemon.as_ref() != Some(this)
}

fn line(job: &JobStatus) -> String {
    let what = match job.state {
        JobState::Waiting => "no daemon has started it",
        JobState::Starting => "starts",
        JobState::Interrupted => "is interrupted",
        JobState::Stopped => "no daemon runs it",
        JobState::Failed => "has failed",
        state => state.name(),
    };
    let reason = job.reason.as_deref().unwrap_or("no reason is known");
    shown(&format!("job {} ({}) {what}: {reason}", job.id, job.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(seconds: u64) -> Instant {
        let past = Instant::now().checked_sub(Duration::from_secs(seconds));
        past.unwrap()
    }

    #[test]
    fn figures_of_ten_seconds_ago_are_old() {
        let board = StatusBoard::default();
        assert_eq!(silence(&board, ago(9)), None);
        let said = silence(&board, ago(11)).unwrap();
        assert!(said.contains("nothing about its jobs for 11 s"), "{said}");
    }

    #[test]
    fn a_daemon_that_is_kept_waiting_does_not_hang() {
        let board = StatusBoard::default();
        assert_eq!(hang(&board, ago(119)), None);
        let said = hang(&board, ago(121)).unwrap();
        assert!(said.contains("has not moved for 121 s"), "{said}");
        board.beat();
        assert_eq!(hang(&board, ago(121)), None);
        assert!(silence(&board, ago(121)).is_some());
    }
}
