//! How this program talks to PostgreSQL: connection strings, TLS, sessions with pinned settings, quoting, and what an
//! error means. Nothing in here knows of jobs or embeddings.
//!
//! ```text
//! connection_string     connector              socket           tls            session
//! ConnectionString ──▶ server, address ──▶ open Socket ──▶ TLS ──▶ login ──▶ Session
//!        ▲                                      │                              │
//!        │                                      └──▶ a walsender's login       │ server(): the one server reached
//!        └─────────────────────────────────────────────────────────────────────┘
//!
//! job_access: what a jobs row may name       authentication: what a server may ask for      peer: whose socket it is
//! sqlstate, error, remedy: what an error means, and what to do        quote: names and values in SQL
//! answer: the values of an answer            shared_answer: one answer for all who ask at the same time
//! ```
//!
//! A session is opened from a connection string, which may name several servers. Everything else that must reach the
//! same server (a walsender, a second session) connects by [`Session::server`], which names that server at that address
//! alone.
//!
//! ```no_run
//! use lantern::postgres::{ConnectionString, DatabaseError, Session, quote};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let target: ConnectionString = "postgresql://me@a,b/app?target_session_attrs=primary".parse()?;
//! let session = Session::open(&target).await?;
//! let count = format!("SELECT count(*) FROM {}", quote::identifier("My Table"));
//! let count: i64 = session
//!     .query_one(&count, &[])
//!     .await
//!     .and_then(|row| row.try_get(0))
//!     .map_err(DatabaseError::during("counting rows"))?;
//! println!("{count} rows at {}", session.server());
//! # Ok(())
//! # }
//! ```

pub mod allowed_hosts;
pub mod allowed_variables;
pub mod answer;
pub mod authentication;
pub mod connection_string;
pub mod connector;
pub mod error;
pub mod instance;
pub mod job_access;
pub mod peer;
pub mod plain_file;
pub mod quote;
pub mod remedy;
pub mod session;
pub mod shared_answer;
pub mod socket;
pub mod sqlstate;
pub mod tls;
pub mod user_settings;
pub mod vector_array;

pub use connection_string::ConnectionString;
pub use error::DatabaseError;
pub use instance::ServerInstance;
pub use job_access::JobAccess;
pub use session::Session;
