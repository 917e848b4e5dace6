//! The network between a daemon and its server: a TCP proxy that can cut connections and stall or drop what they carry.
//!
//! It tells replication connections from SQL ones by the startup packet (PostgreSQL documentation, "Message Formats"),
//! and one daemon from another by the `application_name` in it, so that faults can strike one kind of connection of one
//! daemon.

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

/// The condition of the network for one kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Normal,
    /// Bytes are held back until the condition ends.
    Stalled,
    /// Bytes are dropped, and neither side learns of it.
    Dropping,
    /// New connections are closed; existing ones go on.
    Refusing,
    /// So many kilobits pass in a second.
    Slow(u32),
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
    replication: Link,
    sql: Link,
}

/// All connections of one kind.
struct Link {
    condition: watch::Sender<Condition>,
    /// Connections that were opened under an earlier number are cut.
    generation: watch::Sender<u64>,
    /// Bytes of each direction until the connection that carries the last of them is cut; not positive: without a
    /// limit.
    budgets: [AtomicI64; 2],
    /// The server's ends of connections whose daemon's end was cut, where the server is not to know; `None`
    /// where it is.
    half_open: Mutex<Option<Vec<(OwnedReadHalf, OwnedWriteHalf)>>>,
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
    /// Cuts every connection of this kind; new ones are accepted.
    pub fn cut(&self, kind: Kind) {
        self.link(kind).cut();
    }

    /// Cuts the connection that carries the byte with this number, counted from now, right after that byte.
    pub fn cut_after(&self, kind: Kind, direction: Direction, bytes: u32) {
        self.link(kind).budgets[direction as usize].store(bytes.into(), Ordering::SeqCst);
    }

    /// Puts the connections of a kind into a condition for a while. When `Dropping` ends, the connections that it
    /// struck are cut; with `half_open` their ends at the server stay open until [`heal`](Self::heal).
    pub async fn condition(
        &self,
        kind: Kind,
        condition: Condition,
        pause: Duration,
        half_open: bool,
    ) {
        let link = self.link(kind);
        link.condition.send_replace(condition);
        tokio::time::sleep(pause).await;
        if half_open {
            link.half_open
                .lock()
                .expect("no panics")
                .get_or_insert_default();
        }
        if condition == Condition::Dropping {
            link.cut();
        }
        link.condition.send_replace(Condition::Normal);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        for link in [&self.replication, &self.sql] {
            link.budgets
                .iter()
                .for_each(|budget| budget.store(0, Ordering::SeqCst));
            if link.condition.send_replace(Condition::Normal) == Condition::Dropping {
                link.cut();
            }
            *link.half_open.lock().expect("no panics") = None;
        }
    }

    /// Drops everything in both directions until [`heal`](Self::heal); neither side learns of it.
    pub fn drop_all(&self) {
        for link in [&self.replication, &self.sql] {
            link.condition.send_replace(Condition::Dropping);
        }
    }

    fn link(&self, kind: Kind) -> &Link {
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

impl Default for Link {
    fn default() -> Self {
        Self {
            condition: watch::Sender::new(Condition::Normal),
            generation: watch::Sender::new(0),
            budgets: [AtomicI64::new(0), AtomicI64::new(0)],
            half_open: Mutex::default(),
        }
    }
}

impl Link {
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
            // SSLRequest and GSSENCRequest: no.
            80_877_103 | 80_877_104 => daemon.write_all(b"N").await?,
            _ if packet.windows(12).any(|name| name == b"\0replication") => {
                break (Kind::Replication, packet);
            }
            _ => break (Kind::Sql, packet),
        }
    };
    let link = networks[number_in(&startup)].link(kind);
    let mut generation = link.generation.subscribe();
    if *link.condition.borrow() == Condition::Refusing {
        return Ok(());
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
    server.set_nodelay(true)?;
    server.write_all(&startup).await?;

    let (mut from_daemon, mut to_daemon) = daemon.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let cut = tokio::select! {
        _ = pump(&mut from_daemon, &mut to_server, link, Direction::ToServer) => false,
        _ = pump(&mut from_server, &mut to_daemon, link, Direction::ToDaemon) => false,
        _ = generation.changed() => true,
    };
    if cut && let Some(half_open) = &mut *link.half_open.lock().expect("no panics") {
        half_open.push((from_server, to_server));
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
    link: &Link,
    direction: Direction,
) -> io::Result<()> {
    let mut condition = link.condition.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    let mut has_dropped = false;
    loop {
        let count = from.read(&mut buffer).await?;
        // The link owns the sender, so this cannot fail.
        let _ = condition
            .wait_for(|condition| *condition != Condition::Stalled)
            .await;
        let current = *condition.borrow();
        if let Condition::Slow(kilobits) = current {
            let milliseconds = count as u64 * 8 / u64::from(kilobits);
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        if *condition.borrow() == Condition::Dropping {
            if count == 0 {
                // Nor does this side learn that the other one has hung up.
                let _ = condition
                    .wait_for(|condition| *condition != Condition::Dropping)
                    .await;
            }
            has_dropped = true;
            continue;
        }
        // TCP never delivers bytes behind lost ones. Another fault may have ended the condition before its own cut.
        if count == 0 || has_dropped {
            return Ok(());
        }
        let budget = &link.budgets[direction as usize];
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
