//! A Unix socket that the runtime watches only while it is used.
//!
//! The kernel wakes the runtime at each write of the other side, and has no threshold for Unix sockets: `unix_poll` in
//! `net/unix/af_unix.c` does not look at `SO_RCVLOWAT`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net;

use tokio::net::UnixStream;

pub(super) struct UnixSocket {
    socket: net::UnixStream,
    /// A second descriptor of the socket, which the runtime watches.
    watched: Option<UnixStream>,
}

impl UnixSocket {
    /// A descriptor of its own for this socket, which must not block.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn of(socket: &impl AsFd) -> io::Result<UnixSocket> {
        Ok(UnixSocket {
            socket: socket.as_fd().try_clone_to_owned()?.into(),
            watched: None,
        })
    }

    /// The socket to read from and write to. From now on the runtime watches it.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn watched(&mut self) -> io::Result<&mut UnixStream> {
        match &mut self.watched {
            Some(watched) => Ok(watched),
            none => Ok(none.insert(UnixStream::from_std(self.socket.try_clone()?)?)),
        }
    }

    /// The runtime does not watch the socket until it is used again. A task that waits for it is not woken.
    pub fn unwatch(&mut self) {
        self.watched = None;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::runtime::Handle;

    use super::*;

    const WRITES: usize = 200;

    /// How often the runtime is woken while the other side writes, and nothing is read.
    async fn wake_ups(socket: &mut UnixSocket, mut peer: net::UnixStream) -> u64 {
        let metrics = Handle::current().metrics();
        let before = metrics.worker_park_count(0);
        let writes = tokio::task::spawn_blocking(move || {
            for _ in 0..WRITES {
                peer.write_all(b"x").unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        });
        writes.await.unwrap();
        let wake_ups = metrics.worker_park_count(0) - before;
        let mut bytes = [0; WRITES];
        let read = socket.watched().unwrap().read_exact(&mut bytes);
        read.await.unwrap();
        wake_ups
    }

    #[tokio::test]
    async fn a_socket_that_is_not_watched_wakes_nothing_and_is_read_later() {
        for (watched, expected) in [(true, WRITES as u64 / 2..=u64::MAX), (false, 0..=10)] {
            let (socket, peer) = net::UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut socket = UnixSocket::of(&socket).unwrap();
            socket.watched().unwrap();
            if !watched {
                socket.unwatch();
            }
            let wake_ups = wake_ups(&mut socket, peer).await;
            assert!(expected.contains(&wake_ups), "{watched}: {wake_ups}");
        }
    }
}
