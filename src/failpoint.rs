//! Places where the chaos tests may hold or kill the daemon, by name, and where `make bench` lets rows go unembedded.
//!
//! They are there only with the feature `failpoints`; without it each call is an empty function. `FAILPOINTS` in the environment
//! says what happens where, in the notation of the crate `fail`: `status-before=3*off->1*return` kills the process at the
//! fourth status update, `embedder=1*sleep(800)` holds the embedder for 800 ms.

#[cfg(not(feature = "failpoints"))]
pub use absent::{is_set, reach, reach_awaiting, read_environment};
#[cfg(feature = "failpoints")]
pub use armed::{is_set, reach, reach_awaiting, read_environment};

#[cfg(feature = "failpoints")]
mod armed {
    use std::time::Duration;

    use fail::FailScenario;
    use nix::sys::signal::{Signal, raise};

    /// Reads `FAILPOINTS`; they stay set until the process ends.
    pub fn read_environment() {
        std::mem::forget(FailScenario::setup());
    }

    /// Does what was asked for at this place; `return` kills the process, as a crash would.
    pub fn reach(name: &str) {
        fail::eval(name, |_| raise(Signal::SIGKILL));
    }

    /// Whether something other happens at this place: `return`.
    pub fn is_set(name: &str) -> bool {
        fail::eval(name, |_| ()).is_some()
    }

    /// As [`reach`]; what other tasks have to send before this place leaves the process first. `return(800)` waits 800 ms
    /// and then goes on: the process hangs, rather than ends.
    pub async fn reach_awaiting(name: &str) {
        let Some(pause) = fail::eval(name, |pause| pause) else {
            return;
        };
        let milliseconds = pause.as_deref().and_then(|pause| pause.parse().ok());
        tokio::time::sleep(Duration::from_millis(milliseconds.unwrap_or(20))).await;
        if pause.is_none() {
            let _ = raise(Signal::SIGKILL);
        }
    }
}

#[cfg(not(feature = "failpoints"))]
mod absent {
    #[inline(always)]
    pub fn read_environment() {}

    #[inline(always)]
    pub fn reach(_name: &str) {}

    #[inline(always)]
    pub fn is_set(_name: &str) -> bool {
        false
    }

    #[inline(always)]
    pub fn reach_awaiting(_name: &str) -> std::future::Ready<()> {
        std::future::ready(())
    }
}
