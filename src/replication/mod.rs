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

mod lsn;
pub mod pgoutput;
mod slot;
mod tracker;

pub use lsn::{Lsn, ParseLsnError};
pub use slot::{InvalidSlotName, SlotName};
pub use tracker::{LsnTracker, Ticket};
