//! How a server may ask for a login, and what it is told.
//!
//! ```text
//! server ──▶ Authentication… ──▶ Guarded: does the policy allow this answer? ──▶ the driver, or the replication client
//!                                    └── no: the message is never delivered, so it is never answered
//! ```
//!
//! Both clients answer whatever method a server asks for. A server that is not what it seems would ask for the password
//! in clear text. The [`guard`] is part of the stream below both of them, so there is one place that decides.

pub mod guard;
pub mod methods;
pub mod policy;

pub use guard::{Guarded, GuardedTls};
pub use methods::Methods;
pub use policy::LoginPolicy;
