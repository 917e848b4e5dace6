//! The replication client: properties that hold without a server, and behavior with one. And the connector that opens
//! sockets for it.

mod connector;
mod decoder;
mod framing;
mod hostile;
mod login;
mod postgres;
mod streaming;
mod tail;
mod tracker;
