use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks every 10 ms until `look` returns `Ok`; its value is the result.
///
/// # Panics
///
/// After `patience`, with the description and what the last look returned.
pub async fn wait_until<T, S: Debug>(
    description: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => {
                panic!("waited {patience:?} in vain until {description}; last seen: {seen:?}")
            }
            Err(_) => sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// Looks every 10 ms until `look` returns `expected`.
///
/// # Panics
///
/// After `patience`, with the description and what the last look returned.
pub async fn wait_for<T: Debug + PartialEq>(
    description: &str,
    patience: Duration,
    expected: T,
    mut look: impl AsyncFnMut() -> T,
) {
    wait_until(description, patience, async || {
        let seen = look().await;
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .await;
}
