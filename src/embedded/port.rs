//! Free TCP ports of 127.0.0.1.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Whether a server could listen on `port` now.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port that is free now. Another program may take it before the server does.
pub(super) fn any_free() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
