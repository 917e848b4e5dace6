//! Where jobs may connect (`--allow-host`).
//!
//! Every role that can write to the jobs table names hosts there, and the daemon may reach more of the network than
//! that role can.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::connection_string::server::{Location, Server};

/// One `--allow-host`: `host`, `host:port`, `[IPv6 address]:port`, or the directory of a Unix socket.
///
/// Names are compared as written, without regard to case. They are not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    /// A host, at one port or at all.
    Tcp {
        /// Its name or address.
        host: HostName,
        /// The only port, if there is one.
        port: Option<u16>,
    },
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

/// A host. An address is the same in every notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// An IP address.
    Address(IpAddr),
    /// A name, in lower case and without a dot at its end.
    Name(String),
}

impl HostName {
    fn new(text: &str) -> HostName {
        match text.parse() {
            Ok(address) => HostName::Address(address),
            Err(_) => HostName::Name(text.trim_end_matches('.').to_lowercase()),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostName::Address(address) => address.fmt(f),
            HostName::Name(name) => f.write_str(name),
        }
    }
}

/// The value of `--allow-host` is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host: write host, host:port, [IPv6 address]:port or the path of a Unix socket's directory"
)]
pub struct InvalidAllowedHost(String);

impl FromStr for AllowedHost {
    type Err = InvalidAllowedHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAllowedHost(text.to_owned());
        let text = text.trim();
        if text.starts_with('/') {
            return Ok(AllowedHost::Unix(PathBuf::from(text)));
        }
        if let Ok(address) = text.parse() {
            let host = HostName::Address(address);
            return Ok(AllowedHost::Tcp { host, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = HostName::new(bare.unwrap_or(host));
        let plausible = match &host {
            HostName::Address(_) => true,
            HostName::Name(name) => {
                !name.is_empty()
                    && !name.contains(|c: char| c.is_whitespace() || "/@:,[]*".contains(c))
            }
        };
        if plausible {
            Ok(AllowedHost::Tcp { host, port })
        } else {
            Err(invalid())
        }
    }
}

impl AllowedHost {
    fn admits(&self, destination: &Destination<'_>) -> bool {
        match (self, destination) {
            (AllowedHost::Unix(allowed), Destination::Unix(path)) => allowed == path,
            (AllowedHost::Tcp { host, port }, Destination::Tcp(wanted, wanted_port)) => {
                host == wanted && port.is_none_or(|port| port == *wanted_port)
            }
            _ => false,
        }
    }
}

/// The hosts that jobs may connect to. Without any, all hosts are allowed, and the sockets of `--uri`.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts(Vec<AllowedHost>);

/// A job names a host that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNotAllowed {
    /// It is none of the list.
    #[error(
        "db_connection names {0}, which --allow-host does not allow; to allow it, add --allow-host {0}"
    )]
    NotListed(String),
    /// There is no list, and it is a socket.
    #[error(
        "db_connection names the Unix socket in {0}, where a server may take the daemon for its operating-system user; \
         to allow it, add --allow-host {0}"
    )]
    Socket(String),
}

/// What a list of hosts says of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The operator has named it.
    Listed,
    /// There is no list, so every host is allowed.
    Open,
    /// It is none of the list.
    Refused,
}

impl AllowedHosts {
    /// Only these hosts; all if there are none.
    pub fn new(hosts: Vec<AllowedHost>) -> Self {
        AllowedHosts(hosts)
    }

    /// What the list says of a host of another kind of server, at this port.
    pub fn admission(&self, host: &str, port: u16) -> Admission {
        let destination = Destination::Tcp(HostName::new(host), port);
        match self.0.iter().any(|allowed| allowed.admits(&destination)) {
            true => Admission::Listed,
            false if self.0.is_empty() => Admission::Open,
            false => Admission::Refused,
        }
    }

    /// Checks each of the servers; `own` are those of `--uri`. If a server has an address (`hostaddr`), the address must
    /// be allowed: it is what is connected to, whatever its name.
    ///
    /// # Errors
    /// The first host that is not allowed.
    pub fn check(&self, servers: &[Server], own: &[Server]) -> Result<(), HostNotAllowed> {
        if self.0.is_empty() {
            let other = servers
                .iter()
                .find(|server| server.is_socket() && !own.contains(server));
            return match other {
                Some(socket) => Err(HostNotAllowed::Socket(socket.host())),
                None => Ok(()),
            };
        }
        let refused = servers
            .iter()
            .map(Destination::from_server)
            .find(|destination| !self.0.iter().any(|allowed| allowed.admits(destination)));
        match refused {
            Some(destination) => Err(HostNotAllowed::NotListed(destination.to_string())),
            None => Ok(()),
        }
    }
}

/// What a connection is opened to.
enum Destination<'a> {
    Tcp(HostName, u16),
    Unix(&'a Path),
}

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Tcp(HostName::Address(IpAddr::V6(address)), port) => {
                write!(f, "[{address}]:{port}")
            }
            Destination::Tcp(host, port) => write!(f, "{host}:{port}"),
            Destination::Unix(path) => path.display().fmt(f),
        }
    }
}

impl<'a> Destination<'a> {
    fn from_server(server: &'a Server) -> Destination<'a> {
        match &server.location {
            Location::Name(name) => Destination::Tcp(HostName::new(name), server.port),
            Location::Resolved { address, .. } | Location::Address { address, .. } => {
                Destination::Tcp(HostName::Address(*address), server.port)
            }
            Location::Directory(directory) => Destination::Unix(directory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::ConnectionString;

    fn allowed(hosts: &[&str], connection: &str) -> Result<(), String> {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let connection: ConnectionString = connection.parse().unwrap();
        AllowedHosts::new(hosts)
            .check(&connection.servers(), &[])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_the_option_every_host_is_allowed() {
        assert_eq!(allowed(&[], "host=anywhere port=1"), Ok(()));
    }

    #[test]
    fn a_host_is_allowed_by_name_address_or_directory() {
        for (host, connection) in [
            ("db.example.org", "postgresql://me@DB.example.org:7777/d"),
            ("db.example.org:5432", "host=db.example.org"),
            ("db.example.org:6000", "host=db.example.org. port=6000"),
            ("10.0.0.1", "hostaddr=10.0.0.1 host=any.name"),
            ("::1", "postgresql://[::1]/d"),
            ("[0:0::1]:5433", "host=::1 port=5433"),
            ("/run/postgresql", "host=/run/postgresql"),
            ("/run/postgresql/", "host=/run/postgresql"),
        ] {
            assert_eq!(allowed(&[host], connection), Ok(()), "{host} {connection}");
        }
    }

    #[test]
    fn every_other_host_is_refused_and_named() {
        for (connection, named) in [
            ("host=other.org", "other.org:5432"),
            ("host=db.example.org.evil.org", "db.example.org.evil.org"),
            ("host=db.example.org port=1", "db.example.org:1"),
            ("host=db.example.org,other.org", "other.org"),
            ("host=db.example.org hostaddr=10.9.9.9", "10.9.9.9"),
            (
                "host=db.example.org,db.example.org hostaddr=10.0.0.1,10.9.9.9",
                "10.9.9.9",
            ),
            ("host=other.org,x hostaddr=,10.0.0.1", "other.org:5432"),
            ("host=10.0.1", "10.0.1"),
            ("host=::ffff:10.0.0.1", "[::ffff:10.0.0.1]:5432"),
            ("host=/run/postgresql/../other", "/run/postgresql/../other"),
        ] {
            let hosts = ["db.example.org:5432", "10.0.0.1", "/run/postgresql"];
            let refused = allowed(&hosts, connection).unwrap_err();
            assert!(refused.contains(named), "{connection}: {refused}");
            assert!(
                refused.contains("--allow-host"),
                "the remedy is named: {refused}"
            );
        }
    }

    #[test]
    fn an_argument_that_is_not_a_host_is_refused() {
        for text in [
            "",
            "a b",
            "host:port",
            "postgresql://x",
            "*",
            "a,b",
            ":5432",
            "[::1",
        ] {
            assert!(text.parse::<AllowedHost>().is_err(), "{text:?}");
        }
    }
}
