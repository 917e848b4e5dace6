//! What the daemon shows over HTTP (`start-daemon --listen`): metrics for Prometheus, two health checks and a status
//! page.
//!
//! ```text
//!                 ┌──────────────── the thread `lantern-http` ────────────────┐
//! StatusBoard ──▶ │ rendered, once a snapshot ──▶ routes ──▶ access ──▶ server │ ──▶ scraper, probe, browser
//!                 └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Everything that is shown comes from [`StatusBoard`](crate::status::StatusBoard): a request asks no database and
//! takes no lock that the daemon waits for. The server has a thread of its own. So requests cannot keep the thread that
//! runs the jobs busy, and `/healthz` can still answer when that one hangs.
//!
//! | file | holds |
//! | --- | --- |
//! | [`listen`] | where the server listens, and who may ask |
//! | `server` | the thread, and the limits of connections |
//! | `access` | which requests are answered, and the headers of every answer |
//! | `token` | the bearer token |
//! | `routes`, `answer`, `shared` | the paths, answers to them, and what they share |
//! | `rendered` | answers that are made once a snapshot |
//! | `metrics` | the text for Prometheus |
//! | `health` | alive, ready, or why not |
//! | `status_json` | the state as JSON, for the page |
//! | `page` | the status page, one document without external parts |

mod access;
mod answer;
mod health;
pub mod listen;
mod metrics;
mod page;
mod rendered;
mod routes;
mod server;
mod shared;
mod status_json;
pub mod token;

pub use listen::{Listen, ListenAddress, ListenError};
pub use server::HttpServer;
pub use token::Token;
