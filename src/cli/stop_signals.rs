//! How a process that runs on is stopped.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::stderr;

/// The first SIGTERM or SIGINT (Ctrl-C) starts an orderly shutdown; a second one ends the process at once. The exit
/// status is then that of a process which the signal has killed, as a shell reports it: 128 and the number of the
/// signal.
pub(super) fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    listen(stop, |_| {
        tracing::info!("asked to stop; a second signal ends the process at once");
    })
}

/// The same for a command, which says `announcement`. Returns where the exit status of the first signal is found.
pub(super) fn stop_command_on_signals(
    stop: CancellationToken,
    announcement: &'static str,
) -> anyhow::Result<Arc<OnceLock<u8>>> {
    let status = Arc::new(OnceLock::new());
    let first = status.clone();
    listen(stop, move |status| {
        let _ = first.set(status);
        stderr::line(announcement);
    })?;
    Ok(status)
}

/// Calls `announce` with the exit status of the first signal, after `stop` was canceled.
fn listen(stop: CancellationToken, announce: impl Fn(u8) + Send + 'static) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::spawn(async move {
        for round in 0.. {
            let status = tokio::select! {
                _ = terminate.recv() => 143u8,
                _ = interrupt.recv() => 130,
            };
            if round > 0 {
                stderr::flush();
                std::process::exit(status.into());
            }
            // First what was asked for, then what is said about it.
            stop.cancel();
            announce(status);
        }
    });
    Ok(())
}
