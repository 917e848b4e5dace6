//! How long a fleet waits and tries again.

use std::time::Duration;

/// The times of a fleet. Tests make them short.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The first pause after failures.
    pub first_pause: Duration,
    /// The longest pause after failures.
    pub max_pause: Duration,
    /// How long nothing may succeed until the caller is told.
    pub trouble: Duration,
    /// How long a server that accepts the probe text is taken to accept it still.
    pub check_interval: Duration,
    /// How long a first text may wait for its turn.
    pub probe: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(500),
            max_pause: Duration::from_secs(15),
            trouble: Duration::from_secs(60),
            check_interval: Duration::from_secs(10),
            probe: Duration::from_secs(10),
        }
    }
}
