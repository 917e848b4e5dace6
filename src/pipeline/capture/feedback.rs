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
//!
//! Beside many small transactions, also of tables without a job, a server sends a keepalive each time that it has caught up.
//! That costs its users more than decoding does. So where they come often, the server is told not to send any
//! ([`report_written`](crate::replication::ReplicationStream::report_written)), and is asked for one with the clock, and
//! soon while rows have been finished lately.

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
/// So many keepalives in a second, between two ticks of the clock, come often.
const MANY_KEEPALIVES: u32 = 100;
/// With less WAL than this between two ticks, in bytes, no server would send as many.
const LITTLE_WAL: u64 = 8 << 10;
/// How far ahead of the server's position the next ones are declined, in bytes: more WAL than it writes between two ticks.
const DECLINED_WAL: u64 = 1 << 30;

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
    /// Keepalives since the last tick of the clock.
    keepalives: u32,
    /// The server was told to send none unless asked.
    declines: bool,
    /// When it was asked for one.
    asked_at: Instant,
    /// How far the server had sent by the last keepalive, and by the last one before the last tick.
    wal_end: Lsn,
    ticked_at: Lsn,
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
            keepalives: 0,
            declines: false,
            asked_at: Instant::now(),
            wal_end: Lsn::ZERO,
            ticked_at: Lsn::ZERO,
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

    /// A keepalive has come: the server has sent everything up to `wal_end`. Returns whether an update has to tell the
    /// server now that it need not send more. With the next tick, a burst of a second would be over before it is heard.
    pub(super) fn note_keepalive(&mut self, wal_end: Lsn) -> bool {
        self.keepalives += 1;
        self.wal_end = wal_end;
        let many = self.keepalives >= MANY_KEEPALIVES;
        many && !std::mem::replace(&mut self.declines, true)
    }

    /// The position is `confirmed` after a keepalive. Schedules an update if rows have been finished lately.
    pub(super) fn schedule(&mut self, confirmed: Lsn) {
        if self.is_lively() && self.due.is_none() && self.is_behind(confirmed) {
            self.due = Some(self.sent_at + KEEPALIVE_INTERVAL);
        }
    }

    /// Whether rows have been finished lately.
    fn is_lively(&self) -> bool {
        self.advanced_at.is_some_and(|at| at.elapsed() < LATELY)
    }

    /// A second has passed: forgets its keepalives. Returns whether an update has to tell the server that it may send them
    /// again.
    pub(super) fn end_second(&mut self) -> bool {
        let many = std::mem::take(&mut self.keepalives) >= MANY_KEEPALIVES;
        let before = std::mem::replace(&mut self.ticked_at, self.wal_end);
        let written = self.wal_end.0.saturating_sub(before.0);
        let declines = self.declines && (many || written >= LITTLE_WAL);
        std::mem::replace(&mut self.declines, declines) != declines
    }

    /// Up to where the server need not send keepalives; 0/0 where it may.
    pub(super) fn declined(&self) -> Lsn {
        match self.declines {
            true => Lsn(self.wal_end.0.saturating_add(DECLINED_WAL)),
            false => Lsn::ZERO,
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

    /// Whether the next update asks for a keepalive, because who has written the finished rows may wait for a position
    /// behind them, and none comes otherwise.
    pub(super) fn asks(&self) -> bool {
        self.declines && self.is_lively() && self.asked_at.elapsed() >= KEEPALIVE_INTERVAL
    }

    /// An update with this position has gone out, and asked for a keepalive or not.
    pub(super) fn note_sent(&mut self, confirmed: Lsn, asked: bool) {
        let now = Instant::now();
        self.sent = confirmed;
        self.sent_at = now;
        self.has_advanced = false;
        if asked {
            self.asked_at = now;
        }
        let asks_again = self.declines && self.is_lively();
        self.due = asks_again.then(|| self.asked_at + KEEPALIVE_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalives_cause_updates_soon_while_rows_are_finished_and_with_the_clock_otherwise() {
        let mut feedback = Feedback::new(Duration::from_secs(10));
        feedback.note_sent(Lsn(1), false);
        feedback.schedule(Lsn(2));
        assert_eq!(feedback.due, None);

        feedback.note_progress(Lsn(2), Lsn(3));
        feedback.note_sent(Lsn(3), false);
        feedback.schedule(Lsn(3));
        assert_eq!(feedback.due, None, "the server knows the position");
        feedback.schedule(Lsn(4));
        assert_eq!(feedback.due, Some(feedback.sent_at + KEEPALIVE_INTERVAL));
    }

    #[test]
    fn an_update_that_a_keepalive_has_scheduled_delays_none_for_finished_rows() {
        let mut feedback = Feedback::new(Duration::from_secs(10));
        feedback.note_progress(Lsn(1), Lsn(2));
        feedback.note_sent(Lsn(2), false);
        feedback.schedule(Lsn(3));
        feedback.note_progress(Lsn(3), Lsn(4));
        if !feedback.confirms_now() {
            assert_eq!(feedback.due, Some(feedback.sent_at + CONFIRM_INTERVAL));
        }
        feedback.sent_at -= CONFIRM_INTERVAL;
        assert!(feedback.confirms_now());
    }

    /// So many keepalives, each of which shows so much more WAL; returns how many of them asked for an update.
    fn keepalives(feedback: &mut Feedback, count: u32, wal: u64) -> usize {
        let mut note = || feedback.note_keepalive(Lsn(feedback.wal_end.0 + wal));
        (0..count).filter(|_| note()).count()
    }

    #[test]
    fn keepalives_that_come_often_are_declined_at_once_until_little_is_written() {
        let mut feedback = Feedback::new(Duration::from_secs(10));
        assert_eq!(keepalives(&mut feedback, MANY_KEEPALIVES - 1, 200), 0);
        assert!(!feedback.end_second());
        assert_eq!(keepalives(&mut feedback, MANY_KEEPALIVES - 1, 200), 0);
        assert_eq!(feedback.declined(), Lsn::ZERO);
        assert_eq!(keepalives(&mut feedback, MANY_KEEPALIVES, 200), 1);
        assert!(feedback.declined() > feedback.wal_end);
        assert!(!feedback.end_second());
        // Those that are asked for show that the server is still as busy.
        assert_eq!(keepalives(&mut feedback, 1, 20_000), 0);
        assert!(!feedback.end_second());
        assert!(feedback.declined() > feedback.wal_end);
        keepalives(&mut feedback, 1, 100);
        assert!(feedback.end_second());
        assert_eq!(feedback.declined(), Lsn::ZERO);
    }

    #[test]
    fn one_that_was_declined_is_asked_for_while_rows_are_finished() {
        let mut feedback = Feedback::new(Duration::from_secs(10));
        keepalives(&mut feedback, MANY_KEEPALIVES, 200);
        feedback.asked_at -= KEEPALIVE_INTERVAL;
        assert!(!feedback.asks(), "no row was finished");
        feedback.note_sent(Lsn(1), false);
        assert_eq!(feedback.due, None);

        feedback.note_progress(Lsn(1), Lsn(2));
        assert!(feedback.asks());
        feedback.note_sent(Lsn(2), true);
        assert!(!feedback.asks());
        assert_eq!(feedback.due, Some(feedback.asked_at + KEEPALIVE_INTERVAL));
    }
}
