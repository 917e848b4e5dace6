//! The replication room: properties that hold without a server, and behaviour with one.

mod decoder;
mod framing;
mod hostile;
mod login;
mod postgres;
mod streaming;
mod tracker;
