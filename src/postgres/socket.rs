//! From a server to an open socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;

use super::connection_string::server::{Location, Server};

/// A socket to a server, without TLS: what both the driver and the replication client log in over.
#[derive(Debug)]
pub enum Socket {
    /// Over the network.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

impl Socket {
    /// Opens a socket to `server`, with the keepalives and the `tcp_user_timeout` of `options`.
    ///
    /// [`Server::resolve`] comes first, so that the caller knows which address it is. There is no time limit here.
    ///
    /// Cancellation safe: dropping the future closes the socket.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn open(server: &Server, options: &Config) -> io::Result<Socket> {
        let stream = match &server.location {
            Location::Directory(directory) => {
                let path = directory.join(format!(".s.PGSQL.{}", server.port));
                return UnixStream::connect(path).await.map(Socket::Unix);
            }
            Location::Resolved { address, .. } | Location::Address { address, .. } => {
                TcpStream::connect((*address, server.port)).await?
            }
            Location::Name(name) => TcpStream::connect((name.as_str(), server.port)).await?,
        };
        set_options(&stream, options)?;
        Ok(Socket::Tcp(stream))
    }
}

impl Socket {
    /// The account of the process that listens at a Unix socket. `None` for one over the network.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn peer(&self) -> io::Result<Option<u32>> {
        match self {
            Socket::Tcp(_) => Ok(None),
            Socket::Unix(stream) => stream.peer_cred().map(|peer| Some(peer.uid())),
        }
    }
}

/// A peer that vanished must be noticed: the kernel's defaults wait for hours, in which a walsender keeps WAL for a
/// client that is gone.
fn set_options(stream: &TcpStream, options: &Config) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(options.get_tcp_user_timeout().copied())?;
    if options.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(options.get_keepalives_idle());
        if let Some(interval) = options.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = options.get_keepalives_retries() {
            keepalive = keepalive.with_retries(count);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::postgres::ConnectionString;

    async fn opened(options: &str) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = format!("host=127.0.0.1 port={port} user=me {options}");
        let string: ConnectionString = text.parse().unwrap();
        Socket::open(string.first_server(), string.socket_options())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_socket_has_keepalives_and_a_user_timeout_by_default() {
        let opened = opened("").await;
        let socket = SockRef::from(&opened);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(10)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(30))
        );
    }

    #[tokio::test]
    async fn a_socket_has_the_keepalives_of_the_connection_string() {
        let opened = opened("keepalives_idle=7 keepalives_interval=3 keepalives_count=2").await;
        let socket = SockRef::from(&opened);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(3)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 2);
        let without = self::opened("keepalives=0").await;
        assert!(!SockRef::from(&without).keepalive().unwrap());
    }
}
