//! What the supervisor's loop tells the status board and a listener: that it is alive, each second; and that it has ended.
//!
//! The beats come from the loop's own task, while it waits, and from nowhere else: a loop that hangs does not beat. A
//! server that takes long to answer stops no beat, since a restart would not help against it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::status::StatusBoard;
use crate::status::board::Snapshot;

/// The time between two beats.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Hears of the supervisor's loop. It is called on the loop's task, and must not block.
pub trait LoopListener: Send {
    /// The loop is alive. There is no state of the jobs until the jobs table was read for the first time.
    fn beat(&mut self, state: Option<Arc<Snapshot>>);

    /// The loop has ended, and the jobs finish what is under way.
    fn stopping(&mut self);
}

/// Beats while the loop waits.
pub(super) struct Pulse {
    listener: Option<Box<dyn LoopListener>>,
    board: StatusBoard,
    clock: Interval,
}

impl Pulse {
    pub fn new(listener: Option<Box<dyn LoopListener>>, board: StatusBoard) -> Self {
        let mut clock = interval(BEAT_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Pulse {
            listener,
            board,
            clock,
        }
    }

    /// Waits for what the loop waits for, and beats meanwhile. Cancellation safe if `wait` is.
    pub async fn during<T>(&mut self, wait: impl Future<Output = T>) -> T {
        tokio::pin!(wait);
        loop {
            // The clock first: there may always be a message to handle.
            tokio::select! {
                biased;
                _ = self.clock.tick() => self.beat(),
                done = &mut wait => return done,
            }
        }
    }

    fn beat(&mut self) {
        self.board.beat();
        if let Some(listener) = &mut self.listener {
            listener.beat(self.board.snapshot());
        }
    }

    pub fn stopping(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.stopping();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_waits_for_a_server_is_alive() {
        let board = StatusBoard::default();
        let mut pulse = Pulse::new(None, board.clone());
        let unanswered = std::future::pending::<()>();
        let waited = tokio::time::timeout(BEAT_INTERVAL, pulse.during(unanswered)).await;
        assert!(waited.is_err());
        assert!(board.last_beat().is_some());
    }
}
