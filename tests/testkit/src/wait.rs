//! Waiting for a condition. Nothing in the tests sleeps for a fixed time to let something happen: they poll for it.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longer than anything takes on a machine that is busy with other things. A test that passes never waits that long.
pub const TIMEOUT: Duration = Duration::from_secs(90);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Calls `poll` every `interval` until it returns `Ok`. With an interval of zero it yields to the runtime in between.
///
/// # Errors
///
/// What `poll` returned last, once `timeout` is over.
pub async fn poll_until<T, E>(
    interval: Duration,
    timeout: Duration,
    mut poll: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + timeout;
    loop {
        match poll().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= deadline => return Err(seen),
            Err(_) if interval.is_zero() => tokio::task::yield_now().await,
            Err(_) => sleep(interval).await,
        }
    }
}

/// Polls every 10 ms until `poll` returns `Ok`, and returns its value.
///
/// # Panics
///
/// After `timeout`, with the description and what `poll` returned last.
pub async fn wait_until<T, S: Debug>(
    description: &str,
    timeout: Duration,
    poll: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let polled = poll_until(POLL_INTERVAL, timeout, poll).await;
    polled
        .unwrap_or_else(|seen| panic!("not within {timeout:?}: {description}; last seen: {seen:?}"))
}

/// Polls every 10 ms until `poll` returns `expected`.
///
/// # Panics
///
/// After `timeout`, with the description and what `poll` returned last.
pub async fn wait_for<T: Debug + PartialEq>(
    description: &str,
    timeout: Duration,
    expected: T,
    mut poll: impl AsyncFnMut() -> T,
) {
    wait_until(description, timeout, async || {
        let seen = poll().await;
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .await;
}
