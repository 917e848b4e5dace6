//! The network between a daemon and its server: a TCP proxy that can cut, stall and swallow.
//!
//! It tells replication connections from SQL ones by the startup packet (PostgreSQL documentation, "Message Formats"), and one
//! daemon from another by the name that it gives itself there, so that each kind of each daemon's can be harmed alone.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::daemon::number;

/// The two kinds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Replication,
    Sql,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToDaemon,
}

/// What happens to the bytes of a kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Bytes wait, and go on when it clears up.
    Stalled,
    /// Bytes vanish, and nobody is told: a half-open connection.
    Silent,
    /// Nobody answers at the address; connections that are there go on.
    Refusing,
}

pub struct Proxy {
    port: u16,
    /// By the numbers of the daemons.
    networks: Arc<[Network]>,
    accepting: AbortHandle,
}

/// What lies between one daemon and the server.
#[derive(Default)]
pub struct Network {
    replication: Line,
    sql: Line,
}

/// All connections of one kind.
struct Line {
    weather: watch::Sender<Weather>,
    /// Connections that were opened under an earlier number are cut.
    generation: watch::Sender<u64>,
    /// Bytes of each direction until the connection that carries the last of them is cut; not positive: no such thing.
    budgets: [AtomicI64; 2],
    /// Server's ends of connections whose daemon's end was cut, where the server is not to know; `None` where it is.
    zombies: Mutex<Option<Vec<(OwnedReadHalf, OwnedWriteHalf)>>>,
}

impl Proxy {
    /// In front of the server at `upstream`, a port of 127.0.0.1, for daemons 0 up to, not including, `daemons`.
    pub async fn start(upstream: u16, daemons: usize) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let networks: Arc<[Network]> = (0..daemons).map(|_| Network::default()).collect();
        let theirs = Arc::clone(&networks);
        let accepting = tokio::spawn(async move {
            while let Ok((daemon, _)) = listener.accept().await {
                let networks = Arc::clone(&theirs);
                tokio::spawn(async move { carry(daemon, upstream, &networks).await });
            }
        });
        Ok(Self {
            port,
            networks,
            accepting: accepting.abort_handle(),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn network(&self, daemon: usize) -> &Network {
        &self.networks[daemon]
    }
}

impl Network {
    /// Cuts every connection of this kind; new ones are welcome.
    pub fn cut(&self, kind: Kind) {
        self.line(kind).cut();
    }

    /// Cuts the connection that carries the byte with this number, counted from now on, right behind it.
    pub fn cut_after(&self, kind: Kind, direction: Direction, bytes: u32) {
        self.line(kind).budgets[direction as usize].store(bytes.into(), Ordering::SeqCst);
    }

    /// Lets this weather come over the connections of a kind for a while. When `Silent` clears up, the connections that were
    /// caught in it are gone; with `zombies` the server's ends of what is cut stay until [`heal`](Self::heal).
    pub async fn weather(&self, kind: Kind, weather: Weather, pause: Duration, zombies: bool) {
        let line = self.line(kind);
        line.weather.send_replace(weather);
        tokio::time::sleep(pause).await;
        if zombies {
            line.zombies
                .lock()
                .expect("no panics")
                .get_or_insert_default();
        }
        if weather == Weather::Silent {
            line.cut();
        }
        line.weather.send_replace(Weather::Fair);
    }

    /// Everything is well again, and forgotten.
    pub fn heal(&self) {
        for line in [&self.replication, &self.sql] {
            line.budgets
                .iter()
                .for_each(|budget| budget.store(0, Ordering::SeqCst));
            if line.weather.send_replace(Weather::Fair) == Weather::Silent {
                line.cut();
            }
            *line.zombies.lock().expect("no panics") = None;
        }
    }

    /// Nothing arrives any more, in neither direction, until [`heal`](Self::heal); nobody is told.
    pub fn lose(&self) {
        for line in [&self.replication, &self.sql] {
            line.weather.send_replace(Weather::Silent);
        }
    }

    fn line(&self, kind: Kind) -> &Line {
        match kind {
            Kind::Replication => &self.replication,
            Kind::Sql => &self.sql,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        for network in self.networks.iter() {
            network.replication.cut();
            network.sql.cut();
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            weather: watch::Sender::new(Weather::Fair),
            generation: watch::Sender::new(0),
            budgets: [AtomicI64::new(0), AtomicI64::new(0)],
            zombies: Mutex::default(),
        }
    }
}

impl Line {
    fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

/// One connection from its startup packet to its end.
async fn carry(mut daemon: TcpStream, upstream: u16, networks: &[Network]) -> io::Result<()> {
    daemon.set_nodelay(true)?;
    let (kind, startup) = loop {
        let packet = startup_packet(&mut daemon).await?;
        match u32::from_be_bytes(packet[4..8].try_into().expect("four bytes")) {
            // SSLRequest and GSSENCRequest: neither.
            80_877_103 | 80_877_104 => daemon.write_all(b"N").await?,
            _ if packet.windows(12).any(|name| name == b"\0replication") => {
                break (Kind::Replication, packet);
            }
            _ => break (Kind::Sql, packet),
        }
    };
    let line = networks[number_in(&startup)].line(kind);
    let mut generation = line.generation.subscribe();
    if *line.weather.borrow() == Weather::Refusing {
        return Ok(());
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
    server.set_nodelay(true)?;
    server.write_all(&startup).await?;

    let (mut from_daemon, mut to_daemon) = daemon.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let cut = tokio::select! {
        _ = pump(&mut from_daemon, &mut to_server, line, Direction::ToServer) => false,
        _ = pump(&mut from_server, &mut to_daemon, line, Direction::ToDaemon) => false,
        _ = generation.changed() => true,
    };
    if cut && let Some(zombies) = &mut *line.zombies.lock().expect("no panics") {
        zombies.push((from_server, to_server));
    }
    Ok(())
}

/// The first packet of a connection: a length of four bytes, which counts itself, and no type.
async fn startup_packet(daemon: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; 4];
    daemon.read_exact(&mut packet).await?;
    let length = u32::from_be_bytes(packet[..4].try_into().expect("four bytes")) as usize;
    if !(8..10_000).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    packet.resize(length, 0);
    daemon.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

/// Which daemon sends this startup packet; see [`number`].
fn number_in(startup: &[u8]) -> usize {
    let fields: Vec<&[u8]> = startup[8..].split(|byte| *byte == 0).collect();
    let name = fields
        .iter()
        .skip_while(|field| **field != b"application_name")
        .nth(1);
    name.and_then(|name| number(std::str::from_utf8(name).ok()?))
        .unwrap_or(0)
}

/// Carries bytes one way until the connection ends.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    line: &Line,
    direction: Direction,
) -> io::Result<()> {
    let mut weather = line.weather.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        // Nobody drops the sender while the line is there.
        let _ = weather
            .wait_for(|weather| *weather != Weather::Stalled)
            .await;
        if *weather.borrow() == Weather::Silent {
            if count == 0 {
                // Nor is anybody told that the other side hung up.
                let _ = weather
                    .wait_for(|weather| *weather != Weather::Silent)
                    .await;
            }
            continue;
        }
        if count == 0 {
            return Ok(());
        }
        let budget = &line.budgets[direction as usize];
        let before = budget.load(Ordering::SeqCst);
        if before > 0 {
            let left = before - count as i64;
            budget.store(left.max(0), Ordering::SeqCst);
            if left <= 0 {
                to.write_all(&buffer[..before as usize]).await?;
                return Ok(());
            }
        }
        to.write_all(&buffer[..count]).await?;
    }
}
