//! Where a server is, and the socket to it.

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::libc;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{self, TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::ReplicationError;

const DEFAULT_PORT: u16 = 5432;
/// How long a silent connection may be before the kernel asks whether the other side is there.
/// `Config` says two hours when nothing was set, by when a walsender that lost us has kept WAL back
/// for two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const CONFIG_DEFAULT_IDLE: Duration = Duration::from_secs(2 * 60 * 60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent data may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// One host of a connection string.
pub(super) struct Endpoint {
    /// What the certificate must be for, and what errors name.
    pub host: String,
    pub port: u16,
    address: Address,
}

enum Address {
    Tcp(String),
    /// The directory of the server's sockets.
    Unix(PathBuf),
}

impl Endpoint {
    /// The hosts of `config`, in order. Follows libpq: `hostaddr` is where to connect, `host` then
    /// only what the certificate must be for; there is one port for all hosts or one for each.
    pub fn all(config: &Config) -> Result<Vec<Endpoint>, ReplicationError> {
        let (hosts, addresses, ports) = (
            config.get_hosts(),
            config.get_hostaddrs(),
            config.get_ports(),
        );
        let count = hosts.len().max(addresses.len());
        let refuse = |what: String| Err(ReplicationError::Config(what));
        if count == 0 {
            return refuse("no host is given".to_owned());
        }
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return refuse(format!(
                "{} host for {} hostaddr",
                hosts.len(),
                addresses.len()
            ));
        }
        if ports.len() > 1 && ports.len() != count {
            return refuse(format!("{} ports for {count} hosts", ports.len()));
        }
        let endpoint = |index: usize| {
            let address = match (addresses.get(index), hosts.get(index)) {
                (Some(address), _) => Address::Tcp(address.to_string()),
                (None, Some(Host::Tcp(name))) => Address::Tcp(name.clone()),
                (None, Some(Host::Unix(directory))) => Address::Unix(directory.clone()),
                (None, None) => unreachable!("each index below the count is in one of the lists"),
            };
            let host = match (hosts.get(index), &address) {
                (Some(Host::Tcp(name)), _) | (_, Address::Tcp(name)) => name.clone(),
                (_, Address::Unix(directory)) => directory.display().to_string(),
            };
            let port = ports
                .get(index)
                .or(ports.first())
                .copied()
                .unwrap_or(DEFAULT_PORT);
            Endpoint {
                host,
                port,
                address,
            }
        };
        Ok((0..count).map(endpoint).collect())
    }

    /// Host and port, for messages.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Unix sockets carry no TLS.
    pub fn is_unix(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// Connects, to the first of the host's addresses that answers.
    pub async fn open(&self, config: &Config) -> Result<Socket, ReplicationError> {
        let opened = match &self.address {
            Address::Tcp(host) => open_tcp(host, self.port, config).await.map(Socket::Tcp),
            Address::Unix(directory) => {
                let path = directory.join(format!(".s.PGSQL.{}", self.port));
                UnixStream::connect(path).await.map(Socket::Unix)
            }
        };
        opened.map_err(|source| ReplicationError::Connect {
            host: self.name(),
            source,
        })
    }
}

async fn open_tcp(host: &str, port: u16, config: &Config) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in net::lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                prepare(&stream, config)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn prepare(stream: &TcpStream, config: &Config) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(
        config
            .get_tcp_user_timeout()
            .copied()
            .unwrap_or(USER_TIMEOUT),
    ))?;
    if config.get_keepalives() {
        let idle = match config.get_keepalives_idle() {
            CONFIG_DEFAULT_IDLE => KEEPALIVE_IDLE,
            idle => idle,
        };
        let keepalive = TcpKeepalive::new()
            .with_time(idle)
            .with_interval(
                config
                    .get_keepalives_interval()
                    .unwrap_or(KEEPALIVE_INTERVAL),
            )
            .with_retries(config.get_keepalives_retries().unwrap_or(KEEPALIVE_RETRIES));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// Says from how many bytes on somebody who waits for a socket is woken up, whatever is wrapped around it.
///
/// A runtime waits for all of its sockets at once and is woken for each packet of each, whether or not anybody wants to read
/// there just now. Only the kernel can leave that out.
pub(super) struct Threshold(socket2::Socket);

impl Threshold {
    /// `None` where there is no such thing: Unix sockets, and systems other than Linux.
    pub fn of(socket: &Socket) -> Option<Threshold> {
        match socket {
            Socket::Tcp(stream) if cfg!(target_os = "linux") => {
                let socket = SockRef::from(stream).try_clone();
                socket.ok().map(Threshold)
            }
            _ => None,
        }
    }

    /// Where that fails, somebody is woken more often: it changes nothing else. Lowered, it wakes whoever waits if there is
    /// enough already (`tcp_set_rcvlowat` in the kernel's `net/ipv4/tcp.c`).
    pub fn set(&self, bytes: i32) {
        let size = size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the socket is open as long as `self`, and the option's value is an int of that size (socket(7)).
        unsafe {
            let value = (&raw const bytes).cast();
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                value,
                size,
            );
        }
    }
}

/// The socket under a replication connection: what a `MakeTlsConnect` wraps.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(settings: &str) -> Result<Vec<(String, bool)>, String> {
        let all = Endpoint::all(&settings.parse().unwrap()).map_err(|error| error.to_string())?;
        Ok(all
            .iter()
            .map(|endpoint| (endpoint.name(), endpoint.is_unix()))
            .collect())
    }

    #[test]
    fn hosts_keep_their_order_and_find_their_ports() {
        let tcp = |name: &str| (name.to_owned(), false);
        assert_eq!(
            endpoints("host=a,b port=1,2"),
            Ok(vec![tcp("a:1"), tcp("b:2")])
        );
        assert_eq!(
            endpoints("host=a,b port=7"),
            Ok(vec![tcp("a:7"), tcp("b:7")])
        );
        assert_eq!(
            endpoints("hostaddr=127.0.0.1"),
            Ok(vec![tcp("127.0.0.1:5432")])
        );
        assert_eq!(
            endpoints("host=a hostaddr=127.0.0.1"),
            Ok(vec![tcp("a:5432")])
        );
        assert_eq!(
            endpoints("host=/run/pg"),
            Ok(vec![("/run/pg:5432".to_owned(), true)])
        );
    }

    #[test]
    fn lists_that_do_not_match_are_refused() {
        assert!(endpoints("user=a").unwrap_err().contains("no host"));
        assert!(
            endpoints("host=a,b,c port=1,2")
                .unwrap_err()
                .contains("2 ports for 3 hosts")
        );
        assert!(
            endpoints("host=a,b hostaddr=127.0.0.1")
                .unwrap_err()
                .contains("2 host for 1 hostaddr")
        );
    }

    #[tokio::test]
    async fn a_socket_has_keepalives_and_a_user_timeout_also_when_nothing_was_set() {
        let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config: Config = format!("host=127.0.0.1 port={port}").parse().unwrap();
        let Socket::Tcp(stream) = Endpoint::all(&config).unwrap()[0]
            .open(&config)
            .await
            .unwrap()
        else {
            panic!("a TCP socket");
        };
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
