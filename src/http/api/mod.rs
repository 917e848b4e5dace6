//! The models for programs: texts in, vectors out, in the shapes that clients of OpenAI and of text-embeddings-inference
//! know.
//!
//! ```text
//!  request ──▶ admission ──▶ body ──▶ openai │ tei ──▶ embedding ──▶ engine's queue, before any backfill
//!              429, 413      408, 413  what is asked     tokens, roles      │
//!  answer  ◀── json or base64, made beside the server's thread ◀────────────┘
//! ```
//!
//! A request is one flow of the engine: it shares batches and the cache with all others, and when its client goes away
//! its future is dropped, and its texts leave the queue.
//!
//! | file | holds |
//! | --- | --- |
//! | `routes` | the paths |
//! | `service` | what all requests share: the engine, and which models there are |
//! | `admission` | how much is worked on at a time |
//! | [`limits`] | how much one request may ask |
//! | `body` | reading a request |
//! | `input` | texts and token arrays |
//! | `embedding` | from what is asked to vectors |
//! | `answering` | what answers with vectors have in common |
//! | `openai`, `models` | `/v1/embeddings`, `/v1/models` |
//! | `tei` | `/embed`, `/info`, `/health` |
//! | `error` | errors in both shapes |

mod admission;
mod answering;
mod body;
mod embedding;
mod error;
mod input;
pub mod limits;
mod models;
mod openai;
mod routes;
mod service;
mod tei;

pub(super) use error::{ApiError, Dialect, Problem};
pub(super) use routes::{probes, routes};
pub use service::Api;
