//! A headless Chromium, driven by the DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>) over
//! two pipes: with `--remote-debugging-pipe` it reads commands from file descriptor 3 and writes answers and events to
//! 4, each ended by a NUL.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::skip;
use crate::wait::{TIMEOUT, wait_until};

/// Where distributions put it. `CHROMIUM` names another one.
const PROGRAMS: [&str; 4] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/usr/bin/google-chrome-stable",
];

/// A browser with one page. It ends with the value.
pub struct Browser {
    process: Child,
    commands: File,
    answers: Receiver<Value>,
    session: String,
    last_id: u64,
    /// Errors of scripts and refused contents, as the console shows them.
    complaints: Vec<String>,
    _profile: TempDir,
}

/// A screen.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// In CSS pixels.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// A phone: it has a touch screen, and twice as many pixels.
    pub is_phone: bool,
    /// The user prefers dark colors.
    pub is_dark: bool,
}

/// The program; `None`, which is reported as a skip, where there is none.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let found = named.or_else(|| {
        let mut programs = PROGRAMS.iter().map(PathBuf::from);
        programs.find(|program| program.exists())
    });
    if found.is_none() {
        skip::missing("no Chromium", "apt-get install chromium");
    }
    found
}

impl Browser {
    /// Starts the browser. `None`, which is reported as a skip, where there is none.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub fn start() -> Option<Browser> {
        let program = program()?;
        let profile = tempfile::tempdir().expect("a temporary folder");
        let (its_commands, commands) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (answers, its_answers) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut command = Command::new(program);
        command
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-extensions",
            ])
            .args([
                "--disable-background-networking",
                "--hide-scrollbars",
                "--lang=en-US",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        pass(&mut command, its_commands, its_answers);
        let process = command.spawn().expect("Chromium starts");
        // Its ends of the pipes: once it is gone, reading ends.
        drop(command);
        let mut browser = Browser {
            process,
            commands: File::from(commands),
            answers: read_messages(File::from(answers)),
            session: String::new(),
            last_id: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        browser.attach();
        Some(browser)
    }

    /// Opens a page of our own and listens to its complaints.
    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", attach);
        let session = attached["sessionId"].as_str();
        self.session = session.map(str::to_owned).expect("a session");
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Sends these headers with every request.
    pub fn send_headers(&mut self, headers: Value) {
        self.call("Network.setExtraHTTPHeaders", json!({"headers": headers}));
    }

    /// Shows the page on a screen of this kind.
    pub fn show_on(&mut self, screen: Screen) {
        let metrics = json!({
            "width": screen.width,
            "height": screen.height,
            "deviceScaleFactor": if screen.is_phone { 2 } else { 1 },
            "mobile": screen.is_phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if screen.is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Opens an address.
    ///
    /// # Panics
    ///
    /// Where it cannot be reached.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert_eq!(opened.get("errorText"), None, "{url}");
    }

    /// The value of an expression of JavaScript in the page.
    ///
    /// # Panics
    ///
    /// Where it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        let evaluate =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let evaluated = self.call("Runtime.evaluate", evaluate);
        let thrown = evaluated.get("exceptionDetails");
        assert_eq!(thrown, None, "{expression}");
        evaluated["result"]["value"].clone()
    }

    /// Waits until an expression has this value.
    pub async fn wait_for(&mut self, expression: &str, expected: impl Into<Value>) {
        let expected = expected.into();
        wait_until(expression, TIMEOUT, async || {
            let value = self.value(expression);
            if value == expected {
                Ok(())
            } else {
                Err(value)
            }
        })
        .await;
    }

    /// Presses a key that moves the focus or acts on what has it.
    pub fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" { "\r" } else { "" };
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Errors of scripts and refused contents so far.
    pub fn complaints(&mut self) -> &[String] {
        // What was said before this answer has arrived with it.
        self.value("0");
        &self.complaints
    }

    /// A picture of the whole page, as PNG.
    ///
    /// # Panics
    ///
    /// Where the file cannot be written.
    pub fn take_picture(&mut self, path: &Path) {
        let taken = self.call(
            "Page.captureScreenshot",
            json!({"captureBeyondViewport": true}),
        );
        let picture = taken["data"].as_str().expect("a picture");
        let picture = STANDARD.decode(picture).expect("it is in base64");
        std::fs::write(path, picture).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Sends a command; returns its result.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let message = command.to_string() + "\0";
        self.commands
            .write_all(message.as_bytes())
            .expect("Chromium reads commands");
        loop {
            let message = self.answers.recv_timeout(TIMEOUT);
            let message = message
                .unwrap_or_else(|error| panic!("Chromium does not answer {method}: {error}"));
            if message["id"] == json!(self.last_id) {
                assert_eq!(message.get("error"), None, "{method}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints
                    .push(parameters["exceptionDetails"].to_string());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints
                    .push(parameters["entry"]["text"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers are of the same process group.
        let group = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

/// Gives the process these two as file descriptors 3 and 4.
fn pass(command: &mut Command, commands: OwnedFd, answers: OwnedFd) {
    let place = move || {
        let (commands, answers) = (commands.as_raw_fd(), answers.as_raw_fd());
        // One of them may be 3 or 4 itself: first both move out of the way.
        let (commands, answers) = (duplicate(commands, 10)?, duplicate(answers, 10)?);
        for (from, to) in [(commands, 3), (answers, 4)] {
            // SAFETY: a plain system call on descriptors of this process.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls alone and allocates nothing.
    unsafe {
        command.pre_exec(place);
    }
}

/// A copy of a descriptor that is at least `lowest`.
fn duplicate(descriptor: RawFd, lowest: RawFd) -> std::io::Result<RawFd> {
    // SAFETY: a plain system call on a descriptor of this process.
    match unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, lowest) } {
        -1 => Err(std::io::Error::last_os_error()),
        copy => Ok(copy),
    }
}

/// The messages that come from the pipe, read by a thread of its own.
fn read_messages(pipe: File) -> Receiver<Value> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let Ok(message) = serde_json::from_slice(&message) else {
                continue;
            };
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}
