//! Named places where the chaos tests hold or kill the daemon, and where `make bench` skips embedding.
//!
//! They exist only with the feature `failpoints`; without it each call is an empty function. The environment variable
//! `FAILPOINTS` says what happens where, in the notation of the crate `fail`:
//!
//! ```text
//!  status-before=3*off->1*return    kills the process at the fourth standby status update
//!  embedder=1*sleep(800)            holds an inference thread once, for 800 ms
//! ```
//!
//! The daemon is killed with SIGKILL, as a crash of the machine or the out-of-memory killer would end it: no destructor
//! runs, and no connection is closed properly.

#[cfg(not(feature = "failpoints"))]
pub use disabled::{is_set, number, reach, reach_awaiting, read_environment};
#[cfg(feature = "failpoints")]
pub use enabled::{is_set, number, reach, reach_awaiting, read_environment};

#[cfg(feature = "failpoints")]
mod enabled {
    use std::time::Duration;

    use fail::FailScenario;
    use nix::sys::signal::{Signal, raise};

    /// How long [`reach_awaiting`] lets other tasks run before it kills the process.
    const DEFAULT_PAUSE_MS: u64 = 20;

    /// Reads `FAILPOINTS`. The failpoints stay set until the process ends.
    pub fn read_environment() {
        // Dropping the scenario would clear them.
        std::mem::forget(FailScenario::setup());
    }

    /// Does what is configured for this place. `return` kills the process.
    pub fn reach(name: &str) {
        fail::eval(name, |_| raise(Signal::SIGKILL));
    }

    /// Whether `return` is configured for this place: then the caller does something else.
    pub fn is_set(name: &str) -> bool {
        fail::eval(name, |_| ()).is_some()
    }

    /// The number that `return` has for this place, as in `return(0.1)`.
    pub fn number(name: &str) -> Option<f64> {
        fail::eval(name, |number| number).flatten()?.parse().ok()
    }

    /// Like [`reach`], but first lets other tasks send what they have. `return(800)` waits 800 ms and continues: the
    /// process hangs rather than ends.
    pub async fn reach_awaiting(name: &str) {
        let Some(pause) = fail::eval(name, |pause| pause) else {
            return;
        };
        let milliseconds = pause.as_deref().and_then(|pause| pause.parse().ok());
        tokio::time::sleep(Duration::from_millis(
            milliseconds.unwrap_or(DEFAULT_PAUSE_MS),
        ))
        .await;
        if pause.is_none() {
            let _ = raise(Signal::SIGKILL);
        }
    }
}

#[cfg(not(feature = "failpoints"))]
mod disabled {
    /// Does nothing.
    #[inline]
    pub fn read_environment() {}

    /// Does nothing.
    #[inline]
    pub fn reach(_name: &str) {}

    /// Always `false`.
    #[inline]
    pub fn is_set(_name: &str) -> bool {
        false
    }

    /// Always `None`.
    #[inline]
    pub fn number(_name: &str) -> Option<f64> {
        None
    }

    /// Completes immediately.
    #[inline]
    pub fn reach_awaiting(_name: &str) -> std::future::Ready<()> {
        std::future::ready(())
    }
}
