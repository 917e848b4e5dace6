//! Where jobs may connect: whoever can write to the jobs table names hosts there, and the daemon may reach more of the
//! network than they do.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::connection_string::{self, Server};

/// One `--allow-host`: `host`, `host:port`, `[IPv6 address]:port`, or the directory of a Unix socket.
///
/// Names are compared as they are written, without regard to case; nothing is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    Tcp { host: HostName, port: Option<u16> },
    Unix(PathBuf),
}

/// A host as the network is asked for it: an address in any notation is that address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    Address(IpAddr),
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
    fn admits(&self, place: &Place<'_>) -> bool {
        match (self, place) {
            (AllowedHost::Unix(allowed), Place::Unix(path)) => allowed == path,
            (AllowedHost::Tcp { host, port }, Place::Tcp(wanted, wanted_port)) => {
                host == wanted && port.is_none_or(|port| port == *wanted_port)
            }
            _ => false,
        }
    }
}

/// The hosts that jobs may connect to; without any, all are allowed.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts(Vec<AllowedHost>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "db_connection names {place}, which --allow-host does not allow; to allow it, add --allow-host {place}"
)]
pub struct HostNotAllowed {
    place: String,
}

impl AllowedHosts {
    pub fn new(hosts: Vec<AllowedHost>) -> Self {
        AllowedHosts(hosts)
    }

    /// Each of the servers must be allowed. An address (`hostaddr`) is what is
    /// connected to, whatever name stands beside it.
    ///
    /// # Errors
    /// The first place that is not.
    pub fn check(&self, servers: &[Server]) -> Result<(), HostNotAllowed> {
        if self.0.is_empty() {
            return Ok(());
        }
        let refused = servers
            .iter()
            .map(Place::of)
            .find(|place| !self.0.iter().any(|allowed| allowed.admits(place)));
        match refused {
            Some(place) => Err(HostNotAllowed {
                place: place.to_string(),
            }),
            None => Ok(()),
        }
    }
}

/// What a connection may be opened to.
enum Place<'a> {
    Tcp(HostName, u16),
    Unix(&'a Path),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(HostName::Address(IpAddr::V6(address)), port) => {
                write!(f, "[{address}]:{port}")
            }
            Place::Tcp(host, port) => write!(f, "{host}:{port}"),
            Place::Unix(path) => path.display().fmt(f),
        }
    }
}

impl<'a> Place<'a> {
    fn of(server: &'a Server) -> Place<'a> {
        use connection_string::Place as Named;
        match &server.place {
            Named::Name(name) => Place::Tcp(HostName::new(name), server.port),
            Named::Resolved { address, .. } | Named::Address { address, .. } => {
                Place::Tcp(HostName::Address(*address), server.port)
            }
            Named::Socket(directory) => Place::Unix(directory),
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
            .check(&connection.servers())
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
    fn what_is_no_host_is_refused_as_an_argument() {
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
