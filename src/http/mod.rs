//! What the daemon shows over HTTP (`start-daemon --listen`): metrics for Prometheus, two health checks, a status page,
//! and its models for programs. `serve` shows models alone.
//!
//! ```text
//!                 ┌──────────────── the thread `lantern-http` ────────────────┐
//! StatusBoard ──▶ │ rendered, once a snapshot ──▶ routes ──▶ access ──▶ server │ ──▶ scraper, probe, browser
//!      Engine ◀─▶ │ api ─────────────────────────────┘                         │ ──▶ programs
//!                 └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Everything that the status page and its like show comes from [`StatusBoard`](crate::status::StatusBoard): a request asks no database and
//! takes no lock that the daemon waits for. The server has a thread of its own. So requests cannot keep the thread that
//! runs the jobs busy, and `/healthz` can still answer when that one hangs.
//!
//! | file | holds |
//! | --- | --- |
//! | [`listen`] | where the server listens, and who may ask |
//! | `server` | the thread |
//! | `connections` | the connections and their limits |
//! | [`tls`] | the certificate |
//! | `access` | which requests are answered, and the headers of every answer |
//! | `token` | the bearer token |
//! | `routes`, `answer`, `shared` | the paths, answers to them, and what they share |
//! | `rendered` | answers that are made once a snapshot |
//! | `metrics` | the text for Prometheus |
//! | `health` | alive, ready, or why not |
//! | `status_json` | the state as JSON, for the page |
//! | [`api`] | the models for programs |
//! | `page` | the status page, one document without external parts |

mod access;
mod answer;
pub mod api;
mod connections;
mod health;
pub mod listen;
mod metrics;
mod page;
mod rendered;
mod routes;
mod server;
mod shared;
mod status_json;
pub mod tls;
pub mod token;

pub use api::Api;
pub use listen::{Listen, ListenAddress, ListenError};
pub use server::HttpServer;
pub use tls::TlsIdentity;
pub use token::Token;
