//! From an open socket to an open transport: TLS, where `sslmode` asks for it.
//!
//! ```text
//! client ──SSLRequest──▶ server            sslnegotiation=postgres
//! client ◀──── S or N ── server
//! client ──ClientHello─▶ server            sslnegotiation=direct begins here
//! ```
//!
//! PostgreSQL manual, "Message Flow", section "SSL Session Encryption".

use std::any::TypeId;
use std::error::Error;
use std::os::fd::AsFd;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Config, NoTls};

use super::error::ReplicationError;
use super::receive_threshold::{ReceiveThreshold, is_unix};
use super::transport::Transport;

/// A transport that is ready for the startup message.
pub(super) struct Negotiated {
    pub transport: Transport,
    /// What a login can be bound to; `None` without TLS.
    pub binding: Option<ChannelBinding>,
}

impl Negotiated {
    /// Without TLS.
    pub fn plain(transport: Transport) -> Negotiated {
        Negotiated {
            transport,
            binding: None,
        }
    }
}

/// Negotiates TLS over `socket` as `config` asks for it.
///
/// # Errors
/// [`ReplicationError::Tls`] if the handshake fails, or if the server has no TLS under `sslmode=require`.
pub(super) async fn negotiate<S, T>(
    mut socket: S,
    tls: T,
    config: &Config,
) -> Result<Negotiated, ReplicationError>
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
    T: TlsConnect<S> + 'static,
    T::Stream: Send + 'static,
{
    let is_required = config.get_ssl_mode() == SslMode::Require;
    let is_direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
    if is_direct && !is_required {
        // Without a question to the server there is no answer to fall back on.
        return Err(ReplicationError::Config(
            "sslnegotiation=direct needs sslmode=require".to_owned(),
        ));
    }
    // As in libpq, a Unix socket carries no TLS, whatever `sslmode` says.
    if is_unix(&socket) {
        return Ok(Negotiated::plain(Transport::unix(&socket)?));
    }
    let threshold = ReceiveThreshold::new(&socket);
    if config.get_ssl_mode() == SslMode::Disable {
        return Ok(Negotiated::plain(Transport::tcp(socket, threshold)));
    }
    // The driver asks a connector for this by a method that is private to it.
    let can_connect = TypeId::of::<T>() != TypeId::of::<NoTls>();
    if !is_required && !can_connect {
        return Ok(Negotiated::plain(Transport::tcp(socket, threshold)));
    }
    if !is_direct && !is_offered(&mut socket).await? {
        return match is_required {
            true => Err(failed("the server has no TLS, and sslmode=require")),
            false => Ok(Negotiated::plain(Transport::tcp(socket, threshold))),
        };
    }
    let stream = tls.connect(socket).await.map_err(failed)?;
    let binding = stream.channel_binding();
    Ok(Negotiated {
        transport: Transport::tcp(stream, threshold),
        binding: Some(binding),
    })
}

/// Asks whether the server has TLS. Reads its one byte and no more: an attacker could have put more behind it, in the
/// clear, for the client to take for the encrypted answer (CVE-2021-23222).
async fn is_offered(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<bool, ReplicationError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    match socket.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(ReplicationError::protocol(
            "neither S nor N in answer to SSLRequest",
        )),
    }
}

fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> ReplicationError {
    ReplicationError::Tls(cause.into())
}
