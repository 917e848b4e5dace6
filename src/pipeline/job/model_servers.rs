//! Tells in the job's row and in the log that the servers or devices of its model hold it up: they do not answer, ask for a
//! pause, or are lost.
//!
//! The model goes on trying by itself, so the job runs all the while, with rows that wait. Without this its users would
//! only see that it does not get on. What is counted of servers and devices goes to those who watch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::embedding::Model;
use crate::jobs::reporter::Reporter;
use crate::status::JobCounters;
use crate::status::record::{DeviceRecord, ServerRecord};
use crate::ticks;

const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Looks after which a job that is still held up says so again: its row may have been cleared meanwhile.
const AGAIN_AFTER: u32 = 15;

/// Looks at servers and devices for as long as it is polled. A model on the processor has none.
///
/// Cancellation safe.
pub async fn watch(model: Model, reporter: Reporter, counters: Arc<JobCounters>) -> Infallible {
    let (waits, goes_on) = match (model.servers().is_empty(), model.devices().is_empty()) {
        (true, true) => return std::future::pending().await,
        (true, false) => (
            "rows wait for the model's devices",
            "the model's devices compute again",
        ),
        (false, _) => (
            "rows wait for the model's servers",
            "the model's servers take texts again",
        ),
    };
    let mut clock = ticks::together(LOOK_INTERVAL, 0);
    // What is said, and for how many looks.
    let mut said: Option<(String, u32)> = None;
    // The first look that finds something wrong waits for the second: a moment is not worth a word.
    let mut was_held_up = false;
    loop {
        let servers = model.servers().into_iter().map(ServerRecord::from);
        counters.set_servers(servers.collect());
        let devices = model.devices().into_iter().map(DeviceRecord::from);
        counters.set_devices(devices.collect());
        clock.tick().await;
        let held_up = model.held_up();
        let lasts = was_held_up;
        was_held_up = held_up.is_some();
        said = match (held_up, said) {
            (None, None) => None,
            (None, Some(_)) => {
                tracing::info!("{goes_on}");
                reporter.interrupted(None);
                None
            }
            (Some(why), Some((before, looks))) if why == before && looks < AGAIN_AFTER => {
                Some((why, looks + 1))
            }
            (Some(_), None) if !lasts => None,
            (Some(why), before) => {
                if before.is_none_or(|(before, _)| before != why) {
                    tracing::warn!("{waits}: {why}");
                }
                reporter.interrupted(Some(format!("{waits}: {why}")));
                Some((why, 0))
            }
        };
    }
}
