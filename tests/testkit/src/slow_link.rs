//! A network that is slow, long or unsteady: a TCP proxy in front of a server.
//!
//! ```text
//! daemon ──▶ receive buffer ──▶ the link: so many bits a second ──▶ delay ──▶ server
//! ```
//!
//! All connections share the link, each direction by itself, as they do behind one network card.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};

/// What goes over the link at a time.
const PACKET: usize = 1448;
/// Packets of a connection that are on their way at a time: more than any link here holds.
const MAX_PACKETS: usize = 8192;

/// How far the line may be ahead of the clock.
const MAX_AHEAD: Duration = Duration::from_millis(2);

/// What a link is like.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// Bits a second, in each direction.
    pub bits_per_second: u64,
    /// From one end to the other; a round trip takes twice as long.
    pub latency: Duration,
    /// After this many bytes nothing passes for so long.
    pub stalls: Option<(u64, Duration)>,
}

impl Conditions {
    /// A steady link of this many megabits a second and this round trip time in milliseconds.
    pub fn new(megabits: u64, round_trip_ms: u64) -> Self {
        Conditions {
            bits_per_second: megabits * 1_000_000,
            latency: Duration::from_micros(round_trip_ms * 500),
            stalls: None,
        }
    }
}

/// The proxy. It works until it is dropped with the runtime.
#[derive(Debug)]
pub struct SlowLink {
    port: u16,
    server: u16,
}

impl SlowLink {
    /// In front of the server at this port of 127.0.0.1.
    ///
    /// # Panics
    /// Where no port can be opened.
    pub async fn before(server: u16, conditions: Conditions) -> SlowLink {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let directions = [(); 2].map(|()| Arc::new(Mutex::new(Line::new(conditions))));
        tokio::spawn(async move {
            while let Ok((daemon, _)) = listener.accept().await {
                let [up, down] = directions.clone();
                tokio::spawn(async move {
                    let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await else {
                        return;
                    };
                    let (from_daemon, to_daemon) = daemon.into_split();
                    let (from_server, to_server) = upstream.into_split();
                    tokio::select! {
                        _ = carry(from_daemon, to_server, up, conditions.latency) => {}
                        _ = carry(from_server, to_daemon, down, conditions.latency) => {}
                    }
                });
            }
        });
        SlowLink { port, server }
    }

    /// A connection string of the server, through the link.
    pub fn through(&self, uri: &str) -> String {
        uri.replace(&format!(":{}/", self.server), &format!(":{}/", self.port))
    }
}

/// One direction of the link.
struct Line {
    conditions: Conditions,
    free_at: Instant,
    until_stall: u64,
}

impl Line {
    fn new(conditions: Conditions) -> Self {
        Line {
            conditions,
            free_at: Instant::now(),
            until_stall: conditions.stalls.map_or(u64::MAX, |(bytes, _)| bytes),
        }
    }

    /// When this many more bytes have passed.
    fn pass(&mut self, bytes: usize) -> Instant {
        let bytes = bytes as u64;
        let nanoseconds = bytes * 8 * 1_000_000_000 / self.conditions.bits_per_second;
        self.free_at = self.free_at.max(Instant::now()) + Duration::from_nanos(nanoseconds);
        self.until_stall = self.until_stall.saturating_sub(bytes);
        if let (0, Some((bytes, stall))) = (self.until_stall, self.conditions.stalls) {
            self.until_stall = bytes;
            self.free_at += stall;
        }
        self.free_at
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    line: Arc<Mutex<Line>>,
    latency: Duration,
) -> io::Result<()> {
    let (sender, mut packets) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_PACKETS);
    let send = async move {
        let mut buffer = vec![0; PACKET];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return io::Result::Ok(());
            }
            // Nothing else goes over the line until these bytes have passed. Timers tick once a millisecond, a packet on a
            // fast line takes less, so the line may run ahead by two.
            let passed = line.lock().await.pass(length);
            if passed > Instant::now() + MAX_AHEAD {
                sleep_until(passed).await;
            }
            if sender
                .send((passed + latency, buffer[..length].to_vec()))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    };
    let receive = async move {
        while let Some((due, bytes)) = packets.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        io::Result::Ok(())
    };
    tokio::try_join!(send, receive)?;
    Ok(())
}
