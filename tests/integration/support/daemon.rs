use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::TestDatabase;
use super::server::runtime;
use super::wait::wait_until;

/// A process of `lantern-cli start-daemon`. Killed when it is dropped; a failed test shows what it has printed.
pub struct Daemon {
    process: Child,
    printed: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Daemon {
    /// Starts a daemon on the table `jobs` of `database`; `arguments` come last.
    pub fn start(database: &TestDatabase, arguments: &[&str]) -> Self {
        let uri = database.uri();
        let mut all = vec!["--uri", &uri, "--table", "jobs"];
        all.extend(arguments);
        Self::start_with(&all)
    }

    /// Starts a daemon with these arguments and the data path of the checkout.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_with_env(&[], arguments)
    }

    /// As [`Daemon::start_with`], with these environment variables besides.
    pub fn start_with_env(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lantern-cli"));
        command
            .arg("start-daemon")
            .args(arguments)
            .env("LANTERN_DATA_PATH", runtime())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: prctl is a plain system call and allocates nothing, as is asked of code between fork and exec.
        unsafe {
            // Not even a test process that is killed leaves a daemon behind, nor does a test that has ended.
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let mut process = command.spawn().expect("lantern-cli starts");
        let printed = Arc::default();
        let readers = vec![
            read_lines(process.stdout.take().expect("a pipe"), &printed),
            read_lines(process.stderr.take().expect("a pipe"), &printed),
        ];
        Self {
            process,
            printed,
            readers,
        }
    }

    /// All that the daemon has printed so far.
    pub fn log(&self) -> String {
        self.printed.lock().expect("no reader panics").join("\n")
    }

    /// Waits until the daemon has printed a line that contains `text`; returns the line.
    pub async fn wait_for_line(&self, text: &str, patience: Duration) -> String {
        wait_until(
            &format!("the daemon prints {text:?}"),
            patience,
            async || {
                let log = self.log();
                let line = log.lines().find(|line| line.contains(text));
                line.map(str::to_owned).ok_or("see its log")
            },
        )
        .await
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.process.id().cast_signed());
        kill(process, signal).expect("the daemon still runs");
    }

    /// Waits for the daemon's end; returns how it ended and how long that took.
    pub async fn wait(&mut self, patience: Duration) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        let process = &mut self.process;
        let status = wait_until("the daemon ends", patience, async || {
            let status = process.try_wait().expect("it is our child");
            status.ok_or("it runs")
        })
        .await;
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        (status, begin.elapsed())
    }

    /// Asks the daemon to end, as a service manager does, and waits for it.
    pub async fn sigterm_and_wait(&mut self) -> (ExitStatus, Duration) {
        self.signal(Signal::SIGTERM);
        self.wait(Duration::from_secs(30)).await
    }

    /// Ends the daemon without giving it a chance to do anything about it.
    pub fn sigkill(&mut self) {
        let _ = self.process.kill();
        self.process.wait().expect("it is our child");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.sigkill();
        if thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}\n---", self.log());
        }
    }
}

fn read_lines(
    source: impl Read + Send + 'static,
    printed: &Arc<Mutex<Vec<String>>>,
) -> thread::JoinHandle<()> {
    let printed = Arc::clone(printed);
    thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            match line {
                Ok(line) => printed.lock().expect("no reader panics").push(line),
                Err(error) => {
                    let line = format!("(unreadable: {error})");
                    printed.lock().expect("no reader panics").push(line);
                    return;
                }
            }
        }
    })
}
