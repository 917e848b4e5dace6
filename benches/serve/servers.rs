//! The servers that are compared, each a process of its own that waits while others are measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testkit::Program;
use testkit::paths::{checkout, runtime};

use super::client::request;

/// The program behind which the others run.
const APP: &str = "benches/serve/app.py";
/// How long a server may take to load its model.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A server. It is killed when the value is dropped.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// `lantern-cli serve`, without its memory for texts that come again.
    pub fn lantern(program: &Program) -> Server {
        let address = free_address();
        let mut command = program.command("serve");
        command.args(["--listen", &address.to_string(), "--cache-size", "0"]);
        Server::start("lantern-cli serve", address, command)
    }

    /// One of the others, behind uvicorn in this Python.
    pub fn uvicorn(python: &str, name: &'static str) -> Server {
        let address = free_address();
        let model = runtime().join("models").join(testkit::engine::MODEL);
        let mut command = Command::new(python);
        command
            .arg(checkout().join(APP))
            .arg(name)
            .arg(model)
            .arg(address.port().to_string())
            .env("HF_HUB_OFFLINE", "1")
            .env("TOKENIZERS_PARALLELISM", "false");
        Server::start(name, address, command)
    }

    fn start(name: &'static str, address: SocketAddr, mut command: Command) -> Server {
        let child = command
            .stderr(Stdio::inherit())
            .stdout(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}"));
        let server = Server {
            name,
            address,
            child,
        };
        let started = Instant::now();
        while !answers(address) {
            assert!(started.elapsed() < START_TIMEOUT, "{name} is not ready");
            thread::sleep(Duration::from_millis(100));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a server embeds a text.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let mut answer = [0; 12];
    let sent = stream.write_all(&request("a first text"));
    sent.and_then(|()| stream.read_exact(&mut answer)).is_ok() && &answer == b"HTTP/1.1 200"
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
