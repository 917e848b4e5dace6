//! Where the server listens, and who may ask.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

use super::tls::TlsIdentity;
use super::token::Token;

/// An address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(SocketAddr);

/// A text is no address with a port.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected an IP address and a port, such as 127.0.0.1:9187 or [::1]:9187; port 0 takes a free one"
)]
pub struct NoAddress;

impl FromStr for ListenAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| NoAddress)?;
            let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
            return Ok(ListenAddress(SocketAddr::new(localhost, port)));
        }
        text.parse().map(ListenAddress).map_err(|_| NoAddress)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ListenAddress {
    /// Whether only programs on this machine can reach it.
    pub fn is_local(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }

    /// Where a program on this machine reaches it: one that listens on all addresses, at the loopback address.
    pub fn from_this_machine(self) -> SocketAddr {
        let loopback = match self.0.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        SocketAddr::new(loopback, self.0.port())
    }
}

/// What the server is started with.
pub struct Listen {
    /// Where it listens.
    pub address: ListenAddress,
    /// What a request has to present, if anything.
    pub token: Option<Token>,
    /// Others than this machine may ask without a token.
    pub without_token: bool,
    /// What the server proves itself with; without it, it speaks plain HTTP.
    pub tls: Option<TlsIdentity>,
}

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Everyone who reaches the address could use the models, and read names of tables, keys of rows and errors.
    #[error(
        "--listen {0} would show names of tables, keys of rows and errors to everyone who reaches this machine, and let \
         them use the models; set a token with --listen-token-file or LANTERN_LISTEN_TOKEN, or listen on 127.0.0.1, or \
         allow it with --listen-without-token"
    )]
    Exposed(ListenAddress),
    /// The system refuses the address.
    #[error("cannot listen on {address}: {error}{}", remedy(.error))]
    Refused {
        /// The address.
        address: ListenAddress,
        /// The system's error.
        error: io::Error,
    },
    /// The thread of the server cannot be started.
    #[error("cannot start the HTTP server: {0}")]
    Start(io::Error),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program, or another daemon, has the port: choose another one with --listen, or port 0 for a \
             free one"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: choose one of its own, or 127.0.0.1"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 are for privileged programs: choose a higher one"
        }
        _ => "",
    }
}

impl Listen {
    /// Takes the port.
    ///
    /// # Errors
    /// The address is open to others and there is no token, or the system refuses it.
    pub(super) fn bind(&self) -> Result<TcpListener, ListenError> {
        let address = self.address;
        if !address.is_local() && self.token.is_none() && !self.without_token {
            return Err(ListenError::Exposed(address));
        }
        let bound = TcpListener::bind(address.0).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        bound.map_err(|error| ListenError::Refused { address, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_reached_at_the_loopback_address() {
        for (listens, reached) in [
            ("0.0.0.0:9187", "127.0.0.1:9187"),
            ("[::]:9187", "[::1]:9187"),
            ("[::ffff:0.0.0.0]:1", "127.0.0.1:1"),
            ("10.0.0.7:9187", "10.0.0.7:9187"),
        ] {
            let address: ListenAddress = listens.parse().unwrap();
            assert_eq!(address.from_this_machine().to_string(), reached);
        }
    }

    #[test]
    fn an_address_needs_a_port_and_no_name() {
        for (text, shown, is_local) in [
            ("127.0.0.1:9187", "127.0.0.1:9187", true),
            ("localhost:0", "127.0.0.1:0", true),
            ("127.8.9.1:80", "127.8.9.1:80", true),
            ("[::1]:9187", "[::1]:9187", true),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", true),
            ("[::]:9187", "[::]:9187", false),
            ("0.0.0.0:9187", "0.0.0.0:9187", false),
            ("10.0.0.7:9187", "10.0.0.7:9187", false),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.is_local()),
                (shown, is_local)
            );
        }
        for text in [
            "",
            "9187",
            ":9187",
            "127.0.0.1",
            "::1:9187",
            "example.com:9187",
            "localhost:x",
            "1.2.3.4:70000",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
