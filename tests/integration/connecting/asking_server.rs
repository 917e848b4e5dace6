//! A server that is none: it asks each client for a login, and notes what it is told (PostgreSQL manual, "Message
//! Flow", section "Start-up").

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

/// AuthenticationCleartextPassword.
pub const CLEAR: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
/// AuthenticationMD5Password, with a salt.
pub const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
/// AuthenticationOk.
pub const NOTHING: &[u8] = b"R\0\0\0\x08\0\0\0\0";
/// SSLRequest.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];

/// A listener. It stops when this is dropped.
pub struct AskingServer {
    pub port: u16,
    answers: Answers,
    listening: JoinHandle<()>,
}

/// Everything that clients have sent after they were asked.
type Answers = Arc<Mutex<Vec<u8>>>;

impl AskingServer {
    /// Listens at a port of this machine, without TLS.
    pub async fn start(question: &'static [u8]) -> AskingServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answers = Answers::default();
        let noted = answers.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(ask(client, question, noted.clone()));
            }
        });
        AskingServer {
            port,
            answers,
            listening,
        }
    }

    /// Listens at a socket in this folder, under the number of a port that is free for that.
    pub fn at_socket(folder: &str, question: &'static [u8]) -> AskingServer {
        let bind = |port| {
            Some((
                port,
                UnixListener::bind(format!("{folder}/.s.PGSQL.{port}")).ok()?,
            ))
        };
        let (port, listener) = (20_000..30_000).find_map(bind).expect("a socket");
        let answers = Answers::default();
        let noted = answers.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(ask(client, question, noted.clone()));
            }
        });
        AskingServer {
            port,
            answers,
            listening,
        }
    }

    /// What it was told so far.
    pub fn answers(&self) -> String {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&answers).into_owned()
    }
}

impl Drop for AskingServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn ask(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    question: &[u8],
    answers: Answers,
) -> io::Result<()> {
    let mut start = [0; 8];
    client.read_exact(&mut start).await?;
    if start == SSL_REQUEST {
        client.write_all(b"N").await?;
        client.read_exact(&mut start).await?;
    }
    let length = u32::from_be_bytes([start[0], start[1], start[2], start[3]]);
    client.read_exact(&mut vec![0; length as usize - 8]).await?;
    client.write_all(question).await?;
    let mut answer = [0; 1024];
    loop {
        let count = client.read(&mut answer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut all = answers.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(&answer[..count]);
    }
}
