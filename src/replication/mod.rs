//! Logical replication as a client sees it: transport, message decoder, and the bookkeeping of what
//! may be confirmed.
//!
//! ```text
//! ReplicationConnection ──start_replication──▶ ReplicationStream ──Frame──▶ pgoutput::decode ──▶ the reader's work
//!                                                     ▲                                               │
//!                                                     └── send_status ◀── LsnTracker::confirmed ◀─────┘
//! ```
//!
//! Three parts that know nothing of each other: the connection and its stream move bytes
//! ([`connection`], [`stream`]), [`pgoutput`] gives them meaning without doing I/O, and
//! [`LsnTracker`] counts. What a row is for is somebody else's business.

mod auth;
mod channel_binding;
pub mod connection;
mod error;
mod lsn;
pub mod pgoutput;
mod slot;
mod socket;
mod startup;
pub mod stream;
mod tracker;
mod wire;

pub use connection::{ReplicationConnection, SystemIdentity, TextRow};
pub use error::ReplicationError;
pub use lsn::{Lsn, ParseLsnError};
pub use slot::{InvalidSlotName, SlotName};
pub use socket::Socket;
pub use stream::{Frame, ReplicationStream};
pub use tracker::{LsnTracker, Ticket};
