//! A child process that ends with its owner, with its output in a file.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use crate::wait::wait_until;

/// A child process. It is killed when the value is dropped; a failed test shows what the process has printed.
pub struct Process {
    child: Child,
    name: String,
    log: Log,
}

enum Log {
    /// Deleted with the process.
    Temporary(NamedTempFile),
    Kept(PathBuf),
}

impl Process {
    /// Starts a process. Its output goes to a temporary file.
    ///
    /// # Panics
    ///
    /// Where it cannot be started.
    pub fn spawn(command: Command) -> Self {
        let log = NamedTempFile::new().expect("a temporary file");
        spawn(command, Log::Temporary(log), None).expect("the program starts")
    }

    /// Starts a process whose standard error goes elsewhere: to a pipe, for instance.
    ///
    /// # Panics
    ///
    /// Where it cannot be started.
    pub fn spawn_with_stderr(command: Command, stderr: impl Into<Stdio>) -> Self {
        let log = NamedTempFile::new().expect("a temporary file");
        spawn(command, Log::Temporary(log), Some(stderr.into())).expect("the program starts")
    }

    /// Starts a process. Its output is appended to the file `log`.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened or the program cannot be started.
    pub fn spawn_with_log(command: Command, log: &Path) -> io::Result<Self> {
        spawn(command, Log::Kept(log.to_owned()), None)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process has printed so far, to either stream.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    /// The file with the process's output.
    pub fn log_path(&self) -> &Path {
        match &self.log {
            Log::Temporary(file) => file.path(),
            Log::Kept(path) => path,
        }
    }

    /// Waits until the process has printed a line that contains `text`; returns the line.
    pub async fn wait_for_line(&self, text: &str, timeout: Duration) -> String {
        let description = format!("{} prints {text:?}", self.name);
        wait_until(&description, timeout, async || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(text));
            line.map(str::to_owned).ok_or("see its log")
        })
        .await
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// Where the process has ended and its status was read.
    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().cast_signed());
        kill(process, signal).expect("the process has not been waited for");
    }

    /// How the process ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for the end of the process; returns how it ended and how long that took.
    pub async fn wait(&mut self, timeout: Duration) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        let description = format!("{} ends", self.name);
        let child = &mut self.child;
        let status = wait_until(&description, timeout, async || {
            let status = child.try_wait().expect("it is our child");
            status.ok_or("it runs")
        })
        .await;
        (status, begin.elapsed())
    }

    /// Asks the process to end, as a service manager does, and waits for it.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        self.signal(Signal::SIGTERM);
        self.wait(Duration::from_secs(30)).await
    }

    /// Ends the process without giving it a chance to do anything about it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- output of {} ---\n{}\n---", self.name, self.log());
        }
    }
}

fn spawn(mut command: Command, log: Log, stderr: Option<Stdio>) -> io::Result<Process> {
    let path = match &log {
        Log::Temporary(file) => file.path(),
        Log::Kept(path) => path,
    };
    // Several processes may share a file: with O_APPEND no line overwrites another.
    let output = OpenOptions::new().create(true).append(true).open(path)?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(stderr.unwrap_or_else(|| output.into()))
        // Ctrl-C on a terminal goes to its foreground process group. We signal the process ourselves, in order.
        .process_group(0);
    end_with_this_thread(&mut command);
    let name = Path::new(command.get_program()).file_name();
    let name = name.unwrap_or_default().to_string_lossy().into_owned();
    let child = command.spawn()?;
    Ok(Process { child, name, log })
}

/// Has the kernel kill the child when the thread that starts it ends, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG). It
/// is the thread that counts, not the process: a test's daemon ends with the test, and the demo starts its daemon on
/// the main thread.
#[cfg(target_os = "linux")]
fn end_with_this_thread(command: &mut Command) {
    let end = || Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: prctl is a plain system call and allocates nothing, as is required of code between fork and exec.
    unsafe {
        command.pre_exec(end);
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_this_thread(_: &mut Command) {}
