//! The servers that a connection string names.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tokio::net::lookup_host;

use super::InvalidConnectionString;
use super::keyword::Parameters;

const DEFAULT_PORT: u16 = 5432;
/// Where servers have their sockets: Debian's and Red Hat's packages, and PostgreSQL as it is.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One server of a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub place: Place,
    pub port: u16,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A host name, or an address in its place.
    Name(String),
    /// A host name with one of its addresses, looked up by us.
    Resolved { name: String, address: IpAddr },
    /// The address that the string gives (`hostaddr`), with the name that it claims for it.
    Address { name: String, address: IpAddr },
    /// The directory of a Unix socket.
    Socket(PathBuf),
}

impl Server {
    /// The servers of `host`, `hostaddr` and `port`, in order (documentation: libpq-multiple-hosts).
    ///
    /// # Errors
    /// Where the lists do not fit together, or an element of them means nothing.
    pub fn all(parameters: &Parameters) -> Result<Vec<Server>, InvalidConnectionString> {
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
        (0..count)
            .map(|index| {
                let port = match ports.get(index).or(ports.first()) {
                    None | Some(&"") => DEFAULT_PORT,
                    Some(port) => match port.parse() {
                        Ok(0) | Err(_) => {
                            return refused("a port is not a number from 1 to 65535: if it is part of a password, \
                                            special characters in that need percent-encoding");
                        }
                        Ok(port) => port,
                    },
                };
                let host = hosts.get(index).copied().filter(|host| !host.is_empty());
                let address = addresses.get(index).copied().filter(|address| !address.is_empty());
                if host.is_some_and(|host| host.contains('@') && !host.starts_with('/')) {
                    return refused(
                        "a host has an '@' in it: write %40 for one in the user's name or the password",
                    );
                }
                let place = match (host, address) {
                    (host, Some(address)) => match address.parse() {
                        Ok(parsed) => Place::Address {
                            name: host.unwrap_or(address).to_owned(),
                            address: parsed,
                        },
                        Err(_) => return refused("a hostaddr is not an IP address"),
                    },
                    (Some(host), None) if host.starts_with('/') => Place::Socket(host.into()),
                    (Some(host), None) => Place::Name(host.to_owned()),
                    (None, None) => Place::Socket(default_socket_directory(port)),
                };
                Ok(Server { place, port })
            })
            .collect()
    }

    /// The server of a connection string that names none: the one with a socket on this machine.
    pub fn local(parameters: &Parameters) -> Result<Vec<Server>, InvalidConnectionString> {
        let mut parameters = parameters.clone();
        parameters.set_default("host", ",".to_owned());
        let mut servers = Server::all(&parameters)?;
        servers.truncate(1);
        Ok(servers)
    }

    /// Unix sockets carry no TLS.
    pub fn is_socket(&self) -> bool {
        matches!(self.place, Place::Socket(_))
    }

    /// What the certificate must be for.
    pub fn host(&self) -> String {
        match &self.place {
            Place::Name(name) | Place::Resolved { name, .. } | Place::Address { name, .. } => {
                name.clone()
            }
            Place::Socket(directory) => directory.display().to_string(),
        }
    }

    /// The same server at each of its addresses.
    ///
    /// # Errors
    /// Where the name has none.
    pub async fn resolve(&self) -> io::Result<Vec<Server>> {
        let Place::Name(name) = &self.place else {
            return Ok(vec![self.clone()]);
        };
        let mut found: Vec<Server> = Vec::new();
        for address in lookup_host((name.as_str(), self.port)).await? {
            let server = Server {
                place: Place::Resolved {
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

fn default_socket_directory(port: u16) -> PathBuf {
    let is_there = |directory: &&str| {
        Path::new(directory)
            .join(format!(".s.PGSQL.{port}"))
            .exists()
    };
    let found = SOCKET_DIRECTORIES
        .iter()
        .find(|directory| is_there(directory));
    found.unwrap_or(&SOCKET_DIRECTORIES[0]).into()
}

/// As in a connection string.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host();
        match self.place {
            Place::Socket(_) => f.write_str(&host.replace('/', "%2F"))?,
            _ if host.contains(':') => write!(f, "[{host}]")?,
            _ => f.write_str(&host)?,
        }
        write!(f, ":{}", self.port)
    }
}

fn refused<T>(what: &str) -> Result<T, InvalidConnectionString> {
    Err(InvalidConnectionString(what.to_owned()))
}
