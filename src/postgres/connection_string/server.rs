//! The servers that a connection string names.
//!
//! ```text
//! host=a,b hostaddr=,10.0.0.7 port=5432 ──from_parameters──▶ Name(a), Address(b, 10.0.0.7)
//!                                                             │ resolve
//!                                                             ▼
//!                                          Resolved(a, 192.0.2.1), Resolved(a, 2001:db8::1)
//! ```

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio::net::lookup_host;

use super::error::{Parsed, refused};
use super::keyword::Parameters;

const DEFAULT_PORT: u16 = 5432;
/// Addresses of one name. Each may take `connect_timeout`, and who owns the name can give it thousands.
const MAX_ADDRESSES: usize = 32;
/// Where servers of the packages of Debian and Red Hat have their sockets. PostgreSQL's own default, `/tmp`, has to be
/// named: everybody may put a socket there while the server is down.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";
/// Both of them: libpq is built for one or the other.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = [SOCKET_DIRECTORY, "/tmp"];

/// One server of a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its host.
    pub location: Location,
    /// Its port. For a Unix socket, part of the name of the file.
    pub port: u16,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A host name, or an address in its place.
    Name(String),
    /// A host name with one of its addresses, as [`Server::resolve`] found it.
    Resolved {
        /// The host name.
        name: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// The address that the string gives (`hostaddr`), with the name that it claims for it.
    Address {
        /// The claimed name; the address if there is none.
        name: String,
        /// Where to connect.
        address: IpAddr,
    },
    /// The directory of a Unix socket.
    Directory(PathBuf),
}

impl Server {
    /// The servers of `host`, `hostaddr` and `port`, in order (PostgreSQL manual, "Specifying Multiple Hosts").
    ///
    /// # Errors
    /// If the lists have different lengths, or an element is not valid.
    pub(super) fn from_parameters(parameters: &Parameters) -> Parsed<Vec<Server>> {
        let list = |name: &str| -> Vec<&str> {
            let value = parameters.get(name).filter(|value| !value.is_empty());
            value.map_or_else(Vec::new, |value| value.split(',').map(str::trim).collect())
        };
        let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let count = hosts.len().max(addresses.len());
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return refused("it has not as many hostaddr as host");
        }
        if ports.len() > 1 && ports.len() != count {
            return refused("it has not as many ports as hosts");
        }
        let element = |list: &[&str], index: usize| -> Option<String> {
            let element = list.get(index).filter(|element| !element.is_empty());
            element.map(ToString::to_string)
        };
        (0..count)
            .map(|index| {
                let port = port(ports.get(index).or(ports.first()).copied())?;
                let (host, address) = (element(&hosts, index), element(&addresses, index));
                let location = location(host, address)?;
                Ok(Server { location, port })
            })
            .collect()
    }

    /// The server of a connection string that names none: the one with a socket on this machine.
    pub(super) fn local(parameters: &Parameters) -> Parsed<Server> {
        let ports = parameters.get("port").map(str::trim);
        if ports.is_some_and(|ports| ports.contains(',')) {
            return refused("it has not as many ports as hosts");
        }
        let port = port(ports)?;
        Ok(Server {
            location: Location::Directory(SOCKET_DIRECTORY.into()),
            port,
        })
    }

    /// Whether it is a Unix socket, which carries no TLS.
    pub fn is_socket(&self) -> bool {
        matches!(self.location, Location::Directory(_))
    }

    /// The name that the certificate must be for.
    pub fn host(&self) -> String {
        match &self.location {
            Location::Name(name)
            | Location::Resolved { name, .. }
            | Location::Address { name, .. } => name.clone(),
            Location::Directory(directory) => directory.display().to_string(),
        }
    }

    /// The same server at each of its addresses, in the order of the operating system.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// If the name has no address.
    pub async fn resolve(&self) -> io::Result<Vec<Server>> {
        let Location::Name(name) = &self.location else {
            return Ok(vec![self.clone()]);
        };
        let mut found: Vec<Server> = Vec::new();
        let addresses = lookup_host((name.as_str(), self.port)).await?;
        for address in addresses.take(MAX_ADDRESSES) {
            let server = Server {
                location: Location::Resolved {
                    name: name.clone(),
                    address: address.ip(),
                },
                port: self.port,
            };
            if !found.contains(&server) {
                found.push(server);
            }
        }
        match found.is_empty() {
            true => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            )),
            false => Ok(found),
        }
    }
}

fn port(text: Option<&str>) -> Parsed<u16> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(DEFAULT_PORT);
    };
    match text.parse() {
        Ok(0) | Err(_) => refused(
            "a port is not a number from 1 to 65535: if it is part of a password, special characters in that need \
             percent-encoding",
        ),
        Ok(port) => Ok(port),
    }
}

/// `host` says where a server is, unless `address` (`hostaddr`) does.
fn location(host: Option<String>, address: Option<String>) -> Parsed<Location> {
    let is_name = |host: &String| !host.starts_with('/');
    if host
        .as_ref()
        .is_some_and(|host| host.contains('@') && is_name(host))
    {
        return refused(
            "a host has an '@' in it: write %40 for one in the user's name or the password",
        );
    }
    match (host, address) {
        (host, Some(address)) => match address.parse() {
            Ok(parsed) => Ok(Location::Address {
                name: host.unwrap_or(address),
                address: parsed,
            }),
            Err(_) => refused("a hostaddr is not an IP address"),
        },
        (Some(host), None) if is_name(&host) => Ok(Location::Name(host)),
        (Some(directory), None) => Ok(Location::Directory(directory.into())),
        (None, None) => Ok(Location::Directory(SOCKET_DIRECTORY.into())),
    }
}

/// As in a connection string.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host();
        match self.location {
            Location::Directory(_) => f.write_str(&host.replace('/', "%2F"))?,
            _ if host.contains(':') => write!(f, "[{host}]")?,
            _ => f.write_str(&host)?,
        }
        write!(f, ":{}", self.port)
    }
}
