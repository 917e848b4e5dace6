//! Getting at the channel binding of a TLS stream.
//!
//! SCRAM-SHA-256-PLUS mixes a hash of the server's certificate into the proof (RFC 5929, `tls-server-end-point`), so
//! that an attacker between client and server cannot forward it. A [`TlsStream`] computes that hash, but returns it in
//! a [`ChannelBinding`] that only tokio-postgres can open. So tokio-postgres logs in to a server that is simulated
//! here, in memory, and sends the hash as part of the login:
//!
//! ```text
//! tokio-postgres ──▶ StartupMessage                                ──▶ learn
//!                ◀── AuthenticationSASL SCRAM-SHA-256-PLUS         ◀──
//!                ──▶ p=tls-server-end-point,,n=,r=NONCE            ──▶
//!                ◀── AuthenticationSASLContinue r=NONCE0,s=…,i=1   ◀──
//!                ──▶ c=BASE64(p=tls-server-end-point,, + HASH),…   ──▶ HASH
//! ```
//!
//! Thus every TLS implementation written for tokio-postgres works here, with the same binding as on SQL connections.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// More than the few short messages of the exchange.
const EXCHANGE_SIZE: usize = 4096;
/// How a client that binds the channel begins its side of SCRAM (RFC 5802, gs2-header).
const GS2_HEADER: &[u8] = b"p=tls-server-end-point,,";

/// The `tls-server-end-point` hash in `binding`, or `None` if the stream has none.
pub(super) async fn tls_server_end_point(binding: ChannelBinding) -> Option<Vec<u8>> {
    let (client, server) = tokio::io::duplex(EXCHANGE_SIZE);
    let mut config = Config::new();
    config.user("channel").password("binding");
    config
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    // The login never completes. It is dropped once the hash is known.
    tokio::select! {
        learned = learn(server) => learned.ok().flatten(),
        _ = config.connect_raw(client, Bound(binding)) => None,
    }
}

/// The server's side of a SCRAM-SHA-256-PLUS login, up to the client's channel binding (manual: "SASL Authentication").
async fn learn(mut client: DuplexStream) -> io::Result<Option<Vec<u8>>> {
    let startup = client.read_i32().await?;
    skip(&mut client, startup - 4).await?;

    send(&mut client, 10, b"SCRAM-SHA-256-PLUS\0\0").await?; // AuthenticationSASL
    let first = receive(&mut client).await?;
    let Some(nonce) = attribute(&first, b",r=") else {
        return Ok(None);
    };

    let challenge = [b"r=", nonce, b"0,s=AAAA,i=1"].concat();
    send(&mut client, 11, &challenge).await?; // AuthenticationSASLContinue
    let last = receive(&mut client).await?;
    let bound = last.strip_prefix(b"c=").and_then(|rest| {
        STANDARD
            .decode(rest.split(|&byte| byte == b',').next()?)
            .ok()
    });
    Ok(bound.and_then(|bound| bound.strip_prefix(GS2_HEADER).map(<[u8]>::to_vec)))
}

async fn skip(client: &mut DuplexStream, length: i32) -> io::Result<()> {
    let length = u64::try_from(length).unwrap_or(0);
    tokio::io::copy(&mut client.take(length), &mut tokio::io::sink())
        .await
        .map(drop)
}

async fn send(client: &mut DuplexStream, authentication: i32, data: &[u8]) -> io::Result<()> {
    let mut message = BytesMut::new();
    message.put_u8(b'R');
    message.put_u32(8 + data.len() as u32);
    message.put_i32(authentication);
    message.put_slice(data);
    client.write_all(&message).await
}

async fn receive(client: &mut DuplexStream) -> io::Result<Vec<u8>> {
    client.read_u8().await?; // `p`
    let length = client.read_u32().await?.saturating_sub(4) as usize;
    let mut body = vec![0; length.min(EXCHANGE_SIZE)];
    client.read_exact(&mut body).await?;
    Ok(body)
}

/// What follows `name` in a SCRAM message, up to the next comma.
fn attribute<'a>(message: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = message
        .windows(name.len())
        .position(|window| window == name)?
        + name.len();
    message[start..].split(|&byte| byte == b',').next()
}

/// "TLS" over the in-memory connection, with the binding of the real one.
struct Bound(ChannelBinding);

impl TlsConnect<DuplexStream> for Bound {
    type Stream = BoundStream;
    type Error = io::Error;
    type Future = Ready<io::Result<BoundStream>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(BoundStream {
            stream,
            binding: Mutex::new(Some(self.0)),
        }))
    }
}

struct BoundStream {
    stream: DuplexStream,
    /// Taken once. Locked only because `channel_binding` gets a shared reference.
    binding: Mutex<Option<ChannelBinding>>,
}

impl TlsStream for BoundStream {
    fn channel_binding(&self) -> ChannelBinding {
        let binding = self
            .binding
            .lock()
            .map_or(None, |mut binding| binding.take());
        binding.unwrap_or_else(ChannelBinding::none)
    }
}

impl AsyncRead for BoundStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for BoundStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hash_is_returned_unchanged() {
        for hash in [
            vec![0; 32],
            (0..64).collect(),
            vec![0xFF; 48],
            b"x".to_vec(),
        ] {
            let binding = ChannelBinding::tls_server_end_point(hash.clone());
            assert_eq!(tls_server_end_point(binding).await, Some(hash));
        }
    }

    #[tokio::test]
    async fn a_stream_without_a_binding_has_none() {
        assert_eq!(tls_server_end_point(ChannelBinding::none()).await, None);
    }
}
