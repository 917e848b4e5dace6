//! How many bytes must arrive before the kernel wakes the reader of a socket (`SO_RCVLOWAT`).
//!
//! A runtime waits for all of its sockets at once. It is woken for each packet of each of them, also for a socket that
//! no task reads at the moment. Only the kernel can leave out such a wake-up.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname, setsockopt};
use nix::{libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// The number of bytes from which on `poll` reports a socket as readable (socket(7)).
    ReceiveLowWater,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    libc::c_int
);

/// The option of one TCP socket, whatever is wrapped around it.
pub(super) struct ReceiveThreshold(OwnedFd);

impl ReceiveThreshold {
    /// `None` if there is no such option: on Unix sockets, and on systems other than Linux.
    pub fn new(socket: &impl AsFd) -> Option<ReceiveThreshold> {
        if !cfg!(target_os = "linux") || is_unix(socket) {
            return None;
        }
        // A second descriptor of the same socket: the first moves into a TLS stream. Both are closed together.
        socket
            .as_fd()
            .try_clone_to_owned()
            .ok()
            .map(ReceiveThreshold)
    }

    /// A failure only means more wake-ups. A lower value wakes a waiting reader at once if enough has arrived already
    /// (`tcp_set_rcvlowat` in the kernel's `net/ipv4/tcp.c`).
    pub fn set(&self, bytes: i32) {
        let _ = setsockopt(&self.0, ReceiveLowWater, &bytes);
    }
}

/// Whether a socket is a Unix socket.
pub(super) fn is_unix(socket: &impl AsFd) -> bool {
    let address = getsockname::<SockaddrStorage>(socket.as_fd().as_raw_fd());
    address.is_ok_and(|address| address.family() == Some(AddressFamily::Unix))
}
