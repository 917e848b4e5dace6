//! A server that speaks just enough of the PostgreSQL protocol to answer wrongly (PostgreSQL manual, chapter
//! "Frontend/Backend Protocol", section "Message Formats").

use std::io;
use std::time::Duration;

use testkit::wait::{TIMEOUT, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Refuses the login with an error of this SQLSTATE.
    RefusesLogin(&'static [u8]),
    /// Refuses the login of an unknown role, in these words.
    RefusesLoginInWords(&'static str),
    /// Is starting up, and says so in these words.
    StartsUpInWords(&'static str),
    /// Accepts the session, and then answers every statement with an error of this SQLSTATE, but for the settings that
    /// a client sets first.
    RefusesStatements(&'static [u8]),
    /// Accepts the session, and then answers every statement with one row of one text, whatever was asked.
    AnswersNonsense,
    /// The same, but the question for the server's version has a proper answer.
    AnswersNonsenseAfterTheVersion,
    /// Accepts the session, and then does not answer.
    FallsSilent,
    /// Accepts the connection, and does not answer.
    IsSilent,
    /// Closes each connection at once.
    Hangs,
}

/// The message of its errors.
pub const MESSAGE: &str = "this server is broken";

/// A listener on a port of its own. It stops when this is dropped.
pub struct FakeServer {
    port: u16,
    listening: JoinHandle<()>,
}

impl FakeServer {
    pub async fn start(behavior: Behavior) -> Self {
        Self::start_at(0, behavior).await
    }

    /// A fake server on this port, in place of another one.
    pub async fn start_at(port: u16, behavior: Behavior) -> Self {
        let listener = wait_until("the port is free", TIMEOUT, async || {
            TcpListener::bind(("127.0.0.1", port)).await
        })
        .await;
        let port = listener.local_addr().expect("an address").port();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The client closes the connection when it has heard enough.
                tokio::spawn(async move { drop(serve(client, behavior).await) });
            }
        });
        FakeServer { port, listening }
    }

    /// Stops it; afterwards its port is free.
    pub async fn stop(mut self) {
        self.listening.abort();
        // Cancelled: the listener is closed.
        let _ = (&mut self.listening).await;
    }

    /// A connection string for it. Without TLS, and with a short timeout.
    pub fn uri(&self) -> String {
        let port = self.port;
        format!("postgresql://fake:fake@127.0.0.1:{port}/d?sslmode=disable&connect_timeout=2")
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(mut client: TcpStream, behavior: Behavior) -> io::Result<()> {
    if behavior == Behavior::Hangs {
        return Ok(());
    }
    if behavior == Behavior::IsSilent {
        return silence().await;
    }
    // The startup message has a length and no type.
    let length = client.read_u32().await?;
    client.read_exact(&mut vec![0; length as usize - 4]).await?;
    if let Behavior::RefusesLogin(code) = behavior {
        return client.write_all(&error("FATAL", code, MESSAGE)).await;
    }
    if let Behavior::RefusesLoginInWords(words) = behavior {
        return client.write_all(&error("FATAL", b"28000", words)).await;
    }
    if let Behavior::StartsUpInWords(words) = behavior {
        return client.write_all(&error("FATAL", b"57P03", words)).await;
    }
    let authentication_ok = message(b'R', &0_u32.to_be_bytes());
    let login = [authentication_ok, ready_for_query()].concat();
    client.write_all(&login).await?;
    if behavior == Behavior::FallsSilent {
        return silence().await;
    }
    let mut session = Session {
        behavior,
        statement: String::new(),
        failed: false,
    };
    loop {
        let kind = client.read_u8().await?;
        let length = client.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await?;
        client.write_all(&session.answer(kind, &body)).await?;
    }
}

async fn silence() -> io::Result<()> {
    tokio::time::sleep(Duration::from_secs(600)).await;
    Ok(())
}

struct Session {
    behavior: Behavior,
    /// The statement that was parsed last.
    statement: String,
    /// After an error the server skips everything up to the next Sync.
    failed: bool,
}

impl Session {
    fn answer(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        match kind {
            // Query: the settings.
            b'Q' => [message(b'C', b"SET\0"), ready_for_query()].concat(),
            // Sync.
            b'S' => {
                self.failed = false;
                ready_for_query()
            }
            _ if self.failed => Vec::new(),
            // Parse: a name, the statement, the types of parameters.
            b'P' => {
                let statement = body.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                self.statement = String::from_utf8_lossy(statement).into_owned();
                match self.behavior {
                    Behavior::RefusesStatements(code) if !self.asks_for_version() => {
                        self.failed = true;
                        error("ERROR", code, MESSAGE)
                    }
                    _ => message(b'1', b""),
                }
            }
            // Describe: parameters of type text, one column of type int4 or text.
            b'D' => {
                let (oid, length) = if self.answers_version() {
                    (23, 4)
                } else {
                    (25, -1)
                };
                [
                    parameter_description(&self.statement),
                    row_description(oid, length),
                ]
                .concat()
            }
            // Bind.
            b'B' => message(b'2', b""),
            // Execute: one row.
            b'E' => {
                let value: &[u8] = match self.answers_version() {
                    true => &170_000_i32.to_be_bytes(),
                    false => b"nonsense",
                };
                [data_row(value), message(b'C', b"SELECT 1\0")].concat()
            }
            // Close.
            b'C' => message(b'3', b""),
            _ => Vec::new(),
        }
    }

    fn asks_for_version(&self) -> bool {
        self.statement.contains("server_version_num")
    }

    fn answers_version(&self) -> bool {
        self.asks_for_version() && self.behavior != Behavior::AnswersNonsense
    }
}

/// A message: its type, its length with the length itself, its contents.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

fn ready_for_query() -> Vec<u8> {
    message(b'Z', b"I")
}

fn error(severity: &str, code: &[u8], words: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [
        (b'S', severity.as_bytes()),
        (b'V', severity.as_bytes()),
        (b'C', code),
        (b'M', words.as_bytes()),
    ] {
        body.push(field);
        body.extend(value);
        body.push(0);
    }
    body.push(0);
    message(b'E', &body)
}

/// As many parameters as the statement has, all of type text.
fn parameter_description(statement: &str) -> Vec<u8> {
    let count = (1..=9).take_while(|number| statement.contains(&format!("${number}")));
    let count = u16::try_from(count.count()).expect("a few parameters");
    let mut body = count.to_be_bytes().to_vec();
    body.extend(25_u32.to_be_bytes().repeat(usize::from(count)));
    message(b't', &body)
}

fn row_description(oid: u32, length: i16) -> Vec<u8> {
    let mut body = 1_u16.to_be_bytes().to_vec();
    body.extend(b"column\0");
    // The table and the column that it comes from: none.
    body.extend([0; 6]);
    body.extend(oid.to_be_bytes());
    body.extend(length.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(1_u16.to_be_bytes());
    message(b'T', &body)
}

fn data_row(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).expect("a short value");
    let body = [&1_u16.to_be_bytes()[..], &length.to_be_bytes(), value].concat();
    message(b'D', &body)
}
