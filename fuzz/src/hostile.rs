//! A server that answers as a fuzzer's input says, for whole sessions over a real socket: most answers fit what was
//! asked, so that a session comes far, and some are mischief. It closes the connection where the input ends.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::allocations;
use crate::messages::{
    any_types, columns, done, honest_row, message, mischief, notice, parameters, ready, row,
};
use crate::script::Script;

/// A client must have come to an end by then: its server answers at once, and closes in the end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may say nothing.
const SILENCE: Duration = Duration::from_millis(5);
/// What an idle connection holds, with the certificates and buffers of a login.
const IDLE: usize = 4 << 20;
/// How many bytes may be held at a time for each one that the server has sent. A row of a NULL or an empty value is
/// four bytes long; in memory it is a value with its place in its row.
const FACTOR: usize = 64;
/// The code in the place of a protocol version that asks for TLS.
const SSL_REQUEST: u32 = 80_877_103;
/// A client sends no more at a time.
const LONGEST_REQUEST: usize = 1 << 20;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// Lets `client` talk to a server that says what is in `input`.
///
/// # Panics
/// If the client panics, does not come to an end, or holds more than [`IDLE`] and [`FACTOR`] allow.
pub fn play(input: &[u8], client: impl AsyncFnOnce(SocketAddr)) {
    let sent = Cell::new(0);
    let began = Instant::now();
    let (ended, taken) = allocations::count(|| {
        RUNTIME.with(|runtime| {
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("an address");
                tokio::select! {
                    () = listen(&listener, Script::of(input), &sent) => unreachable!("it listens"),
                    ended = tokio::time::timeout(PATIENCE, client(address)) => ended.is_ok(),
                }
            })
        })
    });
    assert!(ended, "a client still waits after {:?}", began.elapsed());
    let most = IDLE + FACTOR * sent.get();
    assert!(
        taken.peak <= most,
        "{} bytes held for {} sent",
        taken.peak,
        sent.get()
    );
}

/// One connection after another: a client has one at a time.
async fn listen(listener: &TcpListener, script: Script<'_>, sent: &Cell<usize>) {
    let mut server = Server {
        script,
        sent,
        statement: String::new(),
    };
    loop {
        if let Ok((client, _)) = listener.accept().await {
            // The client may close it at any moment.
            let _ = server.serve(client).await;
        }
    }
}

struct Server<'a> {
    script: Script<'a>,
    sent: &'a Cell<usize>,
    /// The one that was parsed last.
    statement: String,
}

impl Server<'_> {
    async fn serve(&mut self, mut client: TcpStream) -> io::Result<()> {
        while let Some(SSL_REQUEST) = startup(&mut client).await? {
            let answer = match self.script.byte() % 8 {
                1 => [b"S", self.script.bytes()].concat(),
                2 => notice(b'E', &mut self.script),
                3 => self.script.bytes().to_vec(),
                _ => b"N".to_vec(),
            };
            self.say(&mut client, &answer).await?;
            if answer != b"N" {
                // The rest of a handshake, whatever the client said.
                let handshake = self.script.bytes();
                return self.say(&mut client, handshake).await;
            }
        }
        self.log_in(&mut client).await?;
        while !self.script.is_over() {
            let (tag, body) = request(&mut client).await?;
            let answer = self.answer(tag, &body);
            self.say(&mut client, &answer).await?;
        }
        Ok(())
    }

    async fn say(&mut self, client: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.sent.set(self.sent.get() + bytes.len());
        client.write_all(bytes).await
    }

    async fn log_in(&mut self, client: &mut TcpStream) -> io::Result<()> {
        match self.script.byte() % 8 {
            0 => self.ask(client, &3_u32.to_be_bytes()).await?,
            1 => {
                let salt = self.script.number().to_be_bytes();
                let how = [&5_u32.to_be_bytes()[..], &salt].concat();
                self.ask(client, &how).await?;
            }
            2 => self.scram(client).await?,
            3 => {
                let method = u32::from(self.script.byte()).to_be_bytes();
                let how = [&method[..], self.script.bytes()].concat();
                self.ask(client, &how).await?;
            }
            4 => {
                let mischief = mischief(&mut self.script);
                self.say(client, &mischief).await?;
            }
            _ => {}
        }
        let mut welcome = message(b'R', &0_u32.to_be_bytes());
        welcome.extend(message(b'S', b"server_version\018.1\0"));
        if self.script.byte() % 4 == 0 {
            welcome.extend(mischief(&mut self.script));
        }
        welcome.extend(message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
        welcome.extend(ready());
        self.say(client, &welcome).await
    }

    /// Asks for a proof of who the client is, and reads it.
    async fn ask(&mut self, client: &mut TcpStream, how: &[u8]) -> io::Result<()> {
        self.say(client, &message(b'R', how)).await?;
        request(client).await.map(drop)
    }

    async fn scram(&mut self, client: &mut TcpStream) -> io::Result<()> {
        let offer = match self.script.byte() % 4 {
            0 => [&10_u32.to_be_bytes()[..], self.script.bytes()].concat(),
            _ => [&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat(),
        };
        self.say(client, &message(b'R', &offer)).await?;
        let (_, first) = request(client).await?;
        let first = String::from_utf8_lossy(&first);
        let nonce = first.rsplit("r=").next().unwrap_or_default();
        let salt = STANDARD.encode(self.script.bytes());
        let challenge = match self.script.byte() % 4 {
            0 => String::from_utf8_lossy(self.script.bytes()).into_owned(),
            1 => format!("r={nonce}x,s={salt},i={}", self.script.number()),
            _ => format!("r={nonce}x,s={salt},i={}", self.script.byte()),
        };
        let challenge = [&11_u32.to_be_bytes()[..], challenge.as_bytes()].concat();
        self.ask(client, &challenge).await?;
        let proof = STANDARD.encode(self.script.bytes());
        let last = [&12_u32.to_be_bytes()[..], b"v=", proof.as_bytes()].concat();
        self.say(client, &message(b'R', &last)).await
    }

    /// The answer to a message of the client.
    fn answer(&mut self, tag: u8, body: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        if self.script.byte() % 8 == 0 {
            answer.extend(mischief(&mut self.script));
        }
        match tag {
            b'Q' => answer.extend(self.simple(&String::from_utf8_lossy(body))),
            b'S' => answer.extend(ready()),
            b'P' => {
                let statement = body.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                self.statement = String::from_utf8_lossy(statement).into_owned();
                answer.extend(message(b'1', b""));
            }
            b'D' => {
                answer.extend(parameters(&self.statement, &mut self.script));
                let types = self.types();
                answer.extend(match types.is_empty() {
                    true => message(b'n', b""),
                    false => columns(&types),
                });
            }
            b'B' => answer.extend(message(b'2', b"")),
            b'E' => {
                answer.extend(self.rows());
                answer.extend(done());
            }
            b'C' => answer.extend(message(b'3', b"")),
            // What a stream brings, and the answers to its status updates.
            b'd' => answer.extend(self.frames()),
            b'c' => answer.extend([message(b'c', b""), done(), ready()].concat()),
            _ => {}
        }
        answer
    }

    /// The types of the columns: most often those that the statement asks for.
    fn types(&mut self) -> Vec<u32> {
        if self.script.byte() % 8 == 0 {
            return any_types(&mut self.script);
        }
        match &self.statement {
            // The driver's question about a type that it does not know.
            asked if asked.contains("pg_catalog.pg_type") => vec![19, 18, 26, 26, 26, 19, 26],
            asked if asked.contains("pg_is_in_recovery") => vec![16, 16],
            asked if asked.contains("::int") => vec![23],
            asked if asked.contains("bigint") || asked.contains("system_identifier") => vec![20],
            asked if asked.starts_with("SET") => Vec::new(),
            _ => vec![self.script.one_of(&[25, 20, 16, 1009, 1021, 3802, 99_999])],
        }
    }

    fn rows(&mut self) -> Vec<u8> {
        if self.script.byte() % 4 != 0 && self.statement.contains("server_version_num") {
            return honest_row(&[&170_000_i32.to_be_bytes()]);
        }
        let count = self.script.below(3);
        let columns = self.statement.matches(',').count() + 1;
        (0..count)
            .flat_map(|_| row(columns, &mut self.script))
            .collect()
    }

    /// The answer to a query of the simple protocol, or to a command of replication.
    fn simple(&mut self, query: &str) -> Vec<u8> {
        let is_honest = self.script.byte() % 8 != 0;
        if query.starts_with("START_REPLICATION") && is_honest {
            return [message(b'W', b"\0\0\0"), self.frames()].concat();
        }
        let mut answer = Vec::new();
        if query.starts_with("IDENTIFY_SYSTEM") && is_honest {
            answer.extend(columns(&[25, 23, 25, 25]));
            answer.extend(honest_row(&[b"7", b"1", b"0/1567F28", b"d"]));
        } else if !query.starts_with("SET") {
            let types = any_types(&mut self.script);
            answer.extend(columns(&types));
            for _ in 0..self.script.below(4) {
                answer.extend(row(types.len(), &mut self.script));
            }
        }
        [answer, done(), ready()].concat()
    }

    /// Some of a replication stream: XLogData, keepalives, and what does not belong there.
    fn frames(&mut self) -> Vec<u8> {
        let mut frames = Vec::new();
        for _ in 0..=self.script.below(4) {
            let header = [self.script.number(), self.script.number(), 0, 0, 0, 0];
            let header: Vec<u8> = header.iter().flat_map(|part| part.to_be_bytes()).collect();
            frames.extend(match self.script.byte() % 8 {
                0 => mischief(&mut self.script),
                1 => message(b'd', self.script.bytes()),
                2 | 3 => message(
                    b'd',
                    &[b"k", &header[..16], &[self.script.byte() % 2]].concat(),
                ),
                _ => message(b'd', &[b"w", &header[..], self.script.bytes()].concat()),
            });
        }
        // Asks for a status update, so that the session goes on.
        frames.extend(message(b'd', &[b"k", &[0; 16][..], &[1]].concat()));
        frames
    }
}

/// Waits for what the client says. Where the two of them wait for each other, the server closes the connection: it has
/// one thread with its client, so an answer is there at once.
async fn heard<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let heard = tokio::time::timeout(SILENCE, what).await;
    heard.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads a message without a tag. Returns its first number: a protocol version, or what is asked for instead.
async fn startup(client: &mut TcpStream) -> io::Result<Option<u32>> {
    heard(async {
        let length = client.read_u32().await? as usize;
        let mut body = vec![0; length.clamp(8, LONGEST_REQUEST) - 4];
        client.read_exact(&mut body).await?;
        Ok(body.first_chunk().map(|code| u32::from_be_bytes(*code)))
    })
    .await
}

async fn request(client: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    heard(async {
        let tag = client.read_u8().await?;
        let length = client.read_u32().await? as usize;
        let mut body = vec![0; length.clamp(4, LONGEST_REQUEST) - 4];
        client.read_exact(&mut body).await?;
        Ok((tag, body))
    })
    .await
}
