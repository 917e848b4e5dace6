//! How a process that runs on is stopped.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::stderr;

/// The first SIGTERM or SIGINT (Ctrl-C) starts an orderly shutdown; a second one ends the process at once. The exit
/// status is then that of a process which the signal has killed, as a shell reports it: 128 and the number of the
/// signal.
pub(super) fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::spawn(async move {
        for round in 0.. {
            let status = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if round > 0 {
                stderr::flush();
                std::process::exit(status);
            }
            // First what was asked for, then what is said about it.
            stop.cancel();
            tracing::info!("asked to stop; a second signal ends the process at once");
        }
    });
    Ok(())
}
