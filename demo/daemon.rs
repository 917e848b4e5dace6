//! The daemon as the demo's child: started, waited for, stopped. Its log goes to a file, not between the demo's lines.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::paths::Paths;

/// Between two looks at something that a person waits for.
const CALM: Duration = Duration::from_millis(20);
/// Between two looks at something that is measured. No pause at all would take one core from the daemon's model.
const TIGHT: Duration = Duration::from_micros(200);
const TIGHT_FOR: Duration = Duration::from_millis(50);
const LIVE_LIMIT: Duration = Duration::from_secs(15);
/// The daemon promises to end within 10 seconds of a SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(12);

pub struct Daemon {
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Daemon {
    /// Must be called on the main thread: the kernel ends the daemon when the thread that started it ends.
    pub fn start(paths: &Paths, jobs: &str) -> Result<Daemon> {
        let log = File::create(&paths.log)
            .with_context(|| format!("cannot write {}", paths.log.display()))?;
        let mut command = Command::new(&paths.binary);
        command
            .args([
                "start-daemon",
                "--uri",
                jobs,
                "--table",
                "jobs",
                "--data-path",
            ])
            .arg(&paths.data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on the terminal goes to the whole foreground group; the daemon is told by us, in order.
            .process_group(0)
            .kill_on_drop(true);
        end_with_this_process(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", paths.binary.display()))?;
        let pid = child.id().context("the daemon ended at once")?;
        Ok(Daemon {
            child,
            pid: Pid::from_raw(pid.try_into()?),
            log: paths.log.clone(),
        })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Looks every now and then until `reached`, and returns how long that took.
    ///
    /// # Errors
    /// When `limit` passes first, or the daemon ends. `what` completes the sentence "waited until …".
    pub async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        reached: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<Duration> {
        self.watch(what, limit, reached, async |_| sleep(CALM).await)
            .await
    }

    /// As [`Daemon::until`], for what takes milliseconds and is measured: looks without a rest to speak of.
    pub async fn until_at_once(
        &mut self,
        what: &str,
        reached: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<Duration> {
        let pause = async |elapsed: Duration| {
            if elapsed < TIGHT_FOR {
                // The runtime's timer knows whole milliseconds only. Blocking is fine: this thread serves nobody else.
                std::thread::sleep(TIGHT);
            } else {
                sleep(CALM).await;
            }
        };
        self.watch(what, LIVE_LIMIT, reached, pause).await
    }

    async fn watch(
        &mut self,
        what: &str,
        limit: Duration,
        mut reached: impl AsyncFnMut() -> Result<bool>,
        mut pause: impl AsyncFnMut(Duration),
    ) -> Result<Duration> {
        let started = Instant::now();
        loop {
            if reached().await? {
                return Ok(started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("waited until {what}, but the daemon ended by itself ({status})");
            }
            if started.elapsed() > limit {
                bail!("waited {} s until {what}, in vain", limit.as_secs());
            }
            pause(started.elapsed()).await;
        }
    }

    /// SIGTERM, and the exit status with the time it took. Calling it again after the daemon ended is harmless.
    pub async fn stop(&mut self) -> Result<(i32, Duration)> {
        let started = Instant::now();
        if self.child.try_wait()?.is_none() {
            kill(self.pid, Signal::SIGTERM).context("cannot signal the daemon")?;
        }
        let Ok(status) = timeout(STOP_LIMIT, self.child.wait()).await else {
            self.child.kill().await?;
            bail!(
                "the daemon did not end within {} s of SIGTERM and was killed",
                STOP_LIMIT.as_secs()
            );
        };
        let code = exit_code(status?)?;
        Ok((code, started.elapsed()))
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    pub fn log(&self) -> &PathBuf {
        &self.log
    }
}

fn exit_code(status: ExitStatus) -> Result<i32> {
    match status.code() {
        Some(0) => Ok(0),
        _ => bail!("the daemon ended with {status}, expected exit status 0"),
    }
}

/// However this process ends, SIGKILL included, the daemon gets a SIGTERM.
#[cfg(target_os = "linux")]
fn end_with_this_process(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let ask_the_kernel = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        // The parent may have ended between fork and prctl.
        if nix::unistd::getppid() != parent {
            return Err(std::io::Error::other("the demo has ended"));
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates only to refuse, when nobody is left to deadlock with.
    unsafe { command.pre_exec(ask_the_kernel) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_this_process(_: &mut Command) {}
