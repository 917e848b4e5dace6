//! What the bytes of a connection go over, and how its reader rests.
//!
//! A runtime waits for all of its sockets at once. It is woken for what arrives at each of them, also for a socket that no
//! task reads at the moment. A reader that pauses gets rid of these wake-ups in one of two ways:
//!
//! | socket | while it rests |
//! | --- | --- |
//! | TCP, also under TLS | a [threshold](super::receive_threshold) tells the kernel to wait for more |
//! | Unix | the runtime does not [watch](super::unix_socket) it |

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::receive_threshold::ReceiveThreshold;
use super::unix_socket::UnixSocket;

/// Bytes that wake the runtime although the reader rests: less than the kernel buffers for any socket.
const RESTING_THRESHOLD: i32 = 64 * 1024;

/// A stream of bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(super) enum Transport {
    Unix(UnixSocket),
    /// With the threshold of the TCP socket under it, if there is one.
    Stream(Box<dyn Stream>, Option<ReceiveThreshold>),
}

impl Transport {
    /// Over anything that carries bytes. Its reader cannot rest.
    pub fn over(stream: impl Stream + 'static) -> Transport {
        Transport::Stream(Box::new(stream), None)
    }

    /// Over a TCP socket, or what is wrapped around it.
    pub fn tcp(stream: impl Stream + 'static, threshold: Option<ReceiveThreshold>) -> Transport {
        Transport::Stream(Box::new(stream), threshold)
    }

    /// Over a Unix socket.
    ///
    /// # Errors
    /// Those of the operating system, of which the process may have no more file descriptors.
    pub fn unix(socket: &impl AsFd) -> io::Result<Transport> {
        UnixSocket::of(socket).map(Transport::Unix)
    }

    /// From now on little that arrives does not wake the runtime.
    pub fn rest(&mut self) {
        match self {
            Transport::Unix(socket) => socket.unwatch(),
            Transport::Stream(_, Some(threshold)) => threshold.set(RESTING_THRESHOLD),
            Transport::Stream(_, None) => {}
        }
    }

    /// Ends the effect of [`rest`](Self::rest). The runtime watches a Unix socket when it is read or written again.
    pub fn resume(&mut self) {
        if let Transport::Stream(_, Some(threshold)) = self {
            threshold.set(1);
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut dyn Stream>> {
        Ok(match self {
            Transport::Unix(socket) => Pin::new(socket.watched()?),
            Transport::Stream(stream, _) => Pin::new(stream.as_mut()),
        })
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
