//! TLS as `sslmode` asks for it.
//!
//! ```text
//! TlsOptions ──connector──▶ MakeRustlsConnect ──▶ handshake ──▶ verifier: is it the right server?
//!             reads files                             └─ failed ──▶ explain: what to do about it
//! ```
//!
//! libpq's rule (PostgreSQL manual, "SSL Support"): `prefer` and `require` encrypt without a look at the certificate,
//! `verify-ca` checks that a trusted authority signed it, `verify-full` also that it was issued for the host.

mod connector;
pub mod error;
mod explain;
mod files;
pub mod named_file;
pub mod options;
mod verifier;

pub use connector::connector;
pub use error::TlsError;
pub use explain::{cause, explain};
pub use named_file::NamedFile;
pub use options::{Encryption, MinimumVersion, TlsOptions, Verification};
