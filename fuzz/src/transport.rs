//! Transports for tests: one that plays a recorded conversation in pieces, and one that records.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that one side has said so far.
pub type Recorded = Arc<Mutex<Vec<u8>>>;

/// In what pieces bytes arrive and leave: the sizes of successive reads (and writes), over and over, 0 for a pause.
#[derive(Clone, Debug)]
pub struct Pieces {
    sizes: Vec<u8>,
    next: usize,
    paused: bool,
}

impl Pieces {
    /// No pauses, and as much at a time as is asked for.
    pub fn whole() -> Pieces {
        Pieces::of(&[])
    }

    pub fn of(sizes: &[u8]) -> Pieces {
        Pieces {
            sizes: sizes.to_vec(),
            next: 0,
            paused: false,
        }
    }

    /// The size of the next piece, or `None` for a pause. Never two pauses on end: everything arrives some time.
    fn take(&mut self) -> Option<usize> {
        if self.sizes.is_empty() {
            return Some(usize::MAX);
        }
        let size = self.sizes[self.next % self.sizes.len()];
        self.next += 1;
        if size == 0 && !self.paused {
            self.paused = true;
            return None;
        }
        self.paused = false;
        Some(usize::from(size.max(1)))
    }
}

/// Plays what a server said, and keeps what it is told.
pub struct Replay {
    incoming: Bytes,
    reads: Pieces,
    writes: Pieces,
    written: Recorded,
}

impl Replay {
    pub fn of(server: &[u8], pieces: &Pieces, written: &Recorded) -> Replay {
        Replay {
            incoming: Bytes::copy_from_slice(server),
            reads: pieces.clone(),
            writes: pieces.clone(),
            written: Arc::clone(written),
        }
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(size) = self.reads.take() else {
            return Poll::Pending;
        };
        let size = size.min(self.incoming.len()).min(buffer.remaining());
        buffer.put_slice(&self.incoming.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(size) = self.writes.take() else {
            return Poll::Pending;
        };
        let size = size.min(bytes.len());
        self.written.lock().unwrap().extend(&bytes[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Passes everything through and keeps what was received.
pub struct Recording<T> {
    pub transport: T,
    pub received: Recorded,
}

impl<T: AsyncRead + Unpin> AsyncRead for Recording<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.transport).poll_read(cx, buffer);
        self.received
            .lock()
            .unwrap()
            .extend(&buffer.filled()[before..]);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Recording<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// Runs a future whose waits are all pauses of a [`Replay`].
pub fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return output;
        }
    }
}

/// Polls `future` once and drops it.
pub fn once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
