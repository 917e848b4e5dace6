//! The daemon as the demo's child: started, watched, stopped. Its log goes to a file, not between the demo's lines.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use testkit::{Process, Program};
use tokio::time::sleep;

use crate::paths::Paths;

/// The pause between two polls for something that a person waits for.
const CALM_INTERVAL: Duration = Duration::from_millis(20);
/// The pause between two polls for something that is measured. Without a pause, polling would take a core from the
/// model.
const TIGHT_INTERVAL: Duration = Duration::from_micros(200);
const TIGHT_PERIOD: Duration = Duration::from_millis(50);
const LIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// The daemon ends within 10 seconds of a SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

pub struct Daemon {
    process: Process,
}

impl Daemon {
    /// Must be called on the main thread: the kernel ends the daemon when the thread that started it ends.
    pub fn start(paths: &Paths, jobs: &str) -> Result<Daemon> {
        let program = Program::new(&paths.binary).with_data_path(&paths.data);
        let mut command = program.command("start-daemon");
        command.args(["--uri", jobs, "--table", "jobs"]);
        // Each demo has a log of its own.
        let _ = std::fs::remove_file(&paths.log);
        let process = Process::spawn_with_log(command, &paths.log)
            .with_context(|| format!("cannot start {}", paths.binary.display()))?;
        Ok(Daemon { process })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Polls until `reached` returns true, and returns how long that took.
    ///
    /// # Errors
    ///
    /// When `timeout` is over, or the daemon ends. `what` completes the sentence "waited until …".
    pub async fn until(
        &mut self,
        what: &str,
        timeout: Duration,
        reached: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<Duration> {
        self.poll(what, timeout, reached, async |_| sleep(CALM_INTERVAL).await)
            .await
    }

    /// As [`Daemon::until`], for what takes milliseconds and is measured: polls almost without a pause.
    pub async fn until_at_once(
        &mut self,
        what: &str,
        reached: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<Duration> {
        let pause = async |elapsed: Duration| {
            if elapsed < TIGHT_PERIOD {
                // Tokio's timer has a resolution of one millisecond. Nothing else runs on this thread.
                std::thread::sleep(TIGHT_INTERVAL);
            } else {
                sleep(CALM_INTERVAL).await;
            }
        };
        self.poll(what, LIVE_TIMEOUT, reached, pause).await
    }

    async fn poll(
        &mut self,
        what: &str,
        timeout: Duration,
        mut reached: impl AsyncFnMut() -> Result<bool>,
        mut pause: impl AsyncFnMut(Duration),
    ) -> Result<Duration> {
        let started = Instant::now();
        loop {
            if reached().await? {
                return Ok(started.elapsed());
            }
            if let Some(status) = self.process.exit_status() {
                bail!("waited until {what}, but the daemon ended by itself ({status})");
            }
            if started.elapsed() > timeout {
                bail!("waited {} s, but not until {what}", timeout.as_secs());
            }
            pause(started.elapsed()).await;
        }
    }

    /// Sends SIGTERM and waits; returns how long that took. Calling it again after the daemon has ended is harmless.
    pub async fn stop(&mut self) -> Result<Duration> {
        let started = Instant::now();
        if self.process.exit_status().is_none() {
            self.process.signal(Signal::SIGTERM);
        }
        loop {
            match self.process.exit_status() {
                Some(status) if status.success() => return Ok(started.elapsed()),
                Some(status) => bail!("the daemon ended with {status}, expected exit status 0"),
                None if started.elapsed() > STOP_TIMEOUT => {
                    self.process.kill();
                    bail!(
                        "the daemon did not end within {} s of SIGTERM and was killed",
                        STOP_TIMEOUT.as_secs()
                    );
                }
                None => sleep(Duration::from_millis(2)).await,
            }
        }
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.process.log();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    pub fn log(&self) -> &Path {
        self.process.log_path()
    }
}
