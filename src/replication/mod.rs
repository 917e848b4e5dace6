//! A client for logical replication: transport, decoder, and the bookkeeping of what may be confirmed.
//!
//! ```text
//! open socket ──connect──▶ ReplicationConnection ──start_replication──▶ ReplicationStream
//!                                                                         │         ▲
//!                                                                       Frame    send_status
//!                                                                         ▼         │
//!                                             your work ◀── pgoutput::decode      LsnTracker::confirmed
//!                                                 └── each finished row ──────────▶ ┘
//! ```
//!
//! Three parts that do not know each other: the connection and its stream move bytes ([`connection`], [`stream`]),
//! [`pgoutput`] decodes them without I/O, and [`LsnTracker`] counts unfinished rows. Opening the socket is
//! the caller's task, and so is what happens to a row. Nothing here depends on the rest of the crate.
//!
//! `examples/tail.rs` prints the changes of a publication. In short:
//!
//! ```no_run
//! use lantern::replication::{
//!     Frame, Lsn, LsnTracker, ReplicationConnection, SlotName,
//!     pgoutput::{Message, decode},
//! };
//! use tokio::net::TcpStream;
//! use tokio_postgres::{Config, NoTls};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config: Config = "user=me dbname=app".parse()?;
//! let socket = TcpStream::connect("localhost:5432").await?;
//! let connection = ReplicationConnection::connect(socket, NoTls, &config, &[]).await?;
//! let slot = SlotName::try_from("my_slot")?;
//! let mut stream = connection.start_replication(&slot, Lsn::ZERO, &["my_publication"]).await?;
//! let mut tracker = LsnTracker::new(Lsn::ZERO);
//! loop {
//!     match stream.next().await? {
//!         Frame::XLogData { payload, .. } => match decode(&payload)? {
//!             Message::Begin { .. } => drop(tracker.begin()),
//!             Message::Commit { end_lsn, .. } => tracker.commit(end_lsn),
//!             change => println!("{change:?}"),
//!         },
//!         Frame::Keepalive { wal_end, .. } => tracker.keepalive(wal_end),
//!     }
//!     stream.send_status(tracker.confirmed(), false).await?;
//! }
//! # }
//! ```

mod auth;
mod channel_binding;
pub mod connection;
pub mod error;
pub mod lsn;
pub mod pgoutput;
mod quote;
mod receive_threshold;
pub mod slot;
mod startup;
pub mod stream;
mod tls;
pub mod tracker;
mod transport;
mod unix_socket;
mod wire;

pub use connection::{ReplicationConnection, SystemIdentity, TextRow};
pub use error::ReplicationError;
pub use lsn::{Lsn, ParseLsnError};
pub use slot::{InvalidSlotName, SlotName};
pub use stream::{Frame, ReplicationStream};
pub use tracker::{LsnTracker, Ticket};
