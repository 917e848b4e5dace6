//! When the next standby status update is due.
//!
//! The server needs to hear from us in four cases, each with its own urgency:
//!
//! - It requests a reply: at once.
//! - Finished rows have advanced the confirmed position: at once, but at most once in [`CONFIRM_INTERVAL`], because the
//!   server works for each update.
//! - Only keepalives have advanced it: soon, while rows have been finished lately, since who wrote them may wait for a
//!   position behind them; otherwise with the next tick of the clock, because a busy server answers each update with
//!   another keepalive.
//! - Nothing was sent for a third of `wal_sender_timeout`, or for 10 s: an update is overdue, however busy we are. The
//!   server ends the connection after the whole timeout (PostgreSQL manual, "wal_sender_timeout").

use std::time::Duration;

use tokio::time::Instant;

use crate::replication::Lsn;

/// The least time between two updates that finished rows cause.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(10);
/// The least time between two updates that keepalives cause, while rows have been finished lately.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(25);
/// For so long after rows were finished.
const LATELY: Duration = Duration::from_secs(1);
/// The least time between two updates that keepalives cause otherwise.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// The status updates of one connection.
pub(super) struct Feedback {
    /// The longest time between two updates.
    max_interval: Duration,
    /// The position of the last update.
    sent: Lsn,
    sent_at: Instant,
    /// Finished rows have advanced the position since then.
    has_advanced: bool,
    /// When they last did.
    advanced_at: Option<Instant>,
    /// When the next update goes out for that reason, if it has to wait.
    pub due: Option<Instant>,
}

impl Feedback {
    pub(super) fn new(max_interval: Duration) -> Self {
        Feedback {
            max_interval,
            sent: Lsn::ZERO,
            sent_at: Instant::now(),
            has_advanced: false,
            advanced_at: None,
            due: None,
        }
    }

    /// How often [`is_overdue`](Self::is_overdue) has to be asked.
    pub(super) fn tick_interval(&self) -> Duration {
        IDLE_INTERVAL.min(self.max_interval / 2)
    }

    /// Whether this connection has confirmed a position.
    pub(super) fn has_begun(&self) -> bool {
        self.sent > Lsn::ZERO
    }

    /// Finished rows may have moved the position from `before` to `now`.
    pub(super) fn note_progress(&mut self, before: Lsn, now: Lsn) {
        if now > before {
            self.has_advanced = true;
            self.advanced_at = Some(Instant::now());
        }
    }

    /// A keepalive has come, and the position is `confirmed` now. Schedules an update if rows have been finished lately.
    pub(super) fn note_keepalive(&mut self, confirmed: Lsn) {
        let lately = self.advanced_at.is_some_and(|at| at.elapsed() < LATELY);
        if lately && self.due.is_none() && self.is_behind(confirmed) {
            self.due = Some(self.sent_at + KEEPALIVE_INTERVAL);
        }
    }

    /// Whether an update has to go out now because rows are finished. Otherwise it is scheduled, if there is a reason for one.
    pub(super) fn confirms_now(&mut self) -> bool {
        if !self.has_advanced {
            return false;
        }
        if self.sent_at.elapsed() >= CONFIRM_INTERVAL {
            return true;
        }
        self.due = Some(self.sent_at + CONFIRM_INTERVAL);
        false
    }

    /// Whether the position has advanced beyond what the server knows.
    pub(super) fn is_behind(&self, confirmed: Lsn) -> bool {
        confirmed > self.sent
    }

    /// Whether the server has not heard from us for the longest time that it may wait.
    pub(super) fn is_overdue(&self) -> bool {
        self.sent_at.elapsed() >= self.max_interval
    }

    /// An update with this position has gone out.
    pub(super) fn note_sent(&mut self, confirmed: Lsn) {
        self.sent = confirmed;
        self.sent_at = Instant::now();
        self.has_advanced = false;
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalives_cause_updates_soon_while_rows_are_finished_and_with_the_clock_otherwise() {
        let mut feedback = Feedback::new(Duration::from_secs(10));
        feedback.note_sent(Lsn(1));
        feedback.note_keepalive(Lsn(2));
        assert_eq!(feedback.due, None);

        feedback.note_progress(Lsn(2), Lsn(3));
        feedback.note_sent(Lsn(3));
        feedback.note_keepalive(Lsn(3));
        assert_eq!(feedback.due, None, "the server knows the position");
        feedback.note_keepalive(Lsn(4));
        assert_eq!(feedback.due, Some(feedback.sent_at + KEEPALIVE_INTERVAL));
    }

    #[test]
    fn an_update_that_a_keepalive_has_scheduled_delays_none_for_finished_rows() {
        let mut feedback = Feedback::new(Duration::from_secs(10));
        feedback.note_progress(Lsn(1), Lsn(2));
        feedback.note_sent(Lsn(2));
        feedback.note_keepalive(Lsn(3));
        feedback.note_progress(Lsn(3), Lsn(4));
        if !feedback.confirms_now() {
            assert_eq!(feedback.due, Some(feedback.sent_at + CONFIRM_INTERVAL));
        }
        feedback.sent_at -= CONFIRM_INTERVAL;
        assert!(feedback.confirms_now());
    }
}
