//! A stream that delivers no request for a password which must not be answered.
//!
//! ```text
//! Answer ──S or N──▶ Header ──▶ Release ──▶ Body ─┐
//!  (plain sockets)     ▲                          │ next message
//!                      └──────────────────────────┘
//!                                └── AuthenticationOk ──▶ Open: what is not too long passes
//! ```
//!
//! The header of each message up to AuthenticationOk is read by itself, with the code of an authentication request, and
//! delivered only if the policy allows it (PostgreSQL manual, "Message Flow", section "Start-up", and "Message
//! Formats"). A TLS stream is guarded inside of the encryption: [`GuardedTls`] takes the guard off the socket and puts
//! it on the stream.
//!
//! After the login the guard only looks at the lengths of messages. The client keeps a message in memory until it is
//! complete, so the length that a server announces is what it may cost.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::methods::Method;
use super::policy::LoginPolicy;

/// The tag and the length of a message.
const HEADER: usize = 5;
/// With the code of an authentication request.
const REQUEST: usize = HEADER + 4;
/// Bytes in an authentication request, and in the offer of another protocol version: libpq's limit (`fe-connect.c`).
const MAX_REQUEST: usize = 2000;
/// Bytes in any other message before the login is over, such as an error: libpq's limit.
const MAX_MESSAGE: usize = 30_000;

/// Bytes in a message after the login. What the program asks for is far shorter; an error that a trigger raises may be long.
const MAX_OF_SESSION: usize = 256 << 20;

/// Why a login was ended: set once, by the guard, and read by who tells a person.
pub type Refusal = Arc<OnceLock<String>>;

/// A stream below a client that logs in.
pub struct Guarded<S> {
    inner: S,
    policy: LoginPolicy,
    refusal: Refusal,
    phase: Phase,
    /// The server has asked for something.
    is_asked: bool,
}

/// What comes next.
enum Phase {
    /// The one byte that answers SSLRequest, or nothing of that kind if the client asks for no TLS.
    Answer,
    /// The beginning of a message.
    Header { bytes: [u8; REQUEST], count: usize },
    /// A header that may be delivered, up to `end`, and the length of the rest.
    Release {
        bytes: [u8; REQUEST],
        start: usize,
        end: usize,
        rest: usize,
        is_last: bool,
    },
    /// The rest of a message.
    Body(usize),
    /// The login is over.
    Open(Lengths),
}

/// Follows messages that pass, by their lengths.
#[derive(Debug, Default)]
struct Lengths {
    /// The header of the next message, as far as it has passed.
    header: [u8; HEADER],
    count: usize,
    /// Bytes of the current message that are still to pass.
    rest: usize,
}

impl Lengths {
    /// Looks at bytes that pass.
    ///
    /// # Errors
    /// A message is longer than a server of ours sends, or its length is none.
    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let part = bytes.len().min(HEADER - self.count);
            self.header[self.count..self.count + part].copy_from_slice(&bytes[..part]);
            self.count += part;
            bytes = &bytes[part..];
            if self.count == HEADER {
                self.count = 0;
                let [_, length @ ..] = self.header;
                let length = u32::from_be_bytes(length) as usize;
                let rest = length.checked_sub(HEADER - 1);
                self.rest = rest.filter(|_| length <= MAX_OF_SESSION).ok_or_else(|| {
                    let what = format!(
                        "the server announces a message of {} MB, and more than {} MB are not read",
                        length >> 20,
                        MAX_OF_SESSION >> 20
                    );
                    io::Error::new(io::ErrorKind::InvalidData, what)
                })?;
            }
        }
        Ok(())
    }
}

const MESSAGE: Phase = Phase::Header {
    bytes: [0; REQUEST],
    count: 0,
};

impl<S> Guarded<S> {
    /// Guards a socket to which nothing has been sent. `asks_for_tls` says whether the client will send SSLRequest.
    pub fn new(socket: S, policy: LoginPolicy, refusal: Refusal, asks_for_tls: bool) -> Self {
        Guarded {
            inner: socket,
            policy,
            refusal,
            phase: if asks_for_tls { Phase::Answer } else { MESSAGE },
            is_asked: false,
        }
    }

    /// What the header of a message leads to.
    fn judge(&mut self, bytes: [u8; REQUEST], count: usize) -> io::Result<Phase> {
        let tag = bytes[0];
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        let limit = match tag {
            b'R' | b'v' => MAX_REQUEST,
            _ => MAX_MESSAGE,
        };
        let rest = (1 + length).checked_sub(count);
        let Some(rest) = rest.filter(|_| length <= limit) else {
            let what = "the answer is none of a PostgreSQL server; is this one?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        };
        let is_last = match tag {
            b'R' => {
                let code = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
                self.admit(code)?;
                code == 0
            }
            _ => false,
        };
        Ok(Phase::Release {
            bytes,
            start: 0,
            end: count,
            rest,
            is_last,
        })
    }

    /// Checks an authentication request by its code.
    fn admit(&mut self, code: u32) -> io::Result<()> {
        let method = match code {
            0 if self.is_asked => return Ok(()),
            0 => Method::None,
            3 => Method::Password,
            5 => Method::Md5,
            7 => Method::Gss,
            9 => Method::Sspi,
            10 => Method::ScramSha256,
            // The further messages of GSSAPI and SASL, and methods of old that no client answers.
            _ => return Ok(()),
        };
        self.is_asked = true;
        self.policy.check(method).map_err(|why| {
            // Only one login happens on a stream, so nothing is there yet.
            let _ = self.refusal.set(why.clone());
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        })
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Delivers some bytes before the login is over. `Ready(false)` if nothing was delivered and the phase is another.
    fn poll_guarded(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        match &mut self.phase {
            Phase::Answer => {
                let received = ready!(poll_some(&mut self.inner, cx, buffer, 1))?;
                if received > 0 {
                    self.phase = MESSAGE;
                }
                Poll::Ready(Ok(true))
            }
            Phase::Header { bytes, count } => {
                let wanted = match *count >= HEADER && bytes[0] == b'R' {
                    true => REQUEST,
                    false => HEADER,
                };
                if *count < wanted {
                    let mut part = ReadBuf::new(&mut bytes[*count..wanted]);
                    ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
                    let received = part.filled().len();
                    *count += received;
                    // At the end of the stream the client sees its end.
                    return Poll::Ready(Ok(received == 0));
                }
                let (bytes, count) = (*bytes, *count);
                self.phase = self.judge(bytes, count)?;
                Poll::Ready(Ok(false))
            }
            Phase::Release {
                bytes,
                start,
                end,
                rest,
                is_last,
            } => {
                let size = buffer.remaining().min(*end - *start);
                buffer.put_slice(&bytes[*start..*start + size]);
                *start += size;
                if start == end {
                    self.phase = match (*is_last, *rest) {
                        (true, rest) => Phase::Open(Lengths {
                            rest,
                            ..Lengths::default()
                        }),
                        (false, 0) => MESSAGE,
                        (false, rest) => Phase::Body(rest),
                    };
                }
                Poll::Ready(Ok(true))
            }
            Phase::Body(rest) => {
                *rest -= ready!(poll_some(&mut self.inner, cx, buffer, *rest))?;
                if *rest == 0 {
                    self.phase = MESSAGE;
                }
                Poll::Ready(Ok(true))
            }
            Phase::Open(lengths) => {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
                lengths.follow(&buffer.filled()[before..])?;
                Poll::Ready(Ok(true))
            }
        }
    }
}

/// Reads at most `limit` bytes, and returns how many there were.
fn poll_some(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit.min(buffer.remaining())));
    ready!(Pin::new(stream).poll_read(cx, &mut part))?;
    let received = part.filled().len();
    buffer.advance(received);
    Poll::Ready(Ok(received))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        while !ready!(guarded.poll_guarded(cx, buffer))? {}
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S: AsFd> AsFd for Guarded<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<S: TlsStream + Unpin> TlsStream for Guarded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

/// Makes a guarded TLS stream of a guarded socket.
pub struct GuardedTls<T>(pub T);

impl<S, T> TlsConnect<Guarded<S>> for GuardedTls<T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S, Error = io::Error> + Send + 'static,
    T::Future: Send,
{
    type Stream = Guarded<T::Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(self, socket: Guarded<S>) -> Self::Future {
        let handshake = self.0.connect(socket.inner);
        let (policy, refusal) = (socket.policy, socket.refusal);
        Box::pin(async move { Ok(Guarded::new(handshake.await?, policy, refusal, false)) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::postgres::authentication::Methods;

    fn request(code: u32, data: &[u8]) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes(), data].concat())
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(4 + body.len()).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    /// What a client reads of these bytes, which arrive in pieces of that size, and why it was refused.
    fn delivered(sent: &[u8], piece: usize, methods: &str) -> (Vec<u8>, Option<String>) {
        let policy = LoginPolicy {
            allowed: Methods::parse(methods).unwrap(),
            keeps_password: false,
        };
        let refusal = Refusal::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut read = Vec::new();
        runtime.block_on(async {
            let (client, mut server) = duplex(piece);
            let sent = sent.to_vec();
            let sending = tokio::spawn(async move { server.write_all(&sent).await });
            let mut client = Guarded::new(client, policy, refusal.clone(), true);
            // `read_to_end` would keep what came before an error too, but not say that it is all.
            while let Ok(byte) = client.read_u8().await {
                read.push(byte);
            }
            drop(client);
            let _ = sending.await;
        });
        (read, refusal.get().cloned())
    }

    #[test]
    fn a_request_that_may_not_be_answered_is_never_delivered() {
        let notice = message(b'N', b"MHi\0\0");
        for (asked, forbidden) in [
            (request(3, b""), "!password"),
            (request(5, b"salt"), "scram-sha-256"),
            (request(10, b"SCRAM-SHA-256\0\0"), "md5"),
            (request(7, b""), "!gss"),
            (request(9, b""), "!sspi"),
            (request(0, b""), "!none"),
        ] {
            let sent = [b"N", &notice[..], &asked].concat();
            for piece in [1, 7, 4096] {
                let (read, refusal) = delivered(&sent, piece, forbidden);
                assert_eq!(read, sent[..=notice.len()], "{forbidden}");
                assert!(refusal.unwrap().contains("require_auth"));
            }
        }
    }

    #[test]
    fn a_message_that_no_server_sends_ends_the_login() {
        let http = b"NHTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
        let long = [b"N", &request(3, &[0; 3000])[..]].concat();
        let short = [&b"NR\0\0\0\x04"[..], &request(3, b"")].concat();
        let none = [&b"NN\0\0\0\x03"[..], &request(3, b"")].concat();
        for sent in [http, long, short, none] {
            let (read, refusal) = delivered(&sent, 4096, "!password");
            assert_eq!((&read[..], refusal), (&b"N"[..], None));
        }
    }

    #[test]
    fn a_message_that_is_too_long_ends_the_session() {
        for length in [
            (MAX_OF_SESSION as u32 + 1).to_be_bytes(),
            [0xff; 4],
            [0, 0, 0, 3],
        ] {
            for piece in [1, 3, 4096] {
                let login = [b"N", &request(0, b"")[..], &message(b'Z', b"I")].concat();
                let sent = [&login[..], b"D", &length, &[0; 64]].concat();
                let (read, refusal) = delivered(&sent, piece, "none,scram-sha-256");
                assert!(read.len() < sent.len() - 64 && refusal.is_none());
            }
        }
        let mut lengths = Lengths::default();
        let longest = (MAX_OF_SESSION as u32).to_be_bytes();
        assert!(lengths.follow(&[&b"D"[..], &longest].concat()).is_ok());
        assert_eq!(lengths.rest, MAX_OF_SESSION - 4);
    }

    proptest! {
        #[test]
        fn an_allowed_login_is_delivered_byte_for_byte(
            notices in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4),
            after in proptest::collection::vec(any::<u8>(), 0..200),
            piece in 1usize..64,
        ) {
            let mut sent = b"N".to_vec();
            for body in &notices {
                sent.extend(message(b'N', body));
            }
            sent.extend(request(10, b"SCRAM-SHA-256\0\0"));
            sent.extend(request(11, b"r=nonce,s=salt,i=4096"));
            sent.extend(request(12, b"v=proof"));
            sent.extend(request(0, b""));
            // From here on only lengths matter.
            sent.extend(message(b'D', &after));
            sent.extend(message(b'Z', b"I"));
            prop_assert_eq!(delivered(&sent, piece, "scram-sha-256"), (sent, None));
        }
    }
}
