//! How this program talks to PostgreSQL: connection strings, TLS, sessions with pinned settings, quoting, and what an
//! error means. Nothing in here knows of jobs or embeddings.

pub mod allowed_hosts;
pub mod connection_string;
pub mod connector;
pub mod error;
pub mod quote;
pub mod remedy;
pub mod session;
pub mod socket;
pub mod sqlstate;
pub mod tls;
pub mod vector_array;

pub use allowed_hosts::AllowedHosts;
pub use connection_string::ConnectionString;
pub use error::DatabaseError;
pub use session::Session;
